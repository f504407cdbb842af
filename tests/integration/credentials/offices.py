"""Whoever gives out or asks for credentials in these tests: a token endpoint, a vault, an upstream.

Each keeps every request as it came over the wire.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs

from tests.e2e.stub import _SOCKET


class Request(NamedTuple):
    """One request: its head byte for byte, and its parts."""

    head: bytes
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def raw(self) -> bytes:
        """All of it."""
        return self.head + self.body

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    @property
    def basic(self) -> tuple[str, str]:
        """User and password of `Authorization: Basic`."""
        kind, _, pair = self.headers.get("authorization", "").partition(" ")
        assert kind == "Basic", kind
        user, _, password = base64.b64decode(pair).decode().partition(":")
        return user, password


class Reply(NamedTuple):
    """What to answer."""

    status: int
    body: bytes
    kind: str = "application/json"


def reply_json(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())


Answer = Callable[[Request], Reply]


class Office:
    """An HTTP server in threads, on a free loopback port. `seen`: every request, in order."""

    def __init__(self, answer: Answer) -> None:
        self.seen: list[Request] = []
        self.answer = answer
        office = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                request = Request(
                    f"{self.requestline}\r\n".encode() + self.headers.as_bytes(),
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                office.seen.append(request)
                reply = office.answer(request)
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(reply.body)

            do_GET = do_DELETE = do_POST  # noqa: N815 - the names that the base class looks for

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                """Accept also while a test without sockets runs."""
                descriptor, address = self.socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001
                return _SOCKET(fileno=descriptor), address

            def handle_error(self, *_: object) -> None:
                """Take no notice of clients that go away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop listening, if it still does."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Kv2:
    """A key/value engine, version 2, as strict as a real one about token, mount and path.

    No real vault is in it: this follows the documented HTTP API.
    """

    def __init__(self, token: str, secrets: Mapping[str, dict[str, str]]) -> None:
        self.token = token
        self.secrets = dict(secrets)
        self.sealed = False
        self.lease_s = 0

    def __call__(self, request: Request) -> Reply:
        if self.sealed:
            return reply_json({"errors": ["Vault is sealed"]}, 503)
        if request.headers.get("x-vault-token") != self.token:
            return reply_json({"errors": ["permission denied"]}, 403)
        mount, _, path = request.path.removeprefix("/v1/").partition("/data/")
        if request.method != "GET" or mount != "kv":
            return reply_json({"errors": [f"no handler for route {request.path!r}"]}, 404)
        found = self.secrets.get(path)
        if found is None:
            return reply_json({"errors": []}, 404)
        data = {"data": found, "metadata": {"version": 1, "destroyed": False}}
        return reply_json({"lease_duration": self.lease_s, "renewable": False, "data": data})


TOOLS = ["echo", "tell_request", "tell_error", "tell_stream", "tell_http", "fail"]


class Upstream:
    """An MCP 2026-07-28 server. `accepts` says of each request whether its credential is good.

    Its `tell_…` tools repeat everything that they were sent, as careless servers do when they
    fail: in a result, an error, a notification, or a page of HTML. `wrap` disguises it.
    """

    def __init__(self, accepts: Callable[[Request], bool] = lambda _request: True) -> None:
        self.accepts = accepts
        self.wrap: Callable[[str], str] = lambda text: text
        self.calls: list[str] = []

    def __call__(self, request: Request) -> Reply:
        if not self.accepts(request):
            return reply_json({"error": "invalid_token", "told": request.raw.decode()}, 401)
        if request.method == "DELETE":
            return reply_json({})
        message = json.loads(request.body)
        number = message.get("id")
        match message["method"]:
            case "server/discover":
                found: dict[str, Any] = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
            case "tools/list":
                found = {"tools": [json.loads(define(name)) for name in TOOLS]}
            case "tools/call":
                self.calls.append(message["params"]["name"])
                return self._call(message, number, self.wrap(request.raw.decode()))
            case _:
                return reply_json({}, 202)
        return _result(number, found)

    def _call(self, message: dict[str, Any], number: int, told: str) -> Reply:
        match message["params"]["name"]:
            case "tell_request":
                return _result(number, {"content": [{"type": "text", "text": told}]})
            case "tell_error":
                error = {"code": -32000, "message": told}
                return reply_json({"jsonrpc": "2.0", "id": number, "error": error})
            case "tell_stream":
                calm = {"level": "error", "data": "working on it"}
                notices = ({"level": "info", "data": told}, calm)
                lines = [{"method": "notifications/message", "params": one} for one in notices]
                return Reply(200, _events(*lines, _message(number)), "text/event-stream")
            case "tell_http":
                return Reply(500, told.encode(), "text/html")
            case "fail":
                return Reply(502, b"bad gateway", "text/plain")
        said = json.dumps(message["params"].get("arguments", {}))
        return _result(number, {"content": [{"type": "text", "text": said}]})


def define(name: str) -> bytes:
    schema = {"type": "object", "properties": {"value": {"type": "string"}}}
    return json.dumps({"name": name, "inputSchema": schema}).encode()


def _message(number: int) -> dict[str, Any]:
    return {"id": number, "result": {"content": [], "resultType": "complete"}}


def _events(*messages: dict[str, Any]) -> bytes:
    texts = (json.dumps({"jsonrpc": "2.0", **message}) for message in messages)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def _result(number: int, result: dict[str, Any]) -> Reply:
    whole = {"resultType": "complete", **result}
    return reply_json({"jsonrpc": "2.0", "id": number, "result": whole})
