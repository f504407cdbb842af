"""What the rest of the gateway hands to the audit log (DESIGN §6)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Opening(Struct, frozen=True):
    """A value that must not stand in the chain: it is committed to there and kept encrypted aside.

    `path` is the dotted place in the entry's fields that receives `{"c": commitment, "bytes": n}`
    (`args`, `policy.input`). `subject` is the data subject under whose key the value is encrypted;
    erasing that key erases the value.
    """

    path: str
    value: bytes
    subject: str


class Entry(Struct, frozen=True, kw_only=True):
    """One record to be: the log adds `v, log, seq, prev, ts, boot` and the commitments.

    `op` joins request, approval, intent and outcome of one call. `event_id`, when given, makes the
    append idempotent: the log writes an event id once.
    """

    type: str
    op: str
    fields: dict[str, Any]
    openings: tuple[Opening, ...] = ()
    event_id: str | None = None


class Receipt(Struct, frozen=True):
    """Where a durable record stands. `leaf`: SHA-256 leaf hash, 32 bytes."""

    seq: int
    leaf: bytes
