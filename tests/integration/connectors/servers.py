"""HTTP servers for tests of the transport: the official SDK's, and one that lies as it is told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from threading import Thread
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from starlette.types import ASGIApp, Receive, Scope, Send

DISCOVERED = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
}

Answer = Callable[[dict[str, Any], "Reply"], Awaitable[None]]


def build_sdk_server() -> MCPServer:
    """Return a server with the same tools as the other transports of the contract have."""
    server = MCPServer(name="sdk", log_level="ERROR")

    @server.tool()
    def echo(ctx: Context, value: str = "") -> str:
        """Say what was said."""
        meta = dict(ctx.request_context.meta or {})
        return json.dumps({"arguments": {"value": value}, "meta": meta}, default=str)

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ToolError("it failed")

    @server.tool()
    async def progress(ctx: Context) -> str:
        """Report progress, once."""
        await ctx.report_progress(1, 2)
        return "done"

    return server


def legacy_only(app: ASGIApp) -> ASGIApp:
    """Answer modern requests as a server from before 2026 does: it knows no such version."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"mcp-protocol-version", b"2026-07-28") in scope["headers"]:
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"Bad Request"})
            return
        await app(scope, receive, send)

    return wrapped


@contextmanager
def serve(app: ASGIApp) -> Iterator[str]:
    """Serve on a free loopback port, in a thread of its own; yield the base URL."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(
        app, log_level="error", timeout_graceful_shutdown=1, ws="none", lifespan="on"
    )
    server = uvicorn.Server(config)
    serving = Thread(target=server.run, kwargs={"sockets": [listener]})
    serving.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        serving.join()


class Reply:
    """Writes raw bytes to whoever asked."""

    def __init__(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        self._writer = writer
        self.id: Any = request.get("id")

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def body(
        self,
        body: bytes | dict[str, Any],
        *,
        status: str = "200 OK",
        kind: str = "application/json",
        more: str = "",
    ) -> None:
        """Send a whole response."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(raw)}\r\n"
        await self.raw(head.encode() + b"\r\n" + raw)

    async def result(self, result: dict[str, Any]) -> None:
        """Send an honest result."""
        await self.body({"jsonrpc": "2.0", "id": self.id, "result": result})

    async def stream(self, *events: bytes) -> None:
        """Send events in a response that ends with the connection, one chunk for each."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        await self.raw(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for event in events:
            await self.raw(b"%x\r\n%b\r\n" % (len(event), event))

    async def drop(self) -> None:
        """Close the connection."""
        self._writer.close()


class Liar:
    """An HTTP server that speaks 2026-07-28 honestly until a tool is called; then as told.

    `seen` holds the body and headers of every request.
    """

    def __init__(self, answer: Answer, *, discovered: dict[str, Any] | None = DISCOVERED) -> None:
        self._answer = answer
        self._discovered = discovered
        self.seen: list[tuple[dict[str, Any], dict[str, str]]] = []
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on a free loopback port; yield the URL."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        while not writer.is_closing():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = {"method": lines[0].split()[0]} if not body else json.loads(body)
            self.seen.append((request, headers))
            reply = Reply(writer, request)
            with suppress(ConnectionError):  # whoever asked may have hung up
                if request.get("method") == "server/discover" and self._discovered is not None:
                    await reply.result(self._discovered)
                else:
                    await self._answer(request, reply)
        writer.close()
