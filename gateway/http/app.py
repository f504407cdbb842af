"""The whole HTTP surface: the call path straight on ASGI, everything else on FastAPI."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import orjson
import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.core.ports import Ids
from gateway.http.asgi import REQUEST_ID, App, NamedSend, Receive, Scope, Send, send_json
from gateway.http.authzen import PATHS as AUTHZEN_PATHS
from gateway.http.mcp import McpEndpoint
from gateway.http.openapi import build_document
from gateway.http.problem import problem
from gateway.http.rest import RestEndpoint
from gateway.logs import describe, name_request

_log: Final = structlog.get_logger("gateway.http")
_FAILED: Final = b'{"code":"internal_error","detail":"the gateway failed; nothing more is known"}'
_SECURITY: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]

Checks = Callable[[], Mapping[str, bool]]


class GatewayApp:
    """Routes a request to the endpoint that owns its path."""

    def __init__(
        self,
        *,
        mcp: McpEndpoint,
        rest: RestEndpoint,
        api: FastAPI,
        ready: Checks,
        ids: Ids,
        authzen: App | None = None,
    ) -> None:
        self._mcp = mcp
        self._rest = rest
        self._api: App = api
        self._authzen = authzen
        self._checks: dict[str, App] = {"/livez": self._livez, "/readyz": self._readyz}
        self._ready = ready
        self._ids = ids
        self._told: dict[str, Callable[[], Mapping[str, Any]]] = {}

    def tell(self, name: str, what: Callable[[], Mapping[str, Any]]) -> None:
        """Show one more member at `/readyz`, whatever it says being no reason not to be ready."""
        self._told[name] = what

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event. What nobody foresaw is told by its type and place only."""
        if scope["type"] != "http":
            await self._lifespan(receive, send)
            return
        # One id for the reply, every line logged on its way and, for a call, the records of it.
        request_id = scope[REQUEST_ID] = self._ids.new()
        name_request(request_id)
        send = NamedSend(send, scope, request_id)
        try:
            await self._find(scope["path"])(scope, receive, send)
        except ClientDisconnect:  # within its body: nobody is left to be told
            return
        except Exception as error:  # noqa: BLE001 - a trace could hold an argument or a secret
            _log.error("request_failed", error=describe(error))
            with contextlib.suppress(Exception):  # it may have begun to answer
                await send_json(send, 500, _FAILED, _SECURITY)

    def _find(self, path: str) -> App:
        """Return what serves a path."""
        if path == "/mcp" or path.startswith("/mcp/"):
            return self._mcp
        if path.startswith(("/v1/tools", "/v1/calls")):
            return self._rest
        if self._authzen is not None and path in AUTHZEN_PATHS:
            return self._authzen
        return self._checks.get(path, self._api)

    @staticmethod
    async def _livez(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, 200, b'{"status":"ok"}', _SECURITY)

    async def _readyz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        checks = dict(self._ready())
        ready = all(checks.values())
        body: dict[str, Any] = {"status": "ready" if ready else "not_ready", "checks": checks}
        body.update((name, what()) for name, what in self._told.items())
        await send_json(send, 200 if ready else 503, orjson.dumps(body), _SECURITY)

    @staticmethod
    async def _lifespan(receive: Receive, send: Send) -> None:
        """Answer the server's start and stop; `wiring` does the work before and after."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return
            else:  # a WebSocket: nothing here speaks it
                await send({"type": "websocket.close", "code": 1000})
                return


def build_api(routers: Sequence[APIRouter], version: str) -> FastAPI:
    """Return the application that serves everything off the call path."""
    api = FastAPI(
        title="Countersign",
        version=version,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    for router in routers:
        api.include_router(router)
    api.openapi = cache(lambda: build_document(api, routers))  # type: ignore[method-assign]  # FastAPI's way
    api.add_exception_handler(404, _tell_no_path)
    api.add_exception_handler(405, _tell_no_method)
    return api


async def _tell_no_path(_request: Request, _error: Exception) -> Response:
    return problem(
        404, "path_unknown", "there is no such path; `/openapi.json` names those there are"
    )


async def _tell_no_method(_request: Request, error: Exception) -> Response:
    allow = error.headers if isinstance(error, HTTPException) else None
    return problem(405, "method_not_allowed", "this path takes what `Allow` names", headers=allow)
