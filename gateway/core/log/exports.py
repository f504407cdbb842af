"""Records in the forms that other programs take: as they stand, and as rows of CSV.

Every form carries `log`, `seq` and `leaf`, so that each row can be proven: `leaf` is the leaf hash
of the record's line, and a `.tlog-proof` shows that leaf at `seq` in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
from msgspec import Struct

from gateway.core.log.audit_filter import reasons_of
from gateway.core.log.merkle import hash_leaf

Format = Literal["jsonl", "csv", "ocsf", "cloudevents"]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_QUOTED: Final = frozenset('",\r\n')


class Line(Struct, frozen=True):
    """A record as it stands in the log, without the LF, and what it says."""

    raw: bytes
    record: Mapping[str, Any]

    @property
    def leaf(self) -> str:
        """Its leaf hash, 64 hex digits."""
        return hash_leaf(self.raw).hex()

    @property
    def time(self) -> str:
        """When it was written, RFC 3339 with microseconds; empty where it does not say."""
        ts = self.record.get("ts")
        return rfc3339(ts) if isinstance(ts, int) else ""

    def text(self, *names: str) -> str:
        """Return the text or number at a place, as a text; empty where there is neither."""
        found: object = self.record
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, str | int):
            return ""
        return str(found)


def rfc3339(ts: int) -> str:
    """Return a record's time (µs) as RFC 3339, UTC."""
    return datetime.fromtimestamp(ts / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_jsonl(line: Line) -> bytes:
    """Return a record's line as it stands, byte for byte."""
    return line.raw + b"\n"


COLUMNS: Final[Mapping[str, Callable[[Line], str]]] = {
    "log": lambda line: line.text("log"),
    "seq": lambda line: line.text("seq"),
    "leaf": lambda line: line.leaf,
    "time": lambda line: line.time,
    "type": lambda line: line.text("type"),
    "op": lambda line: line.text("op"),
    "agent": lambda line: line.text("actor", "agent") or line.text("agent"),
    "client": lambda line: line.text("actor", "client") or line.text("client"),
    "run": lambda line: line.text("actor", "run") or line.text("run"),
    "tool": lambda line: line.text("tool", "id"),
    "effect": lambda line: line.text("tool", "effect") or line.text("effect"),
    "decision": lambda line: line.text("decision", "outcome") or line.text("decision"),
    "reasons": lambda line: " ".join(reasons_of(line.record)),
    "stage": lambda line: line.text("stage"),
    "status": lambda line: line.text("status") or line.text("state"),
    "delivery": lambda line: line.text("delivery"),
    "intent": lambda line: line.text("intent"),
    "approval": lambda line: line.text("approval"),
    "policy_rev": lambda line: line.text("policy", "rev") or line.text("rev"),
    "boot": lambda line: line.text("boot"),
}
"""Columns of a CSV in order, each with what it says of a record."""


def csv_header() -> bytes:
    """Return the line that names the columns."""
    return _csv_line(list(COLUMNS))


def write_csv(line: Line) -> bytes:
    """Return a record as a row of CSV (RFC 4180), ended by CRLF.

    A cell that a spreadsheet could take for a formula is led by an apostrophe: it begins with
    `=`, `+`, `-`, `@`, a tab, a carriage return or a line feed.
    """
    return _csv_line([tell(line) for tell in COLUMNS.values()])


def _csv_line(cells: Sequence[str]) -> bytes:
    return (",".join(map(_cell, cells)) + "\r\n").encode()


def _cell(text: str) -> str:
    if text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.intersection(text) else text


def write_cloudevent(line: Line) -> bytes:
    """Return a record as a CloudEvent 1.0 in structured JSON, ended by LF.

    `data` is the record's line, byte for byte; `sequence` (an extension of the CloudEvents
    project) and `leaf` say where it stands.
    """
    seq = line.text("seq")
    event = {
        "specversion": "1.0",
        "id": seq,
        "source": _reference(line.text("log")),
        "type": f"io.countersign.audit.{line.text('type')}",
        "subject": line.text("op") or None,
        "time": line.time or None,
        "datacontenttype": "application/json",
        "sequence": seq.zfill(20),
        "leaf": line.leaf,
    }
    head = orjson.dumps({name: value for name, value in event.items() if value is not None})
    return b'%b,"data":%b}\n' % (head[:-1], line.raw)


def _reference(origin: str) -> str:
    """Return a log's name as a URI reference (RFC 3986): other characters percent-encoded."""
    kept = "/.-_~"
    return "".join(
        char if char.isalnum() or char in kept else f"%{ord(char):02X}" for char in origin
    )
