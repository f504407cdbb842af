"""The audit log in files (DESIGN §6, `docs/spec/audit-log-v1.md`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.adapters.audit_builder import RecordBuilder
from gateway.adapters.audit_files import Files, lock
from gateway.adapters.audit_key_file import KeyFile
from gateway.adapters.audit_openings import OpeningsWriter, Vault, read_opening
from gateway.adapters.audit_queue import CommitQueue, Pending, unavailable
from gateway.adapters.audit_recovery import Fold, Recovered, Recovery, recover
from gateway.adapters.audit_reserve import Reserve
from gateway.adapters.audit_writer import SEGMENT_MAX_BYTES, SegmentWriter
from gateway.core import note
from gateway.core.call import Intent, Outcome, RecordedIntent, RecordedOutcome
from gateway.core.chain import PROFILE
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.limits import Limits
from gateway.core.ports import Clock

_BOOT_BYTES: Final = 16


class FileAuditLog:
    """The `AuditLog` port over a directory that one process at a time may write.

    Life: `open` (checks, recovers, writes `boot`), `start` on the running loop, `close` (writes
    `shutdown`). Made by `open` only.
    """

    def __init__(
        self,
        *,
        directory: Path,
        lock_fd: int,
        builder: RecordBuilder,
        writer: SegmentWriter,
        vault: Vault,
        boot: str,
        recovered: Recovered,
        limits: Limits,
        files: Files,
        key_file: KeyFile | None,
        epochs: list[note.NoteKey],
        epoch_us: int,
    ) -> None:
        self._directory: Final = directory
        self._lock_fd: int | None = lock_fd
        self._builder: Final = builder
        self._writer: Final = writer
        self._vault: Final = vault
        self._boot: Final = boot
        self._limits: Final = limits
        self._files: Final = files
        self._key_file: Final = key_file
        self._epochs: Final = epochs
        self._rotating: Final = asyncio.Lock()
        self._queue: CommitQueue | None = None
        self.epoch_us = epoch_us
        """Since when the signing key is in use, in µs since 1970."""
        self.recovered: Final = recovered

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
        key_file = signer if isinstance(signer, KeyFile) else None
        signers = [signer] if isinstance(signer, Ed25519PrivateKey) else signer.candidates()
        keys = [_key(origin, candidate) for candidate in signers]
        try:
            _make_directories(dir)
            lock_fd = lock(dir)
            try:
                return cls._open_locked(
                    dir,
                    lock_fd,
                    boot=os.urandom(_BOOT_BYTES).hex(),
                    signers=signers,
                    keys=keys,
                    key_file=key_file,
                    kek=kek,
                    clock=clock,
                    limits=limits,
                    deployment=deployment,
                    segment_max_bytes=segment_max_bytes,
                    reserve_bytes=reserve_bytes,
                    files=files or Files(),
                    fold=fold,
                    fold_from=fold_from,
                )
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            raise ConfigurationError(
                f"audit directory `{dir}` cannot be used: {error}; make it writable"
            ) from error

    @classmethod
    def _open_locked(
        cls,
        directory: Path,
        lock_fd: int,
        *,
        boot: str,
        signers: list[Ed25519PrivateKey],
        keys: list[note.NoteKey],
        key_file: KeyFile | None,
        kek: bytes,
        clock: Clock,
        limits: Limits,
        deployment: dict[str, str],
        segment_max_bytes: int,
        reserve_bytes: int,
        files: Files,
        fold: Fold | None,
        fold_from: int,
    ) -> FileAuditLog:
        found = recover(
            directory, origin=keys[0].name, keys=keys, files=files, fold=fold, fold_from=fold_from
        )
        in_use = keys.index(found.keys[-1]) if found.keys else 0
        key, signer = keys[in_use], signers[in_use]
        if key_file is not None:
            key_file.settle(adopt=in_use > 0)
        _check_deployment(directory, found, deployment)
        if found.chain.seq < fold_from:  # nothing within a shortened log shows that it was longer
            raise ConfigurationError(
                f"the audit log in `{directory}` has {found.chain.seq} records, but the state "
                f"reflects {fold_from}: the log was cut back or replaced; restore it from a backup"
            )
        vault = Vault(directory / "openings" / "keys", kek, boot, files)
        builder = RecordBuilder(
            chain=found.chain,
            events=found.events,
            boot=boot,
            key=key,
            signer=signer,
            record_max_bytes=limits.record_max_bytes,
            clock=clock,
        )
        writer = SegmentWriter(
            directory,
            durable=found.chain.seq,
            openings=OpeningsWriter(directory / "openings", vault, boot, files),
            reserve=Reserve(directory / "reserve", reserve_bytes, files),
            clock=clock,
            files=files,
            segment_max_bytes=segment_max_bytes,
        )
        try:
            writer.resume(found.segment)
            _begin(builder, found, boot, note.build_vkey(key), deployment)
            writer.write(builder.seal())
            writer.tidy(force=True)
            epochs = list(found.keys) or [key]
            write_vkeys(directory, epochs, files)
        except BaseException:
            writer.close()
            raise
        return cls(
            directory=directory,
            lock_fd=lock_fd,
            builder=builder,
            writer=writer,
            vault=vault,
            boot=boot,
            recovered=found.recovered,
            limits=limits,
            files=files,
            key_file=key_file,
            epochs=epochs,
            epoch_us=found.epoch_us or clock.now_ns() // 1000,
        )

    async def start(self) -> None:
        """Begin to take records, on the running loop."""
        self._queue = CommitQueue(
            build=self._builder.add,
            seal=self._builder.seal,
            write=self._writer.write,
            tidy=self._tidy,
            is_full=lambda: self.is_full,
            unwanted=self._close_unsent,
            queue_max=self._limits.audit_queue_max,
            wait_ms=self._limits.audit_wait_ms,
        )

    async def close(self) -> None:
        """Let everything queued become durable, write `shutdown` and give the directory back."""
        if self._lock_fd is None:
            return
        try:
            if self._queue is not None:
                await self._queue.close()
            if self.healthy:
                self._builder.add(Entry(type="shutdown", op=self._boot, fields={}))
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
        return await future

    async def rotate_key(self, entry: Entry, now_us: int) -> Receipt:
        """End the epoch: a new key signs from the next batch on, the old one is destroyed.

        `entry` is a `key.rotate` without `epoch` and `key`. Raises `AuditError` as `record` does;
        then the next start settles which key is in use, as the log says.
        """
        if self._key_file is None:
            raise unavailable("its key is not in a file, so it cannot change")
        async with self._rotating:
            successor = await asyncio.to_thread(self._key_file.propose)
            key = _key(self._epochs[0].name, successor)
            named = {"epoch": len(self._epochs), "key": note.build_vkey(key)}
            queue = self._running()
            _, future = queue.put(replace(entry, fields={**entry.fields, **named}), timed=False)
            queue.cut()  # sealed by the old key
            self._builder.use(key, successor)
            receipt = await future
            self._epochs.append(key)
            self.epoch_us = now_us
            await asyncio.to_thread(self._key_file.settle, adopt=True)
            await asyncio.to_thread(write_vkeys, self._directory, self._epochs, self._files)
        return receipt

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
        return read_opening(self._directory, self._vault, seq, path)

    def erase(self, subject: str) -> bool:
        """Make every opening of a data subject unreadable, durably. Return whether any could be.

        The caller records why (`redact`).
        """
        return self._vault.erase(subject)

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


async def _or_give_up(
    queue: CommitQueue, pending: Pending, future: asyncio.Future[Receipt]
) -> Receipt:
    try:
        return await future
    except asyncio.CancelledError:
        queue.give_up(pending)
        raise


def _key(origin: str, signer: Ed25519PrivateKey) -> note.NoteKey:
    try:
        return note.build_key(origin, signer.public_key())
    except ValueError as error:
        raise ConfigurationError(f"audit origin: {error}") from None


def write_vkeys(directory: Path, keys: Sequence[note.NoteKey], files: Files) -> None:
    """Write the log's verifier keys, oldest first, for whoever has no better source of them."""
    lines = "".join(note.build_vkey(key) + "\n" for key in keys)
    files.replace(directory / "log.vkey", lines.encode())
    files.sync_directory(directory)


def _make_directories(directory: Path) -> None:
    try:
        (directory / "openings" / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"audit directory `{directory}` cannot be made: {error.strerror}"
        ) from None


def _check_deployment(directory: Path, found: Recovery, deployment: dict[str, str]) -> None:
    if found.genesis is not None and found.genesis.get("deployment") != deployment:
        raise ConfigurationError(
            f"the audit log in `{directory}` is of deployment {found.genesis.get('deployment')}, "
            f"not of {deployment}; name another directory"
        )


def _begin(
    builder: RecordBuilder, found: Recovery, boot: str, vkey: str, deployment: dict[str, str]
) -> None:
    """Add `genesis` to a new log, and `boot` with what recovery cut."""
    entries: list[Entry] = []
    if found.genesis is None:
        fields = {"profile": PROFILE, "key": vkey, "deployment": deployment}
        entries.append(Entry(type="genesis", op=boot, fields=fields))
    cut = found.cut
    entries.append(
        Entry(
            type="boot",
            op=boot,
            fields={
                "key": vkey,
                "cut": None
                if cut is None
                else {"segment": cut.segment, "bytes": cut.bytes, "kept_in": cut.kept_in},
                "open_intents": len(found.recovered.open_intents),
            },
        )
    )
    try:
        for entry in entries:
            builder.add(entry)
    except AuditError as error:
        raise ConfigurationError(f"the audit log cannot be begun: {error}") from None
