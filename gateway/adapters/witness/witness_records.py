"""What a log's own records say of its witnesses. Nothing of it is verified but by `keys`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.audit import audit_reader
from gateway.adapters.audit.audit_files import list_segments
from gateway.core.log.cosignature import Cosignature, is_cosigned, parse_cosignature
from gateway.core.log.note import Checkpoint, NoteKey, build_text, check_name

_MARK: Final = b'"type":"checkpoint.witnessed"'


class Seen(Struct, frozen=True, kw_only=True):
    """The last that one witness cosigned, and what came after it.

    `time_s`: when, by its own clock. `good`: None where its key is not known. `seconds_beyond`:
    from then to the log's last record, 0 where nothing came after; at least that long, whoever
    holds disk and key could write `records_beyond` records anew without this witness seeing it.
    """

    witness: str
    size: int
    time_s: int
    good: bool | None
    records_beyond: int
    seconds_beyond: int


class Report(Struct, frozen=True, kw_only=True):
    """All witnesses of a log, and where the log ends."""

    log: str
    records: int
    last_s: int
    witnesses: list[Seen]


def read_witnesses(directory: Path, keys: Sequence[NoteKey] = ()) -> Report:
    """Return what every witness last cosigned. Reads the whole log once, line by line.

    Raises `LookupError` where there is no log.
    """
    newest = audit_reader.tail(directory, 1)
    if not newest:
        raise LookupError(f"`{directory}` holds no audit log")
    last = newest[0]
    found: dict[tuple[str, bytes], tuple[int, Cosignature, bool | None]] = {}
    own: list[int] = []
    for record in _witnessed(directory):
        own.append(record["seq"])
        for size, one, good in _read(record, keys):
            found[one.name, one.key_id] = size, one, good
    end, end_s = last["seq"] + 1, last["ts"] // 1_000_000
    seen = [
        _tell(one, size, good, end - size - sum(seq >= size for seq in own), end_s)
        for size, one, good in found.values()
    ]
    return Report(log=last["log"], records=end, last_s=end_s, witnesses=seen)


def _tell(one: Cosignature, size: int, good: bool | None, beyond: int, end_s: int) -> Seen:  # noqa: FBT001 - read, not asked for
    return Seen(
        witness=one.name,
        size=size,
        time_s=one.time_s,
        good=good,
        records_beyond=max(beyond, 0),
        seconds_beyond=max(end_s - one.time_s, 0) if beyond > 0 else 0,
    )


def _witnessed(directory: Path) -> list[dict[str, Any]]:
    lines = (
        line
        for segment in list_segments(directory)
        for line in audit_reader.read_lines(segment)
        if _MARK in line
    )
    records = map(audit_reader.read_record, lines)
    return [one for one in records if one and one.get("type") == "checkpoint.witnessed"]


def _read(
    record: dict[str, Any], keys: Sequence[NoteKey]
) -> list[tuple[int, Cosignature, bool | None]]:
    """Read what can be; `audit verify` tells what cannot."""
    try:
        size, root = int(record["size"]), bytes.fromhex(record["root"])
        text = build_text(Checkpoint(check_name(record["log"]), size, root))
        found = [parse_cosignature(entry) for entry in record["cosignatures"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
    return [(size, one, _judge(text, one, keys)) for one in found]


def _judge(text: bytes, one: Cosignature, keys: Sequence[NoteKey]) -> bool | None:
    known = [key for key in keys if (key.name, key.id) == (one.name, one.key_id)]
    return is_cosigned(text, one, known[0]) if known else None
