"""Finds single records and the newest checkpoint without reading segments from their start."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_reader import LINE_MAX_BYTES, read_lines, read_record
from gateway.core.log.chain import CHECKPOINT_PREFIX
from gateway.core.log.chain_check import parse_checkpoint
from gateway.core.log.merkle import hash_leaf

_ROTATION: Final = b'"type":"key.rotate"'
_REGION_BYTES: Final = 32_768
"""Below this, reading on costs less than halving once more."""


def find_line(directory: Path, seq: int) -> bytes | None:
    """Return the line (no LF) of record `seq`; None where the log has none. Nothing is verified."""
    return next(read_from(directory, seq, seq + 1), None)


def read_leaves(directory: Path, first: int, end: int) -> bytes:
    """Return the leaf hashes of records `first` to `end`, one after the other; fewer at the end."""
    return b"".join(map(hash_leaf, read_from(directory, first, end)))


def read_from(directory: Path, first: int, end: int) -> Iterator[bytes]:
    """Yield the lines (no LF) of records `first` to `end`, as far as they stand without a gap."""
    segments = list_segments(directory)
    starts = [int(segment.stem) for segment in segments]
    at = max(bisect_right(starts, first) - 1, 0)
    for segment in segments[at:]:
        with segment.open("rb") as file:
            for seq, line in _records(file, _seek(file, first)):
                if seq < first:
                    continue
                if seq != first or seq >= end:
                    return
                yield line[:-1]
                first += 1
        if first >= end:
            return


def newest_checkpoint(directory: Path) -> str | None:
    """Return the note of the last checkpoint line that stands whole; None for none that is one."""
    for segment in reversed(list_segments(directory)):
        with segment.open("rb") as file:
            line = _last_checkpoint(file)
        if line is not None:
            return _note_of(line)
    return None


def checkpoint_over(directory: Path, seq: int) -> str | None:
    """Return the note of the first checkpoint that covers record `seq`; None for none."""
    segments = list_segments(directory)
    at = max(bisect_right([int(segment.stem) for segment in segments], seq) - 1, 0)
    for segment in segments[at : at + 1]:
        with segment.open("rb") as file:
            offset = _seek(file, seq)
            if all(found != seq for found, _ in _records(file, offset)):
                return None
            while line := file.readline(LINE_MAX_BYTES):
                if line.startswith(CHECKPOINT_PREFIX) and line.endswith(b"\n"):
                    return _note_of(line[:-1])
    return None


def find_operation(directory: Path, op: str) -> list[int]:
    """Return the numbers of the records of an operation, in order."""
    needle = b'"op":%b' % orjson.dumps(op)
    lines = (line for segment in list_segments(directory) for line in read_lines(segment))
    records = (read_record(line) for line in lines if needle in line)
    return [record["seq"] for record in records if record and record.get("op") == op]


def find_rotations(directory: Path) -> Iterator[tuple[int, bytes, str]]:
    """Yield number and line of each `key.rotate`, and the note of the checkpoint that follows."""
    for segment in list_segments(directory):
        rotation: bytes | None = None
        for line in read_lines(segment):
            if rotation is not None and line.startswith(CHECKPOINT_PREFIX):
                yield orjson.loads(rotation)["seq"], rotation, orjson.loads(line)["cp"]
            rotation = line[:-1] if _ROTATION in line else None


def _seek(file: BinaryIO, seq: int) -> int:
    """Return an offset at which a line begins, close before record `seq`.

    INVARIANT: the record, if this segment has it, begins in [low, high).
    """
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > _REGION_BYTES:
        middle = (low + high) // 2
        file.seek(middle - 1)
        file.readline()  # the rest of a line, or the LF before one
        offset = file.tell()
        found, _ = next(_records(file, offset), (None, b""))
        if found is None or found > seq:
            high = middle
        else:
            low = offset
    return low


def _records(file: BinaryIO, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and line (with LF) of the records from an offset on; ends at what is none."""
    file.seek(offset)
    while line := file.readline(LINE_MAX_BYTES):
        if line.startswith(CHECKPOINT_PREFIX):
            continue
        record = read_record(line)
        if record is None:
            return
        yield record["seq"], line


def _note_of(line: bytes) -> str | None:
    """Return the note of a checkpoint line (no LF) that is written as it must be."""
    return None if parse_checkpoint(line) is None else orjson.loads(line)["cp"]


def _last_checkpoint(file: BinaryIO) -> bytes | None:
    """Return the last whole checkpoint line (no LF), read from the end backwards."""
    end, span = file.seek(0, os.SEEK_END), _REGION_BYTES
    while True:
        start = max(end - span, 0)
        file.seek(start)
        tail = (b"\n" if start == 0 else b"") + file.read(end - start)
        tail = tail[: tail.rfind(b"\n") + 1]  # what has no LF is being written
        at = tail.rfind(b"\n" + CHECKPOINT_PREFIX)
        if at >= 0:
            return tail[at + 1 :].partition(b"\n")[0]
        if start == 0:
            return None
        span *= 4
