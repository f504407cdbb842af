"""The log's side of a reconciliation: the calls in question, and the arguments behind them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Final

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_openings import Vault, is_committed, read_sealed, unseal
from gateway.adapters.audit.audit_reader import read_records
from gateway.core.reconcile.reconcile_calls import Call, CallIndex

_ARGS: Final = "args"


def index_calls(
    directory: Path, tools: Collection[str], wanted: Collection[str], *, records: int | None = None
) -> Mapping[str, Call]:
    """Read the log once; return the calls of `tools`, and the operations `wanted`, by their id.

    `records`: how many of them were verified; none beyond these is believed.
    """
    index = CallIndex(tools, wanted)
    found = read_records(directory)
    if records is not None:
        found = takewhile(lambda record: record["seq"] < records, found)
    for record in found:
        index.feed(record)
    return index.calls


def open_arguments(
    directory: Path, vault: Vault, calls: Mapping[int, Call]
) -> Iterator[tuple[int, bytes]]:
    """Yield record number and argument bytes of each call, given by number, that can be opened.

    What was erased, was lost or is not what the record commits to is left out. The caller records
    the reading (`audit.read`) before it asks for the first.
    """
    waiting = set(calls)
    for file in _files(directory / "openings", waiting):
        for sealed in read_sealed(file):
            if sealed.seq not in waiting:
                continue
            found = unseal(sealed, vault).get(_ARGS)
            committed = calls[sealed.seq].args
            if found and isinstance(committed, dict) and is_committed(_ARGS, *found, committed):
                waiting.discard(sealed.seq)
                yield sealed.seq, found[1]


def _files(openings: Path, wanted: Collection[int]) -> Iterator[Path]:
    """Yield the files that may hold openings of these records."""
    files = list_segments(openings)
    starts = [int(file.stem) for file in files]
    for file, start, after in zip(files, starts, [*starts[1:], None], strict=True):
        if any(seq >= start and (after is None or seq < after) for seq in wanted):
            yield file
