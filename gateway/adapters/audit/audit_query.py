"""Finds records in a log's segments: streaming, and without parsing what cannot be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_reader import read_lines, read_record
from gateway.adapters.audit.audit_values import OpeningIndex
from gateway.core.log.audit_filter import Filter, Selection
from gateway.core.log.chain import CHECKPOINT_PREFIX


class Found(Struct, frozen=True):
    """A record that was asked for. `line`: its bytes as they stand, without the LF."""

    line: bytes
    record: dict[str, Any]
    segment: Path


def find_records(
    directory: Path,
    selection: Selection,
    *,
    limit: int | None = None,
    unreadable: Callable[[str], None] = lambda _place: None,
) -> Iterator[Found]:
    """Yield what `selection` takes, in order, at most `limit`. Nothing is verified.

    Segments that lie outside the time are not read, but for their first record. `unreadable` is
    told the place (`file:line`) of each line looked at that is no record.
    """
    found = 0
    for segment in _segments(directory, selection.filter):
        for item in _find_in(segment, selection, unreadable):
            if limit is not None and found >= limit:
                return
            found += 1
            yield item


def _segments(directory: Path, wanted: Filter) -> Iterator[Path]:
    """Yield the segments that may hold records of the time asked for: times never go back."""
    segments = list_segments(directory)
    if wanted.since_us is None and wanted.until_us is None:
        yield from segments
        return
    starts = [(segment, _first_ts(segment)) for segment in segments]
    for (segment, start), (_, after) in pairwise([*starts, (Path(), None)]):
        if wanted.until_us is not None and start is not None and start >= wanted.until_us:
            return
        if wanted.since_us is None or after is None or after >= wanted.since_us:
            yield segment


def _first_ts(segment: Path) -> int | None:
    """Return the time of a segment's first record, where it can be read."""
    record = read_record(next(read_lines(segment), b""))
    ts = None if record is None else record.get("ts")
    return ts if isinstance(ts, int) else None


def _find_in(
    segment: Path, selection: Selection, unreadable: Callable[[str], None]
) -> Iterator[Found]:
    seals: frozenset[int] = frozenset()
    if selection.subjects:
        index = OpeningIndex(segment.parent / "openings" / segment.name)
        seals = index.sealed_under(selection.subjects)
    until_us: Final = selection.filter.until_us
    for number, line in enumerate(read_lines(segment), 1):
        if line.startswith(CHECKPOINT_PREFIX) or not selection.may_take(line):
            continue
        record = read_record(line)
        if record is None:
            unreadable(f"{segment.name}:{number}")
            continue
        if until_us is not None and isinstance(ts := record.get("ts"), int) and ts >= until_us:
            return
        if selection.takes(record, seals):
            yield Found(line[:-1], record, segment)
