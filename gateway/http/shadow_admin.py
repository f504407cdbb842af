"""`/v1/policy/shadow`: what a candidate would have decided on live traffic.

Reading is for operators, auditors and people of policy; in `dev` operators also start one from
files. Elsewhere a release in shadow starts it (docs/releases.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core.errors import CredentialError, RequestError
from gateway.core.people.registry import ADMIN, AUDITOR, OPERATOR
from gateway.core.releases.publishing import PUBLISHER
from gateway.http.admin_route import ProblemRoute, reply, require_role
from gateway.http.humans import Admit
from gateway.http.openapi import takes

READERS: Final = (PUBLISHER, "policy_author", OPERATOR, AUDITOR, ADMIN)
STARTERS: Final = (PUBLISHER, OPERATOR, ADMIN)
BODY_MAX_BYTES: Final = 16 << 20


class NewShadow(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/policy/shadow`: sources (path → Rego) and data, with `authority`, of a folder."""

    sources: dict[str, str]
    data: dict[str, Any]
    label: str = ""


class Running(Protocol):
    """What is started, stopped and read."""

    def view(self) -> dict[str, Any]:
        """Return the report, or `{"state": "none"}`."""
        ...

    async def stop(self) -> object:
        """End it."""
        ...


Start = Callable[[NewShadow], Awaitable[None]]


class ShadowAdmin:
    """The routes. `start` is None outside `dev`."""

    def __init__(self, *, running: Running, admit: Admit, start: Start | None) -> None:
        self._running = running
        self._admit = admit
        self._start = start
        self._turn = asyncio.Lock()

    def router(self) -> APIRouter:
        """Build all routes."""
        router = APIRouter(prefix="/v1/policy/shadow", tags=["policy"], route_class=ProblemRoute)

        @router.get("")
        async def show(request: Request) -> Response:
            """Return what the candidate would have decided so far."""
            await require_role(self._admit, request, *READERS)
            return reply(self._running.view())

        @router.post("")
        @takes(NewShadow)
        async def start(request: Request) -> Response:
            """Begin to evaluate a folder's policies; only in `dev`."""
            await require_role(self._admit, request, *STARTERS)
            begin = self._in_dev()
            asked = await _read(request)
            async with self._turn:
                await begin(asked)
            return reply(self._running.view())

        @router.delete("")
        async def stop(request: Request) -> Response:
            """End the evaluation, and return what was seen; only in `dev`."""
            await require_role(self._admit, request, *STARTERS)
            self._in_dev()
            await self._running.stop()
            return reply(self._running.view())

        return router

    def _in_dev(self) -> Start:
        if self._start is None:
            raise CredentialError(
                "only a release brings a candidate here; publish it with `--shadow`",
                code="role_missing",
            )
        return self._start


async def _read(request: Request) -> NewShadow:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_MAX_BYTES:
            raise RequestError(
                f"the body is larger than {BODY_MAX_BYTES} bytes", code="body_too_large"
            )
    try:
        return msgspec.json.decode(bytes(raw), type=NewShadow)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError("the body is no folder of policies", code="request_invalid") from None
