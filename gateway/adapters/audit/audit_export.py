"""Writes records as they are found, hashing what is written and counting what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, Final

from msgspec import Struct

from gateway.adapters.audit.audit_query import Found
from gateway.core.log.exports import (
    Format,
    Line,
    csv_header,
    write_cloudevent,
    write_csv,
    write_jsonl,
)
from gateway.core.log.exports_ocsf import write_ocsf
from gateway.core.records.audit_access import Span

WRITERS: Final[Mapping[Format, Callable[[Line], bytes]]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "ocsf": write_ocsf,
    "cloudevents": write_cloudevent,
}


class Exported(Struct, frozen=True):
    """What was written: which records, and the SHA-256 of the bytes in hex."""

    span: Span
    digest: str


class HashingWriter:
    """Writes to `out`, hashes the bytes and counts the records."""

    def __init__(self, out: BinaryIO) -> None:
        self._out: Final = out
        self._hash: Final = hashlib.sha256()
        self._records = 0
        self._first: int | None = None
        self._last: int | None = None

    def write(self, data: bytes) -> None:
        """Write bytes that are of no record."""
        self._hash.update(data)
        self._out.write(data)

    def write_record(self, seq: int, data: bytes) -> None:
        """Write the bytes of a record."""
        self.write(data)
        self._records += 1
        self._first = seq if self._first is None else self._first
        self._last = seq

    def end(self) -> Exported:
        """Return what was written."""
        span = Span(self._records, self._first, self._last)
        return Exported(span, self._hash.hexdigest())


def export(records: Iterable[Found], form: Format, out: BinaryIO) -> Exported:
    """Write records in a form; one after the other, in constant memory."""
    writer, write = HashingWriter(out), WRITERS[form]
    if form == "csv":
        writer.write(csv_header())
    for found in records:
        writer.write_record(found.record["seq"], write(Line(found.line, found.record)))
    return writer.end()
