"""People at the log: opening a value, erasing a data subject, legal holds, signing keys (spec §7).

Every request that does something is on record before it is answered. Errors are
`application/problem+json`.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.approvals.declined import Declined
from gateway.core.approvals.holds import WAIT_S, Hold
from gateway.core.entry import Receipt
from gateway.core.errors import CredentialError, RequestError
from gateway.core.records.audit_admin import Basis
from gateway.custody import Custody, KeyedLog, Opened
from gateway.http.admin_route import (
    REASON_MAX_CHARS,
    ProblemRoute,
    decline,
    read_body,
    reply,
    require_role,
)
from gateway.http.humans import Admit
from gateway.http.openapi import takes

ADMIN: Final = "admin"
AUDITOR: Final = "auditor"
OPERATOR: Final = "operator"


@dataclass(frozen=True, kw_only=True)
class AuditAdminDeps:
    """What the routes need. `rotate` lets a new key sign, because the person of this id asked."""

    custody: Custody
    keys: KeyedLog
    rotate: Callable[[str], Awaitable[Receipt]]
    key_max_age_h: int
    admit: Admit


Said = Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MAX_CHARS)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
RecordNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class OpeningBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/audit/openings`. `unmasked`: sensitive parts too, for admins."""

    seq: RecordNumber
    path: Name
    purpose: Said
    unmasked: bool = False


class RedactionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/audit/redactions`. `subject`: id of a person or agent."""

    subject: Name
    basis: Basis
    reason: Said


class HoldBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/audit/holds`. Without `subject`, `everybody` must be true."""

    reason: Said
    subject: Name | None = None
    everybody: bool = False


class ReleaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/audit/holds/{id}/release`."""

    reason: Said


def build_audit_admin_routers(deps: AuditAdminDeps) -> list[APIRouter]:
    """Build `/v1/audit/openings`, `/v1/audit/redactions`, `/v1/audit/holds` and `/v1/keys`."""
    return [_values(deps), _holds(deps), _keys(deps)]


def _values(deps: AuditAdminDeps) -> APIRouter:
    router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=ProblemRoute)

    @router.post("/openings")
    @takes(OpeningBody)
    async def open_value(request: Request) -> Response:
        """Show one value that a record commits to. That, and why, is on record first."""
        human = await require_role(deps.admit, request, AUDITOR, ADMIN)
        body = await read_body(request, OpeningBody)
        _check_said(body.purpose, "purpose")
        if body.unmasked and ADMIN not in human.roles:
            raise CredentialError(
                "only an `admin` sees what is masked; ask without `unmasked`", code="role_missing"
            )
        found = await deps.custody.open(
            human.id, body.seq, body.path, body.purpose, masked=not body.unmasked
        )
        return decline(found) if isinstance(found, Declined) else reply(_view_opened(found))

    @router.post("/redactions")
    @takes(RedactionBody)
    async def redact(request: Request) -> Response:
        """Erase a data subject; answered once that is durable and on record."""
        human = await require_role(deps.admit, request, ADMIN)
        body = await read_body(request, RedactionBody)
        _check_said(body.reason, "reason")
        done = await deps.custody.redact(human.id, body.subject, body.basis, body.reason)
        return decline(done) if isinstance(done, Declined) else reply(msgspec.to_builtins(done))

    return router


def _holds(deps: AuditAdminDeps) -> APIRouter:
    router = APIRouter(prefix="/v1/audit/holds", tags=["audit"], route_class=ProblemRoute)
    custody = deps.custody

    @router.get("")
    async def find(request: Request) -> Response:
        """List legal holds, oldest first, ended ones too."""
        await require_role(deps.admit, request, AUDITOR, ADMIN)
        return reply({"holds": [_view_hold(hold) for hold in await custody.holds()]})

    @router.post("")
    @takes(HoldBody)
    async def propose(request: Request) -> Response:
        """Protect a data subject, or everybody, from erasure; a second person must confirm."""
        human = await require_role(deps.admit, request, AUDITOR, ADMIN)
        body = await read_body(request, HoldBody)
        _check_said(body.reason, "reason")
        if (body.subject is None) != body.everybody:
            raise RequestError(
                "name one `subject`, or say `everybody`: true", code="request_invalid"
            )
        return reply(_view_hold(await custody.propose_hold(human.id, body.subject, body.reason)))

    @router.post("/{hold_id}/confirm")
    async def confirm(request: Request, hold_id: str) -> Response:
        """Make a hold last, as a second person."""
        human = await require_role(deps.admit, request, AUDITOR, ADMIN)
        return _tell_hold(await custody.confirm_hold(human.id, hold_id))

    @router.post("/{hold_id}/release")
    @takes(ReleaseBody)
    async def release(request: Request, hold_id: str) -> Response:
        """Ask for the end of a hold; a second person must confirm."""
        human = await require_role(deps.admit, request, AUDITOR, ADMIN)
        body = await read_body(request, ReleaseBody)
        _check_said(body.reason, "reason")
        return _tell_hold(await custody.ask_release(human.id, hold_id, body.reason))

    @router.post("/{hold_id}/confirm-release")
    async def confirm_release(request: Request, hold_id: str) -> Response:
        """End a hold, as a second person."""
        human = await require_role(deps.admit, request, AUDITOR, ADMIN)
        return _tell_hold(await custody.confirm_release(human.id, hold_id))

    return router


def _keys(deps: AuditAdminDeps) -> APIRouter:
    router = APIRouter(prefix="/v1/keys", tags=["audit"], route_class=ProblemRoute)

    @router.get("")
    async def find(request: Request) -> Response:
        """List the verifier keys of the log's epochs; the last one signs now."""
        await require_role(deps.admit, request, ADMIN, AUDITOR, OPERATOR)
        return reply(view_keys(deps.keys, deps.key_max_age_h))

    @router.post("")
    async def rotate(request: Request) -> Response:
        """Let a new key sign; the old one is destroyed once that is on record."""
        human = await require_role(deps.admit, request, ADMIN)
        await deps.rotate(human.id)
        return reply(view_keys(deps.keys, deps.key_max_age_h))

    return router


def view_keys(log: KeyedLog, max_age_h: int) -> dict[str, Any]:
    """Return the log's keys as people see them; the private ones are nowhere in it."""
    return {
        "epoch": len(log.epochs) - 1,
        "since_us": log.epoch_us,
        "max_age_h": max_age_h,
        "keys": [{"epoch": epoch, "key": key} for epoch, key in enumerate(log.epochs)],
    }


def _view_opened(opened: Opened) -> dict[str, Any]:
    view = {
        "seq": opened.seq,
        "path": opened.path,
        "commitment": dict(opened.commitment),
        "masked": opened.masked,
        "record": opened.record,
    }
    try:
        return {**view, "value": opened.value.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {**view, "value": base64.b64encode(opened.value).decode(), "encoding": "base64"}


def _view_hold(hold: Hold) -> dict[str, Any]:
    view: dict[str, Any] = {"hold": hold.id, "subject": hold.subject, "state": hold.state}
    if hold.asked_by:
        asked = {"asked_by": hold.asked_by, "reason": hold.reason, "asked_at": hold.asked_at}
        view |= {**asked, "lapses_at": hold.asked_at + WAIT_S}
    return view


def _tell_hold(hold: Hold | Declined) -> Response:
    return decline(hold) if isinstance(hold, Declined) else reply(_view_hold(hold))


def _check_said(text: str, name: str) -> None:
    if not text.strip():
        raise RequestError(f"say why: `{name}` is empty", code="request_invalid")
