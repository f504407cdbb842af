"""Writes batches of records: one write and one sync each, ended by a signed checkpoint.

One thread at a time uses a `SegmentWriter`: the opener, then the commit thread, then the closer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from gateway.adapters.audit_files import Files, segment_name
from gateway.adapters.audit_openings import OpeningsWriter, SaltStock, commit_openings
from gateway.core.chain import Chain
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError
from gateway.core.note import NoteKey
from gateway.core.ports import Clock

_LAZY_NS: Final = 1_000_000_000
SEGMENT_MAX_BYTES: Final = 256 * 1024 * 1024


class WriterSettings(Struct, frozen=True, kw_only=True):
    """What a writer needs to know. Sizes in bytes."""

    directory: Path
    boot: str
    signer: Ed25519PrivateKey
    key: NoteKey
    record_max_bytes: int
    segment_max_bytes: int = SEGMENT_MAX_BYTES


class SegmentWriter:
    """Appends to the last segment and starts the next one when it is full."""

    def __init__(
        self,
        settings: WriterSettings,
        *,
        chain: Chain,
        events: dict[str, Receipt],
        openings: OpeningsWriter,
        clock: Clock,
        files: Files,
    ) -> None:
        self._settings: Final = settings
        self._chain: Final = chain
        self._events: Final = events
        self._openings: Final = openings
        self._clock: Final = clock
        self._files: Final = files
        self._descriptor: int | None = None
        self._bytes = 0
        self._note = ""
        self._salts = SaltStock()
        self.durable = chain.seq
        self._tidied_ns = clock.monotonic_ns()

    def resume(self, segment: Path | None) -> None:
        """Go on in `segment`, or in a new one."""
        if segment is None:
            self._rotate()
            return
        self._descriptor = self._files.append_to(segment)
        self._bytes = segment.stat().st_size
        self._openings.open(int(segment.stem))

    def commit(self, entries: Sequence[Entry]) -> list[Receipt | AuditError]:
        """Make the entries durable, in order. An entry that cannot be a record gets an error.

        Raises `OSError` when the batch may not be durable: then nothing more may be written, for
        what the disk holds is unknown until the log is opened again.
        """
        if self._bytes >= self._settings.segment_max_bytes:
            self._rotate()
        now_us = self._clock.now_ns() // 1000
        lines: list[bytes] = []
        answers = [self._add(entry, now_us, lines) for entry in entries]
        if lines:
            self._write(lines)
        return answers

    def knows(self, event_id: str) -> bool:
        """Whether an entry of this event id has been written. Safe from any thread."""
        return event_id in self._events

    def tidy(self, *, force: bool = False) -> None:
        """Sync the openings and renew the `checkpoint` copy, once per second at most.

        Raises `OSError` as `commit` does.
        """
        now_ns = self._clock.monotonic_ns()
        if force or now_ns - self._tidied_ns >= _LAZY_NS:
            self._tidied_ns = now_ns
            self._openings.sync()
            if self._note:
                copy = self._settings.directory / "checkpoint"
                self._files.replace(copy, self._note.encode())
                self._note = ""

    @property
    def is_tidy(self) -> bool:
        """Whether nothing waits for `tidy`."""
        return not self._note

    def close(self) -> None:
        """Close the files. Nothing is written: whoever poisoned the log closes it too."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._openings.abandon()

    def _add(self, entry: Entry, now_us: int, lines: list[bytes]) -> Receipt | AuditError:
        if entry.event_id is not None and entry.event_id in self._events:
            return self._events[entry.event_id]
        seq = self._chain.seq
        try:
            fields, salts = commit_openings(entry, self._salts.take)
            line, leaf = self._chain.append(
                type=entry.type,
                op=entry.op,
                boot=self._settings.boot,
                ts=now_us,
                fields=fields,
                max_bytes=self._settings.record_max_bytes,
                event=entry.event_id,
            )
        except ValueError as error:
            return AuditError(f"no record can be made: {error}", code="audit_record_invalid")
        lines.append(line)
        for index, opening in enumerate(entry.openings):
            self._openings.add(seq, index, opening, salts[index])
        receipt = Receipt(seq, leaf)
        if entry.event_id is not None:
            self._events[entry.event_id] = receipt
        return receipt

    def _write(self, lines: list[bytes]) -> None:
        checkpoint, self._note = self._chain.seal(self._settings.key, self._settings.signer)
        lines.append(checkpoint)
        lines.append(b"")
        data = b"\n".join(lines)
        self._openings.write()
        assert self._descriptor is not None  # noqa: S101 - `resume` comes first
        self._files.write(self._descriptor, data)
        self._files.sync(self._descriptor)
        self._bytes += len(data)
        self.durable = self._chain.seq

    def _rotate(self) -> None:
        first = self._chain.seq
        path = self._settings.directory / segment_name(first)
        fresh = self._files.create(path)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = fresh
        self._bytes = 0
        self._openings.open(first)
