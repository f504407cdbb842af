"""Records of what people do to the log itself (docs/spec/audit-log-v1.md §9.1).

INVARIANT: no human id, purpose or reason stands in a field; they are openings under the key of the
human who said them. A data subject is named by the id of its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gateway.core.approvals.approval import person
from gateway.core.approvals.holds import Hold, State
from gateway.core.entry import Entry, Opening
from gateway.core.tags import person_tags

Basis = Literal["request", "retention", "order"]
"""Why somebody is erased: they asked for it, their time is over, somebody else may order it."""

Why = Literal["command", "schedule"]


def build_redact(
    op: str, *, by: str, key_id: str, basis: Basis, openings: int, reason: str
) -> Entry:
    """`redact`: a data subject is erased. Its event id is what the erasure is known by."""
    return Entry(
        type="redact",
        op=op,
        fields={"subject": key_id, "basis": basis, "openings": openings},
        openings=_said(by, "reason", reason),
        event_id=f"redact:{op}",
    )


def build_opened(op: str, *, by: str, purpose: str, seq: int, path: str, masked: bool) -> Entry:
    """`audit.read` of one value: durable before it is shown."""
    fields: dict[str, Any] = {"what": "opening", "records": 1, "first": seq, "last": seq}
    return Entry(
        type="audit.read",
        op=op,
        fields={**fields, "path": path, "masked": masked},
        openings=_said(by, "purpose", purpose),
    )


def build_hold_asked(op: str, hold: Hold, *, before: State | None) -> Entry:
    """`config.change`: one person asked for a hold, or for its end; it protects either way."""
    fields = {
        "setting": "audit.hold",
        "hold": hold.id,
        "subject": hold.subject,
        "before": before or "none",
        "after": hold.state,
    }
    openings = _said(hold.asked_by, "reason", hold.reason)
    return Entry(type="config.change", op=op, fields=fields, openings=openings)


def build_hold(
    kind: Literal["hold.set", "hold.release"], op: str, asked: Hold, *, confirmed_by: str
) -> Entry:
    """`hold.set` or `hold.release`: a second person joined the one who `asked`."""
    first, second = person(asked.asked_by), person(confirmed_by)
    fields = {
        "hold": asked.id,
        "subject": asked.subject,
        "persons": person_tags(asked.nonce, [first, second]),
    }
    openings = (
        Opening("by.asked", first.encode(), first),
        Opening("by.confirmed", second.encode(), second),
        Opening("reason", asked.reason.encode(), first),
    )
    event_id = f"{kind}:{asked.id}"
    return Entry(type=kind, op=op, fields=fields, openings=openings, event_id=event_id)


def build_rotation(op: str, why: Why, *, by: str | None = None) -> Entry:
    """`key.rotate`; the log adds the epoch and its key."""
    openings = () if by is None else (Opening("by", person(by).encode(), person(by)),)
    return Entry(type="key.rotate", op=op, fields={"why": why}, openings=openings)


def tool_of(record: Mapping[str, Any]) -> str | None:
    """Return the policy id of the tool that a record's values belong to."""
    tool = record.get("tool")
    found = tool.get("id") if isinstance(tool, Mapping) else None
    return found if isinstance(found, str) else None


def _said(by: str, name: str, text: str) -> tuple[Opening, ...]:
    name_of = person(by)
    return (
        Opening("by", name_of.encode(), name_of),
        Opening(name, text.encode(), name_of),
    )
