"""The audit log in files (DESIGN §6, `docs/spec/audit-log-v1.md`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.adapters.audit.audit_apart import KeeperProcess, KeeperThread
from gateway.adapters.audit.audit_faults import INVALID, unavailable
from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_handover import Room, hand_over
from gateway.adapters.audit.audit_keeper import Keeper
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_open import LogSettings, OpenedLog, open_log, write_vkeys
from gateway.adapters.audit.audit_openings import count_sealed, read_opening
from gateway.adapters.audit.audit_queue import CommitQueue, Pending, Standing
from gateway.adapters.audit.audit_recovery import Fold
from gateway.adapters.audit.audit_seek import find_line
from gateway.adapters.audit.audit_writer import SEGMENT_MAX_BYTES
from gateway.core.calls.call import Intent, Outcome, RecordedIntent, RecordedOutcome
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError
from gateway.core.limits import Limits
from gateway.core.log import note
from gateway.core.people.sign_in_changes import CHANGES
from gateway.core.ports import Clock

T = TypeVar("T")


class FileAuditLog:
    """The `AuditLog` port over a directory that one process at a time may write.

    Life: `open` (checks, recovers, writes `boot`), `start` on the running loop, `close` (writes
    `shutdown`). Made by `open` only.
    """

    def __init__(self, opened: OpenedLog) -> None:
        self._log: Final = opened
        self._lock_fds = opened.lock_fds
        self._vault: Final = opened.vault
        self._epochs: Final = list(opened.epochs)
        self._rotating: Final = asyncio.Lock()
        self._adopting = False
        self._redacted: Final = dict(opened.recovered.redacted)
        self._keeper: KeeperThread | KeeperProcess | None = None
        self._queue: CommitQueue | None = None
        self.epoch_us = opened.epoch_us
        """Since when the signing key is in use, in µs since 1970."""
        self.recovered: Final = opened.recovered
        self.sign_in_changes = 0
        """How many records of `core.sign_in_changes.CHANGES` were written since the start."""

    @classmethod
    def open(
        cls,
        dir: Path,  # noqa: A002 - as in the configuration
        *,
        origin: str,
        signer: Ed25519PrivateKey | KeyFile,
        kek: bytes,
        clock: Clock,
        limits: Limits,
        deployment: dict[str, str],
        fold: Fold | None = None,
        fold_from: int = 0,
        segment_max_bytes: int = SEGMENT_MAX_BYTES,
        reserve_bytes: int = 0,
        files: Files | None = None,
    ) -> FileAuditLog:
        """Open the log in `dir`, or make a new one, and write its `boot` record durably.

        `deployment` stands in the first record; a log of another deployment is not opened. `fold`
        is called with each `call.intent` and `call.outcome` from sequence number `fold_from` on.
        `reserve_bytes` are kept back for the outcomes of calls under way on a disk that fills up.
        Does I/O in proportion to the log; call it before the loop runs. Raises
        `ConfigurationError` for a log that is held, damaged, another's or signed by another key.
        """
        settings = LogSettings(
            directory=dir,
            origin=origin,
            signer=signer,
            kek=kek,
            clock=clock,
            limits=limits,
            deployment=deployment,
            fold=fold,
            fold_from=fold_from,
            room=Room(str(dir), segment_max_bytes, reserve_bytes, limits.record_max_bytes),
            files=files or Files(),
        )
        return cls(open_log(settings))

    async def start(
        self, *, apart: bool = False, failed: Callable[[str], None] = lambda _why: None
    ) -> None:
        """Begin to take records, on the running loop.

        `apart`: a process of its own keeps the log, and not a thread of this one. `failed` is told
        why no more records are taken, once. Raises `AuditError` where it cannot.
        """
        log, limits = self._log, self._log.settings.limits
        standing = Standing(log.events, log.writer.durable, log.writer.is_full)
        try:
            keeper = KeeperProcess() if apart else KeeperThread(_keeper_of(log))
        except OSError as error:
            raise unavailable(f"nothing can be started that keeps it: {error}") from error
        self._keeper = keeper
        if isinstance(keeper, KeeperProcess):
            self._hand_over(keeper)
        self._queue = CommitQueue(
            keeper.connection,
            standing,
            unwanted=self._close_unsent,
            failed=lambda why: keeper.tell(why, failed),
            queue_max=limits.audit_queue_max,
            wait_ms=limits.audit_wait_ms,
        )
        await self._queue.ready()

    def _hand_over(self, keeper: KeeperProcess) -> None:
        assert self._lock_fds  # noqa: S101 - it is open
        settings = self._log.settings
        handed = hand_over(
            room=settings.room,
            builder=self._log.builder,
            writer=self._log.writer,
            kek=settings.kek,
            signer=self._log.signer,
        )
        with contextlib.suppress(OSError):  # it is gone, which `ready` tells
            keeper.hand(handed, self._lock_fds)

    def expect_end(self) -> None:
        """Say that the end has begun: from now on, a disk that hangs is not waited for for ever."""
        if self._queue is not None:
            self._queue.expect_end()

    async def close(self) -> None:
        """Let everything queued become durable, write `shutdown` and give the directory back."""
        if not self._lock_fds:
            return
        try:
            if self._queue is None or self._keeper is None:
                self._end_unstarted()
            else:
                try:
                    await self._queue.close(self._now_us())
                finally:
                    await self._keeper.ended()
        finally:
            for descriptor in self._lock_fds:
                os.close(descriptor)
            self._lock_fds = ()

    def _end_unstarted(self) -> None:
        builder, writer = self._log.builder, self._log.writer
        try:
            builder.add(Entry(type="shutdown", op=builder.boot, fields={}), self._now_us())
            writer.write(builder.seal())
            writer.tidy(force=True)
        except OSError as error:
            raise AuditError(f"the audit log could not be closed: {error}") from error
        finally:
            writer.close()

    def _now_us(self) -> int:
        return self._log.settings.clock.now_ns() // 1000

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        """As the port promises. A call whose caller gave up is closed `not_sent`."""
        queue = self._running()
        pending, future = queue.put(intent.entry, self._now_us(), timed=True)
        receipt = await _or_give_up(queue, pending, future)
        return RecordedIntent(intent, receipt.seq, receipt.leaf)

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        """As the port promises. Takes no notice of the queue's limit: its intent was admitted."""
        _, future = self._running().put(outcome.entry, self._now_us(), timed=False)
        receipt = await future
        return RecordedOutcome(outcome, receipt.seq, receipt.leaf)

    async def record(self, entry: Entry) -> Receipt:
        """As the port promises."""
        _, future = self._running().put(entry, self._now_us(), timed=True)
        receipt = await future
        self.sign_in_changes += entry.type in CHANGES
        return receipt

    async def prove(self, record: Receipt) -> str:
        """As the port promises."""
        return await self._running().prove(record)

    async def rotate_key(self, entry: Entry, now_us: int) -> Receipt:
        """End the epoch: a new key signs from the next batch on, the old one is destroyed.

        `entry` is a `key.rotate` without `epoch` and `key`. Raises `AuditError` as `record` does;
        then the next start settles which key is in use, as the log says.
        """
        key_file = self._log.key_file
        if key_file is None:
            raise unavailable("its key is not in a file, so it cannot change")
        # A change that its caller gave up half way would leave the key in use where the next one
        # drops its own.
        return await asyncio.shield(self._rotate(key_file, entry, now_us))

    async def _rotate(self, key_file: KeyFile, entry: Entry, now_us: int) -> Receipt:
        async with self._rotating:
            queue = self._running()
            if queue.failure is not None:
                raise unavailable(queue.failure)
            await self._adopt(key_file)
            successor = await _off_loop(key_file.propose)
            key = note.build_key(self._epochs[0].name, successor.public_key())
            named = {"epoch": len(self._epochs), "key": note.build_vkey(key)}
            entry = replace(entry, fields={**entry.fields, **named})
            # INVARIANT: the log may name this key from here on, so no other one is proposed, which
            # would drop it, until it is adopted; where that is never known, the next start knows.
            self._adopting = True
            seed = successor.private_bytes_raw()
            _, future = queue.put(
                entry, self._now_us(), timed=False, key=seed
            )  # the old one's last
            receipt = await future
            self._epochs.append(key)
            self.epoch_us = now_us
            await self._adopt(key_file)
            await _off_loop(lambda: write_vkeys(self._log.settings, self._epochs))
        return receipt

    async def _adopt(self, key_file: KeyFile) -> None:
        """Put the key that the log names in its place, if that is still to be done."""
        if self._adopting:
            await _off_loop(lambda: key_file.settle(adopt=True))
            self._adopting = False

    async def redact(self, entry: Entry, key_id: str) -> Receipt:
        """Write a `redact` and erase its subject: both, or after a crash both at the next start.

        Everything of the subject up to that record becomes unreadable, and nothing after it.
        `entry` has an event id. Raises `AuditError` as `record` does.
        """
        assert entry.event_id is not None  # noqa: S101 - what `Vault.finish` looks for
        queue = self._running()
        try:
            await asyncio.to_thread(self._vault.mark, key_id, entry.event_id)
        except OSError as error:
            raise unavailable(f"an erasure cannot be prepared: {error}") from error
        try:
            _, future = queue.put(entry, self._now_us(), timed=False, erase=key_id)
        except AuditError:
            await asyncio.to_thread(self._vault.unmark, key_id)
            raise
        future.add_done_callback(lambda done: self._note_redacted(key_id, done))
        try:
            return await asyncio.shield(future)
        except AuditError as error:
            if error.code == INVALID:
                await asyncio.to_thread(self._vault.unmark, key_id)
            raise

    def _note_redacted(self, key_id: str, done: asyncio.Future[Receipt]) -> None:
        if done.exception() is None:
            self._redacted[key_id] = done.result().seq

    @property
    def keeper_pid(self) -> int | None:
        """The process that keeps the log, where it is one of its own."""
        return self._keeper.pid if isinstance(self._keeper, KeeperProcess) else None

    @property
    def epochs(self) -> tuple[str, ...]:
        """The verifier keys of the log's epochs, oldest first."""
        return tuple(note.build_vkey(key) for key in self._epochs)

    def knows(self, event_id: str) -> bool:
        """See `AuditLog`. One that is still on its way is not known yet."""
        return event_id in (self._log.events if self._queue is None else self._queue.known)

    @property
    def healthy(self) -> bool:
        """False once poisoned."""
        return self._queue is None or self._queue.failure is None

    @property
    def keeps_up(self) -> bool:
        """False while the disk, or what keeps the log, has not answered for seconds."""
        return self._queue is None or not self._queue.is_stuck

    @property
    def is_full(self) -> bool:
        """Whether the disk has room only for the outcomes of calls under way."""
        return self._log.writer.is_full if self._queue is None else self._queue.is_full

    @property
    def size(self) -> int:
        """Number of durable records: the next sequence number."""
        return self._log.writer.durable if self._queue is None else self._queue.durable

    def read_opening(self, seq: int, path: str) -> bytes | None:
        """Return the value committed to at `path` of record `seq`; None when it is erased.

        Raises `LookupError` when there is no such record or commitment. Reads files: not for the
        loop.
        """
        return read_opening(self._log.settings.directory, self._vault, seq, path)

    def read_record(self, seq: int) -> dict[str, Any] | None:
        """Return a durable record; None where there is none. Reads files: not for the loop."""
        line = find_line(self._log.settings.directory, seq) if seq < self.size else None
        return None if line is None else dict(orjson.loads(line))

    def key_id(self, subject: str) -> str:
        """Return what stands for a data subject in records: the id of its key."""
        return self._vault.key_id(subject)

    def has_key(self, key_id: str) -> bool:
        """Whether there is anything to erase."""
        return self._vault.has_key(key_id)

    def count_openings(self, key_id: str) -> int:
        """Return how many openings were kept under a key since its subject was last erased.

        Reads files: not for the loop.
        """
        after = self._redacted.get(key_id, -1)
        return count_sealed(self._log.settings.directory, key_id, after=after)

    def _running(self) -> CommitQueue:
        if self._queue is None:
            raise unavailable("it has not been started")
        return self._queue

    def _close_unsent(self, entry: Entry, receipt: Receipt) -> None:
        """Close an intent whose caller has gone: what was not waited for was not sent."""
        if entry.type == "call.intent" and self._queue is not None:
            self._queue.put_unwaited(build_unsent(entry, receipt), self._now_us())


def build_unsent(entry: Entry, receipt: Receipt) -> Entry:
    """Return the outcome of an intent that nobody sent, because its record came too late."""
    return Entry(
        type="call.outcome",
        op=entry.op,
        fields={
            "intent": receipt.seq,
            "status": "failed",
            "delivery": "not_sent",
            "reason": "audit_overloaded",
        },
    )


def _keeper_of(log: OpenedLog) -> Keeper:
    return Keeper(builder=log.builder, writer=log.writer, vault=log.vault)


async def _off_loop(work: Callable[[], T]) -> T:
    """Do something to the key's files in another thread. Raises `AuditError`."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise unavailable(f"its key cannot be changed: {error}") from error


async def _or_give_up(
    queue: CommitQueue, pending: Pending, future: asyncio.Future[Receipt]
) -> Receipt:
    try:
        return await future
    except asyncio.CancelledError:
        queue.give_up(pending)
        raise
