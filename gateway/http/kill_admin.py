"""People at the kill switch: `/v1/kills` (docs/kill-switch.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.approvals.declined import Declined
from gateway.core.errors import CountersignError, RequestError
from gateway.core.kills.kill import EVERYTHING, SWITCHES, Kill, Kind
from gateway.core.ports import Clock
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
from gateway.http.problem import problem
from gateway.kill_switch import KillSwitch

ADMIN: Final = "admin"
OPERATOR: Final = "operator"
AUDITOR: Final = "auditor"
FOR_MAX_S: Final = 31_536_000
"""The longest time that a kill can be given: a year. One without a time has no end."""

Switch = Literal["agent", "client", "human", "run", "tool", "server", "credential", "all"]
Said = Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MAX_CHARS, pattern=r"\S")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


@dataclass(frozen=True, kw_only=True)
class KillAdminDeps:
    """What the routes need. `is_known` says whether there is anything of this kind and name."""

    kills: KillSwitch
    admit: Admit
    clock: Clock
    is_known: Callable[[Kind, str], Awaitable[bool]]


class KillBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/kills`. `target` is left out for `all`; `for_s` where it stands until lifted."""

    kind: Switch
    reason: Said
    target: Name | None = None
    for_s: Annotated[int, msgspec.Meta(ge=1, le=FOR_MAX_S)] | None = None


class LiftBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/kills/lift`."""

    kind: Switch
    reason: Said
    target: Name | None = None


def build_kill_router(deps: KillAdminDeps) -> APIRouter:
    """Build `/v1/kills`."""
    router = APIRouter(prefix="/v1/kills", tags=["kills"], route_class=ProblemRoute)
    kills = deps.kills

    @router.get("")
    async def find(request: Request) -> Response:
        """List what is stopped, oldest first, and how old the look at other processes is."""
        await require_role(deps.admit, request, OPERATOR, ADMIN, AUDITOR)
        return reply(view_standing(kills))

    @router.post("")
    @takes(KillBody)
    async def kill(request: Request) -> Response:
        """Stop a target: in force at once, answered when it is durable and on record."""
        human = await require_role(deps.admit, request, OPERATOR, ADMIN)
        body = await read_body(request, KillBody)
        target = read_target(body.kind, body.target)
        until = None if body.for_s is None else _now_s(deps) + body.for_s
        try:
            done = await kills.kill(body.kind, target, by=human.id, reason=body.reason, until=until)
        except CountersignError as error:
            return tell_unkept(error)
        return reply({**view_kill(done), "known": await deps.is_known(body.kind, done.target)})

    @router.post("/lift")
    @takes(LiftBody)
    async def lift(request: Request) -> Response:
        """Let a target go on; that is on record before anything does."""
        human = await require_role(deps.admit, request, OPERATOR, ADMIN)
        body = await read_body(request, LiftBody)
        target = read_target(body.kind, body.target)
        done = await kills.lift(body.kind, target, by=human.id, reason=body.reason)
        if isinstance(done, Declined):
            return decline(done)
        return reply({"lifted": [view_kill(one) for one in done]})

    return router


def read_target(kind: Kind, target: str | None) -> str:
    """Return the target. Raises `RequestError` where it is missing, or `all` has one."""
    if kind == "all":
        if target is not None:
            raise RequestError("`all` has no target; leave it out", code="request_invalid")
        return EVERYTHING
    if target is None:
        raise RequestError(f"say which `{kind}`", code="request_invalid")
    return target


def tell_unkept(error: CountersignError) -> Response:
    """Return the answer where a stop could not be stored or recorded: it is in force all the same.

    Nobody may take it for a stop that failed.
    """
    return problem(
        503,
        error.code,
        "it is in force, but not kept yet: the gateway does that as soon as it can",
        "until the log holds a record of it, a restart may forget it",
    )


def view_standing(kills: KillSwitch) -> dict[str, Any]:
    """Return what `GET /v1/kills` answers; what is revoked for good is seen at `/v1/tokens`."""
    shown = [view_kill(one) for one in kills.standing() if one.kind in SWITCHES]
    return {
        "kills": shown,
        "stale": kills.is_stale(),
        "feed_age_ms": kills.age_ns // 1_000_000,
    }


def view_kill(kill: Kill) -> dict[str, Any]:
    """Return a kill as people see it."""
    view: dict[str, Any] = {
        "kill": kill.id,
        "kind": kill.kind,
        "target": kill.target,
        "at": kill.at,
        "until": kill.until,
    }
    return {**view, "by": kill.by, "reason": kill.reason}


def _now_s(deps: KillAdminDeps) -> int:
    return deps.clock.now_ns() // 1_000_000_000
