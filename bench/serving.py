"""The servers of the bench's own processes: one as the gateway's, one that costs little."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httptools
import uvicorn
import uvloop

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_BACKLOG = 512


def serve(app: App) -> None:
    """Serve `app` on a free loopback port until told to stop; print the port first."""
    listener = _listen()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
    )
    _settle()
    uvicorn.Server(config).run(sockets=[listener])


def serve_lean(answer: Callable[[bytes], bytes]) -> None:
    """Answer each request's body with 200 and JSON, at a fraction of what an ASGI server costs.

    What the tool server takes of the machine is not there to be measured.
    """
    listener = _listen()
    _settle()
    uvloop.run(_serve_lean(listener, answer))


async def _serve_lean(listener: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Lean(answer), sock=listener)
    await server.serve_forever()


class Lean(asyncio.Protocol):
    """One connection of `serve_lean`."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer a request that is whole."""
        body, self._body = self._answer(self._body), b""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )


def _listen() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    print(listener.getsockname()[1], flush=True)
    return listener


def _settle() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def read_body(receive: Receive) -> bytes:
    """Return a request's whole body."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


async def send_json(send: Send, status: int, body: bytes) -> None:
    """Answer with JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
