"""The audit log in files (DESIGN §6, `docs/spec/audit-log-v1.md`)."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.adapters.audit.audit_builder import Batch
from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_open import LogSettings, OpenedLog, open_log, write_vkeys
from gateway.adapters.audit.audit_openings import count_sealed, read_opening
from gateway.adapters.audit.audit_queue import CommitQueue, Pending, unavailable
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
        self._lock_fd: int | None = opened.lock_fd
        self._builder: Final = opened.builder
        self._writer: Final = opened.writer
        self._vault: Final = opened.vault
        self._epochs: Final = list(opened.epochs)
        self._rotating: Final = asyncio.Lock()
        self._adopting = False
        self._erasing: Final[deque[tuple[int, str]]] = deque()
        self._redacted: Final = dict(opened.recovered.redacted)
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
            segment_max_bytes=segment_max_bytes,
            reserve_bytes=reserve_bytes,
            files=files or Files(),
        )
        return cls(open_log(settings))

    async def start(self) -> None:
        """Begin to take records, on the running loop."""
        self._queue = CommitQueue(
            build=self._builder.add,
            seal=self._builder.seal,
            write=self._write,
            tidy=self._tidy,
            is_full=lambda: self.is_full,
            unwanted=self._close_unsent,
            queue_max=self._log.settings.limits.audit_queue_max,
            wait_ms=self._log.settings.limits.audit_wait_ms,
        )

    async def close(self) -> None:
        """Let everything queued become durable, write `shutdown` and give the directory back."""
        if self._lock_fd is None:
            return
        try:
            if self._queue is not None:
                await self._queue.close()
            if self.healthy:
                self._builder.add(Entry(type="shutdown", op=self._log.boot, fields={}))
                self._writer.write(self._builder.seal())
                self._writer.tidy(force=True)
        except OSError as error:
            raise AuditError(f"the audit log could not be closed: {error}") from error
        finally:
            self._writer.close()
            os.close(self._lock_fd)
            self._lock_fd = None

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        """As the port promises. A call whose caller gave up is closed `not_sent`."""
        queue = self._running()
        pending, future = queue.put(intent.entry, timed=True)
        receipt = await _or_give_up(queue, pending, future)
        return RecordedIntent(intent, receipt.seq, receipt.leaf)

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        """As the port promises. Takes no notice of the queue's limit: its intent was admitted."""
        _, future = self._running().put(outcome.entry, timed=False)
        receipt = await future
        return RecordedOutcome(outcome, receipt.seq, receipt.leaf)

    async def record(self, entry: Entry) -> Receipt:
        """As the port promises."""
        _, future = self._running().put(entry, timed=True)
        receipt = await future
        self.sign_in_changes += entry.type in CHANGES
        return receipt

    async def prove(self, record: Receipt) -> str:
        """As the port promises. Off the loop, since it may read a tile."""
        return await asyncio.to_thread(self._writer.prove, record)

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
            _, future = queue.put(replace(entry, fields={**entry.fields, **named}), timed=False)
            # INVARIANT: the log may name this key from here on, so no other one is proposed, which
            # would drop it, until it is adopted; where that is never known, the next start knows.
            self._adopting = True
            queue.cut()  # sealed by the old key
            self._builder.use(key, successor)
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
            pending, future = queue.put(entry, timed=False)
        except AuditError:
            await asyncio.to_thread(self._vault.unmark, key_id)
            raise
        self._erasing.append((pending.receipt.seq, key_id))
        self._redacted[key_id] = pending.receipt.seq
        queue.cut()  # what comes next is kept under a new key
        return await future

    @property
    def epochs(self) -> tuple[str, ...]:
        """The verifier keys of the log's epochs, oldest first."""
        return tuple(note.build_vkey(key) for key in self._epochs)

    def knows(self, event_id: str) -> bool:
        """See `AuditLog`. One that is still on its way is not known yet."""
        receipt = self._builder.find(event_id)
        return receipt is not None and receipt.seq < self._writer.durable

    @property
    def healthy(self) -> bool:
        """False once poisoned."""
        return self._queue is None or self._queue.failure is None

    @property
    def is_full(self) -> bool:
        """Whether the disk has room only for the outcomes of calls under way."""
        return self._writer.is_full

    @property
    def size(self) -> int:
        """Number of durable records: the next sequence number."""
        return self._writer.durable

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

    def erase(self, subject: str) -> bool:
        """Make every opening of a data subject unreadable, durably. Return whether any could be.

        The caller records why (`redact`).
        """
        return self._vault.erase(subject)

    def _write(self, batch: Batch) -> None:
        """Make a batch durable, and erase what it says is erased. In the commit thread.

        INVARIANT: this comes between the record and the next batch, whose openings are not made
        before. So a subject's values up to the record are gone, and all later ones are readable.
        """
        self._writer.write(batch)
        while self._erasing and self._erasing[0][0] < batch.end:
            self._vault.erase_key(self._erasing.popleft()[1])

    def _running(self) -> CommitQueue:
        if self._queue is None:
            raise unavailable("it has not been started")
        return self._queue

    def _tidy(self) -> bool:
        self._writer.tidy()
        return not self._writer.is_tidy

    def _close_unsent(self, entry: Entry, receipt: Receipt) -> None:
        """Close an intent whose caller has gone: what was not waited for was not sent."""
        if entry.type == "call.intent" and self._queue is not None:
            self._queue.put_unwaited(build_unsent(entry, receipt))


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
