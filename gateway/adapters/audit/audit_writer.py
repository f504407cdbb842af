"""Puts batches on the disk: one write and one sync each.

One thread at a time uses a `SegmentWriter`: the opener, then the keeper.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_builder import Batch
from gateway.adapters.audit.audit_files import Files, segment_name
from gateway.adapters.audit.audit_openings import OpeningsWriter
from gateway.adapters.audit.audit_reserve import FULL, Reserve
from gateway.adapters.audit.audit_tiles import TileWriter
from gateway.core.entry import Receipt
from gateway.core.log.tlog_proof import prove
from gateway.core.ports import Clock

_LAZY_NS: Final = 1_000_000_000
SEGMENT_MAX_BYTES: Final = 256 * 1024 * 1024


class SegmentWriter:
    """Appends to the last segment and starts the next one when it is full."""

    def __init__(
        self,
        directory: Path,
        *,
        durable: int,
        openings: OpeningsWriter,
        tiles: TileWriter,
        reserve: Reserve,
        clock: Clock,
        files: Files,
        segment_max_bytes: int = SEGMENT_MAX_BYTES,
    ) -> None:
        self._directory: Final = directory
        self._openings: Final = openings
        self.tiles: Final = tiles
        self._reserve: Final = reserve
        self._clock: Final = clock
        self._files: Final = files
        self._segment_max_bytes: Final = segment_max_bytes
        self._descriptor: int | None = None
        self._bytes = 0
        self._first = durable
        self._note = ""
        self._tidied_ns = clock.monotonic_ns()
        self.durable = durable
        self.head = ""
        """The note of the last checkpoint, from the first batch on. For any thread."""

    def resume(self, segment: Path | None) -> None:
        """Go on in `segment`, or in a new one."""
        if segment is None:
            self._rotate(self.durable)
            return
        self._descriptor = self._files.append_to(segment)
        self._bytes = segment.stat().st_size
        self._first = int(segment.stem)
        self._openings.open(self._first)

    def write(self, batch: Batch) -> None:
        """Make a batch durable.

        Raises `OSError` when it may not be: then nothing more may be written, for what the disk
        holds is unknown until the log is opened again.
        """
        if not batch.data:
            return
        try:
            self._append(batch)
        except OSError as error:
            if not self._make_room(error):
                raise
            self._append(batch)
        assert self._descriptor is not None  # noqa: S101 - `resume` comes first
        self._files.sync(self._descriptor)
        self._bytes += len(batch.data)
        self._note = batch.note
        self.tiles.add(batch.leaves)
        self.head = batch.note
        self.durable = batch.end

    @property
    def is_full(self) -> bool:
        """Whether the disk has room only for what has to be written."""
        return self._reserve.is_spent

    @property
    def is_tidy(self) -> bool:
        """Whether nothing waits for `tidy`."""
        return not self._note and not self._reserve.is_spent

    def tidy(self, *, force: bool = False) -> None:
        """Write tiles that are full; once per second at most, renew all that lies behind.

        That is: sync the openings, write the partial tiles and the `checkpoint` copy. Raises
        `OSError` as `write` does.
        """
        now_ns = self._clock.monotonic_ns()
        is_due = force or now_ns - self._tidied_ns >= _LAZY_NS
        if is_due:
            self._tidied_ns = now_ns
            self._openings.sync()
        try:
            self._write_tiles(edge=is_due)
            if is_due and self._note:
                self._files.replace(self._directory / "checkpoint", self._note.encode())
                self._note = ""
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._make_room(error)  # none left: tiles and copy lie behind until there is
        if is_due:
            self._reserve.refill()

    def prove(self, record: Receipt) -> str:
        """Return the proof of a durable record, verified. For any thread; may read a tile.

        Raises `AuditError` `audit_unproven`.
        """
        return prove(record, self.head, self.tiles.node)

    def close(self) -> None:
        """Close the files. Nothing is written: whoever poisoned the log closes it too."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._openings.abandon()

    def _write_tiles(self, *, edge: bool) -> None:
        """Write tiles, before the copy that counts on them.

        What is left of a full disk is for outcomes: until there is room, tiles lie behind.
        """
        if self._reserve.is_spent:
            return
        if edge:
            self.tiles.write_edge()
        else:
            self.tiles.write_full()

    def _append(self, batch: Batch) -> None:
        if self._bytes >= self._segment_max_bytes:
            self._rotate(batch.first)
        if not self._openings.is_open:  # the disk was full when it should have been
            self._openings.open(self._first)
        for unsealed in batch.openings:
            self._openings.add(unsealed)
        self._openings.write()
        assert self._descriptor is not None  # noqa: S101 - `resume` comes first
        self._files.write(self._descriptor, batch.data)

    def _make_room(self, error: OSError) -> bool:
        """Give up the reserve where the disk is full, and take back a write that was cut short."""
        if error.errno not in FULL or not self._reserve.spend():
            return False
        self._openings.forget()
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, self._bytes)
        return True

    def _rotate(self, first: int) -> None:
        fresh = self._files.create(self._directory / segment_name(first))
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = fresh
        self._bytes = 0
        self._first = first
        self._openings.open(first)
