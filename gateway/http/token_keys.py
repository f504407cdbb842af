"""People at the keys that sign access tokens: which there are, and that the next one take over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.approvals.declined import Declined
from gateway.http.admin_route import ProblemRoute, decline, reply, require_role
from gateway.http.audit_admin import ADMIN, AUDITOR, OPERATOR
from gateway.http.humans import Admit


@dataclass(frozen=True, kw_only=True)
class TokenKeysDeps:
    """What the routes need. `rotate` has the next key take over: the person of this id asked."""

    view: Callable[[], dict[str, Any]]
    rotate: Callable[[str], Awaitable[Declined | None]]
    admit: Admit


def build_token_keys_router(deps: TokenKeysDeps) -> APIRouter:
    """Build `/v1/token-keys`."""
    router = APIRouter(prefix="/v1/token-keys", tags=["tokens"], route_class=ProblemRoute)

    @router.get("")
    async def find(request: Request) -> Response:
        """List the keys with their states, in the order in which they came."""
        await require_role(deps.admit, request, ADMIN, AUDITOR, OPERATOR)
        return reply(deps.view())

    @router.post("")
    async def rotate(request: Request) -> Response:
        """Have the next key take over, once every cache of the key set knows it."""
        human = await require_role(deps.admit, request, ADMIN)
        declined = await deps.rotate(human.id)
        return reply(deps.view()) if declined is None else decline(declined)

    return router
