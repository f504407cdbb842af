"""The values behind records, looked up as a log is read from its start to its end.

Each file of openings is indexed once, by record number; the values stay on the disk. So what is
kept in memory grows with a segment, and not with the log.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_openings import (
    Sealed,
    Vault,
    is_committed,
    is_key_id,
    unseal,
)
from gateway.adapters.audit.audit_reader import read_lines, read_record

Why = Literal["", "erased", "lost", "altered"]


class Value(Struct, frozen=True):
    """A value that a record commits to: `opened` bytes and salt, or `why` there are none.

    `erased`: its subject's key is gone, and a record says so. `lost`: no opening is there, or no
    key. `altered`: one is there that the writer did not leave so. `what` says more, in plain words.
    """

    opened: bytes | None = None
    salt: bytes = b""
    why: Why = ""
    what: str = ""


class _Head(Struct, frozen=True):
    seq: int
    key: str


class OpeningIndex:
    """Where the openings of each record of a segment stand in the file of the same name."""

    def __init__(self, file: Path) -> None:
        self._file: Final = file
        self._end = 0
        self._offsets: Final[defaultdict[int, list[int]]] = defaultdict(list)
        self._decode: Final = msgspec.json.Decoder(Sealed).decode

    def sealed_under(self, key_ids: Collection[str]) -> frozenset[int]:
        """Return the numbers of the records with openings under these keys, erased or not."""
        return frozenset(head.seq for _, head in self._heads(0) if head.key in key_ids)

    def lines(self, seq: int) -> list[Sealed | None]:
        """Return the lines of a record; None for one that is no opening.

        A line written since the last look is found too.
        """
        if seq not in self._offsets:
            for offset, head in self._heads(self._end):
                self._offsets[head.seq].append(offset)
        offsets = self._offsets.get(seq, [])
        if not offsets:
            return []
        with self._file.open("rb") as file:
            return [self._read(_line_at(file, offset)) for offset in offsets]

    def _read(self, line: bytes) -> Sealed | None:
        try:
            return self._decode(line)
        except msgspec.DecodeError:
            return None

    def _heads(self, start: int) -> Iterator[tuple[int, _Head]]:
        """Yield place and head of each whole line from `start` on; torn ones are passed over."""
        decode = msgspec.json.Decoder(_Head).decode
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(start)
            for line in file:
                if line.endswith(b"\n"):
                    with contextlib.suppress(msgspec.DecodeError):
                        yield start, decode(line)
                    start += len(line)
            self._end = start


def _line_at(file: Any, offset: int) -> bytes:  # noqa: ANN401 - a file of bytes
    file.seek(offset)
    line: bytes = file.readline()
    return line


class ValueReader:
    """Opens values of the log in `directory`; fastest for records in order."""

    def __init__(self, directory: Path, vault: Vault) -> None:
        self._directory: Final = directory
        self._vault: Final = vault
        self._segment: Path | None = None
        self._index = OpeningIndex(Path())
        self._redacted: dict[str, int] | None = None

    def open(self, record: Mapping[str, Any], segment: Path, path: str) -> Value:
        """Return what `record` of `segment` commits to at the dotted `path`.

        Believed only if it is what the commitment says. Raises `LookupError` where there is none.
        """
        commitment = commitment_at(record, path)
        if commitment is None:
            raise LookupError(f"record {record['seq']} commits to nothing at `{path}`")
        if segment != self._segment:
            self._segment = segment
            self._index = OpeningIndex(segment.parent / "openings" / segment.name)
        why = Value(why="lost", what="no opening of it is there")
        for sealed in self._index.lines(record["seq"]):
            if sealed is None or not is_key_id(sealed.key):  # no crash leaves such a line
                why = Value(why="altered", what="a line in the openings is none of the writer's")
                continue
            found = unseal(sealed, self._vault)
            if path in found and is_committed(path, *found[path], commitment):
                return Value(found[path][1], found[path][0])
            # A line of another boot is what a crash left of a record that never came to be.
            if sealed.boot == record.get("boot") and (path in found or not found):
                why = self._explain(sealed, record["seq"], opens=bool(found))
        return why

    def _explain(self, sealed: Sealed, seq: int, *, opens: bool) -> Value:
        """Say why a line of the record's own boot does not hold the value."""
        if opens:
            return Value(why="altered", what="the opening is not what the record commits to")
        is_erased = self._redactions().get(sealed.key, -1) > seq
        if self._vault.load(sealed.key) is None:
            if (self._directory / "openings" / "keys" / sealed.key).exists():
                return Value(why="lost", what="its subject's key is not under this KEK")
            # Whoever has the disk can delete a key; that it was erased, a record says.
            if not is_erased:
                gone = "its subject's key is gone, and no record says that it was erased"
                return Value(why="lost", what=gone)
            return Value(why="erased", what="its subject's key is gone")
        if is_erased:
            return Value(why="erased", what="its subject was erased, and has a new key since")
        return Value(why="altered", what="the opening does not decrypt under its subject's key")

    def _redactions(self) -> Mapping[str, int]:
        """Return the last `redact` of each key id. The log is searched for them once."""
        if self._redacted is None:
            self._redacted = {}
            for segment in list_segments(self._directory):
                for line in read_lines(segment):
                    if b'"type":"redact"' in line and (record := read_record(line)) is not None:
                        self._redacted[str(record.get("subject"))] = record["seq"]
        return self._redacted


def commitment_at(record: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """Return the commitment that a record has at a dotted path."""
    found: object = record
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) and "c" in found and "bytes" in found else None


def commitments_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted paths of all commitments of a record."""
    for name, value in record.items():
        if isinstance(value, dict):
            if set(value) == {"c", "bytes"}:
                yield name
            else:
                yield from (f"{name}.{inner}" for inner in commitments_of(value))
