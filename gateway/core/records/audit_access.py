"""Reading the log is logged: `audit.read` and `audit.export` (docs/spec/audit-log-v1.md §9.1).

INVARIANT: who reads, why, and what they asked for stand in no field. They are openings under the
reader's own key, like everything else that names a person.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from gateway.core.approvals.approval import person
from gateway.core.entry import Entry, Opening

What = Literal["opening", "query"]


class Span(Struct, frozen=True):
    """How many records somebody gets to see; number of the first and the last, if there are any."""

    records: int
    first: int | None = None
    last: int | None = None


def build_read(
    op: str,
    *,
    by: str,
    purpose: str,
    what: What,
    span: Span,
    filters: str = "",
) -> Entry:
    """`audit.read`: durable before anything is shown.

    `by`: id of the human who reads. `filters`: what they asked for, as a text.
    """
    return _access("audit.read", op, {"what": what}, by, purpose, span, filters)


def build_export(
    op: str,
    *,
    by: str,
    purpose: str,
    format: str,  # noqa: A002 - the record's own word
    digest: str,
    span: Span,
    filters: str = "",
) -> Entry:
    """`audit.export`: durable before the file is handed over. `digest`: its SHA-256, hex."""
    fields = {"format": format, "digest": digest}
    return _access("audit.export", op, fields, by, purpose, span, filters)


def _access(  # noqa: PLR0917 - what both are made of
    kind: str,
    op: str,
    fields: dict[str, Any],
    by: str,
    purpose: str,
    span: Span,
    filters: str,
) -> Entry:
    reader = person(by)
    fields["records"] = span.records
    if span.first is not None and span.last is not None:
        fields |= {"first": span.first, "last": span.last}
    said = {"by": reader, "purpose": purpose, "filters": filters}
    openings = [Opening(path, text.encode(), reader) for path, text in said.items() if text]
    return Entry(type=kind, op=op, fields=fields, openings=tuple(openings))
