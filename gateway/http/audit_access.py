"""`POST /v1/audit/reads`: who is about to read the log says so first, and it stands in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.entry import Entry, Receipt
from gateway.core.errors import RequestError
from gateway.core.ports import Ids
from gateway.core.records.audit_access import Span, build_export, build_read
from gateway.http.admin_route import (
    REASON_MAX_CHARS,
    ProblemRoute,
    read_body,
    reply,
    require_role,
)
from gateway.http.humans import Admit
from gateway.http.openapi import takes

READERS: Final = ("auditor", "admin")
"""The roles that may read the log."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MAX_CHARS)]
Seq = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class ReadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is about to be read. `first` and `last` are there where `records` is not 0.

    `filters`: what was asked for, as a text. `format` and `digest` (SHA-256, hex) belong to an
    export, and to nothing else.
    """

    purpose: Text
    what: Literal["opening", "query", "export"]
    records: Seq
    first: Seq | None = None
    last: Seq | None = None
    filters: Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARS)] = ""
    format: Annotated[str, msgspec.Meta(pattern="^[a-z]{1,16}$")] | None = None
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None


def build_audit_access_router(
    *, admit: Admit, record: Callable[[Entry], Awaitable[Receipt]], ids: Ids
) -> APIRouter:
    """Build the route. `record` returns once the entry is durable in the log."""
    router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=ProblemRoute)

    @router.post("/reads")
    @takes(ReadBody)
    async def announce(request: Request) -> Response:
        """Record that the caller reads the log; answered once that is durable."""
        human = await require_role(admit, request, *READERS)
        body = await read_body(request, ReadBody)
        _check(body)
        entry = _build(ids.new(), human.id, body)
        receipt = await record(entry)
        return reply({"op": entry.op, "seq": receipt.seq, "leaf": receipt.leaf.hex()})

    return router


def _build(op: str, by: str, body: ReadBody) -> Entry:
    span = Span(body.records, body.first, body.last)
    if body.what != "export":
        return build_read(
            op, by=by, purpose=body.purpose, what=body.what, span=span, filters=body.filters
        )
    if body.format is None or body.digest is None:
        raise RequestError("an export needs `format` and `digest`", code="request_invalid")
    return build_export(
        op,
        by=by,
        purpose=body.purpose,
        format=body.format,
        digest=body.digest,
        span=span,
        filters=body.filters,
    )


def _check(body: ReadBody) -> None:
    if not body.purpose.strip():
        raise RequestError("say why: `purpose` is empty", code="request_invalid")
    places = {body.first is not None, body.last is not None}
    if places != {body.records > 0}:
        raise RequestError("`records`, `first` and `last` do not fit", code="request_invalid")
