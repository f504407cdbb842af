"""`GET /v1/admin/tools`: every tool there is, callable or not, for operators to see (GW-08)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.http.admin_route import ProblemRoute, reply, require_role
from gateway.http.humans import Admit

_ROLES = ("operator", "admin")


class ToolsAdmin:
    """Shows what agents never see: tools unreviewed, unpinned, quarantined or missing."""

    def __init__(self, *, admit: Admit, states: Callable[[], Sequence[object]]) -> None:
        self._admit = admit
        self._states = states

    def router(self) -> APIRouter:
        """Build the route."""
        router = APIRouter(prefix="/v1/admin", tags=["tools"], route_class=ProblemRoute)

        @router.get("/tools")
        async def tools(request: Request) -> Response:
            """List every tool with its state, for people who operate the gateway."""
            await require_role(self._admit, request, *_ROLES)
            return reply({"tools": [msgspec.to_builtins(state) for state in self._states()]})

        return router
