"""Reads segments line by line, for recovery, verification and people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.adapters.audit.audit_files import list_segments
from gateway.core.log.chain import CHECKPOINT_PREFIX

LINE_MAX_BYTES: Final = 65_536
"""No line of a log is longer; what is longer is read in pieces, of which none is a record."""

_SEQ_DIGITS: Final = 20
_NUMBERS: Final = ("seq", "ts")
_TEXTS: Final = ("type", "op")
_NUMBERS_END: Final = 1 << 53


def read_lines(segment: Path) -> Iterator[bytes]:
    """Yield the lines of a segment as they stand, LF included where there is one."""
    with segment.open("rb") as file:
        while line := file.readline(LINE_MAX_BYTES):
            yield line


def read_records(directory: Path, *, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the records of a log from `first` on, unchecked; stops at what is no record."""
    segments = list_segments(directory)
    starts = [int(segment.stem) for segment in segments]
    skipped = max(sum(start <= first for start in starts) - 1, 0)
    for segment in segments[skipped:]:
        for line in read_lines(segment):
            record = read_record(line)
            if record is None and not line.startswith(CHECKPOINT_PREFIX):
                return
            if record is not None and record["seq"] >= first:
                yield record


def read_record(line: bytes) -> dict[str, Any] | None:
    """Return the record that a line holds; None for a checkpoint or a line that is torn.

    Unchecked but for what stands in every record: its number, its time, its type and its operation
    are of their kind. What else is in it may be anything, where somebody changed the log.
    """
    if line.startswith(CHECKPOINT_PREFIX) or not line.endswith(b"\n"):
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and _has_head(value) else None


def _has_head(value: dict[str, Any]) -> bool:
    return all(isinstance(value.get(name), str) for name in _TEXTS) and all(
        type(value.get(name)) is int and 0 <= value[name] < _NUMBERS_END for name in _NUMBERS
    )


def tail(directory: Path, count: int) -> list[dict[str, Any]]:
    """Return the last `count` records."""
    found: list[dict[str, Any]] = []
    for segment in reversed(list_segments(directory)):
        if len(found) >= count:
            break
        records = [record for line in read_lines(segment) if (record := read_record(line))]
        found = records + found
    return found[len(found) - count :] if len(found) > count else found


def find(directory: Path, what: str) -> list[dict[str, Any]]:
    """Return the record of this number, or all records of this operation id, in order."""
    if what.isascii() and what.isdigit() and len(what) <= _SEQ_DIGITS:
        record = next(read_records(directory, first=int(what)), None)
        return [record] if record is not None and record["seq"] == int(what) else []
    return [record for record in read_records(directory) if record.get("op") == what]


def follow(directory: Path, first: int, wait: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Yield records from `first` on as they come; `wait` pauses, and ends it by returning False."""
    while True:
        for record in read_records(directory, first=first):
            first = record["seq"] + 1
            yield record
        if not wait():
            return
