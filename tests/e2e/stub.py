"""An upstream that does as it is told: honest for a while, then late, false or gone.

It speaks MCP 2026-07-28 over HTTP without any library, so that it can also lie about it.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 30.0
"""How long the slow tool waits at most for `released`: longer than any test."""


def define(name: str, description: str = "", **properties: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON Schema
    """Return a tool definition whose arguments are all optional."""
    schema = {"type": "object", "properties": properties}
    return {"name": name, "description": description or name, "inputSchema": schema}


TEXT = {"type": "string"}
TOOLS = [
    define("echo", value=TEXT),
    define("slow", value=TEXT),
    define("transfer", to=TEXT, amount={"type": "integer"}),
    define("brief", value=TEXT),
    define("bomb", items={"type": "array", "items": {"type": "integer"}}),
    define("forbidden", value=TEXT),
    define("masked", value=TEXT),
    define("html"),
    define("other_id"),
    define("hang_up"),
    define("broken"),
    define("garbage"),
    define("huge"),
]
EFFECTS = {"echo": "read", "transfer": "money", "slow": "update"}


_SOCKET = socket.socket
"""The class as it is outside tests: the one that tests without sockets may not use is another."""


class Stub:
    """The upstream. `calls` counts tool calls that came in, by tool.

    `seen` keeps their params, `headers` those of every request.
    """

    def __init__(self) -> None:
        self.definitions = [dict(tool) for tool in TOOLS]
        self.calls: Counter[str] = Counter()
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.entered, self.released = threading.Event(), threading.Event()
        self.connections: set[socket.socket] = set()
        self.on_call: Callable[[str], None] = lambda _name: None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def setup(self) -> None:
                stub.connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                stub.connections.discard(self.request)
                super().finish()

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                stub.headers.append(dict(self.headers.items()))
                stub.answer(json.loads(self.rfile.read(length)), self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def get_request(self) -> tuple[socket.socket, Any]:
                """Accept a gateway's connection also while a test without sockets runs."""
                descriptor, address = self.socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001
                return _SOCKET(fileno=descriptor), address

            def handle_error(self, *_: object) -> None:
                """Take no notice of clients that go away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._serving.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/mcp"

    def listing(self) -> list[bytes]:
        """Return the definitions as they are on offer."""
        return [json.dumps(tool).encode() for tool in self.definitions]

    def stop(self) -> None:
        """Let go of everybody and stop listening."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._serving.join()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, request: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        """Answer one JSON-RPC message."""
        method, number = request["method"], request.get("id")
        if method == "server/discover":
            versions = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            _send(handler, _result(number, {"resultType": "complete", **versions}))
        elif method == "tools/list":
            _send(handler, _result(number, {"resultType": "complete", "tools": self.definitions}))
        elif method == "tools/call":
            self.calls[request["params"]["name"]] += 1
            self.seen.append(request["params"])
            self._call(request["params"], number, handler)

    def _call(
        self,
        params: dict[str, Any],
        number: object,
        handler: BaseHTTPRequestHandler,
    ) -> None:
        name = params["name"]
        self.on_call(name)
        match name:
            case "slow":
                self.entered.set()
                self.released.wait(WAIT_S)
            case "html":
                _send(handler, b"<html>all is well</html>", kind="text/html")
                return
            case "other_id":
                _send(handler, _result(999_999, {"content": []}))
                return
            case "hang_up":
                handler.close_connection = True
                return
            case "broken":
                _send(handler, b"out of order", status=500, kind="text/plain")
                return
            case "garbage":
                _send(handler, b'{"jsonrpc":"2.0","id":')
                return
            case "huge":
                text = "x" * 300_000
                _send(handler, _result(number, {"content": [{"type": "text", "text": text}]}))
                return
        said = json.dumps(params.get("arguments", {}))
        content = {"content": [{"type": "text", "text": said}], "resultType": "complete"}
        _send(handler, _result(number, content))


def _result(number: object, result: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()


def _send(
    handler: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    kind: str = "application/json",
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
