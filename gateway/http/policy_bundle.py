"""`GET /v1/policy/bundle`: the active bundle, for an OPA that pulls it.

Speaks OPA's bundle service API: `ETag` and `304`, and long polling where OPA asks for it.
"""

from __future__ import annotations

import hmac
import re
from typing import Final, Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.http.problem import problem

WAIT_MAX_S: Final = 5
"""Seconds. OPA asks again at once; a gateway that is told to end waits no longer than this."""
_GZIP: Final = "application/gzip"
_LONG_POLL: Final = "application/vnd.openpolicyagent.bundles"
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")
_BEARER: Final = "Bearer "


class Shelf(Protocol):
    """What the bundle is on. `etag` names `archive`, and is empty before there is one."""

    @property
    def etag(self) -> str:
        """The revision of the bundle."""
        ...

    @property
    def archive(self) -> bytes:
        """The bundle, a gzipped tar."""
        ...

    async def wait(self, etag: str, timeout_s: float) -> None:
        """Return once the bundle is another one than `etag`, or the time is over."""
        ...


def build_bundle_router(shelf: Shelf, token: str) -> APIRouter:
    """Build the route. `token`: what an OPA shows as its bearer token."""
    router = APIRouter(prefix="/v1/policy", tags=["policy"])

    @router.get("/bundle")
    async def bundle(request: Request) -> Response:
        """Give the bundle to an OPA that may have it, or say that it has it already."""
        # 1. Policies tell an attacker what is let through: only to who was given the token.
        if not _is_admitted(request.headers.get("authorization"), token):
            return problem(401, "token_invalid", "the bundle token is missing or another one")
        held = request.headers.get("if-none-match", "").strip().removeprefix("W/").strip('"')
        wait_s = _read_wait(request.headers.get("prefer", ""))
        if wait_s:
            await shelf.wait(held, min(wait_s, WAIT_MAX_S))
        headers = {"etag": f'"{shelf.etag}"', "content-type": _LONG_POLL if wait_s else _GZIP}
        if not shelf.etag:
            return problem(404, "policy_bundle_missing", "there is no bundle yet; ask again")
        if held == shelf.etag:
            return Response(status_code=304, headers=headers)
        return Response(shelf.archive, headers=headers)

    return router


def _is_admitted(header: str | None, token: str) -> bool:
    given = (header or "").encode()
    return bool(token) and hmac.compare_digest(given, f"{_BEARER}{token}".encode())


def _read_wait(prefer: str) -> int:
    found = _WAIT.search(prefer)
    return int(found[1]) if found else 0
