"""`GET /v1/admin/tools`: every tool there is, callable or not, for operators to see (GW-08)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.errors import CredentialError
from gateway.http.humans import Admit
from gateway.http.problem import problem

_ROLES = frozenset({"operator", "admin"})


class ToolsAdmin:
    """Shows what agents never see: tools unreviewed, unpinned, quarantined or missing."""

    def __init__(self, *, admit: Admit, states: Callable[[], Sequence[object]]) -> None:
        self._admit = admit
        self._states = states

    def router(self) -> APIRouter:
        """Build the route."""
        router = APIRouter(prefix="/v1/admin", tags=["tools"])

        @router.get("/tools")
        async def tools(request: Request) -> Response:
            """List every tool with its state, for people who operate the gateway."""
            try:
                human = await self._admit(request.headers.get("authorization"))
            except CredentialError as error:
                return problem(401, error.code, str(error))
            if _ROLES.isdisjoint(human.roles):
                return problem(403, "role_missing", "only operators and admins may list all tools")
            body = msgspec.json.encode({"tools": [msgspec.to_builtins(s) for s in self._states()]})
            return Response(body, media_type="application/json")

        return router
