"""The little of ASGI that the call path needs: read a bounded body, send one answer, stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from gateway.core.refusal import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderPairs = Iterable[tuple[bytes, bytes]]
WholeAnswer = Callable[[int, HeaderPairs, bytes], bool]

REQUEST_ID: Final = "countersign.request_id"
"""Member of the scope: the id of this request, which is also the operation id of its call."""

WHOLE_REPLY: Final = "countersign.whole_reply"
"""Member of the scope, where the server offers it: answers with status, headers and body at once.
It returns False where the answer has to be sent the usual way."""

_JSON: Final = (b"content-type", b"application/json")
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_QUEUE_MAX: Final = 1_000
_QUEUE_MAX_BYTES: Final = 1 << 20
_TOO_LARGE: Final = Refusal("read", "body_too_large")
_BROKEN_OFF: Final = Refusal("read", "body_invalid", "the body broke off")


class NamedSend:
    """Puts the request's id on its reply, whoever writes it, unless the reply has one by itself."""

    __slots__ = ("_header", "_send", "_whole")

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send: Final = send
        self._header: Final = (b"x-request-id", request_id.encode("ascii"))
        # taken out of the scope, for what it holds holds the scope
        self._whole: Final[WholeAnswer | None] = scope.pop(WHOLE_REPLY, None)

    async def __call__(self, message: Message) -> None:
        """Send one message of ASGI."""
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ())]
            if not any(name == b"x-request-id" for name, _ in headers):
                headers.append(self._header)
            message["headers"] = headers
        await self._send(message)

    def whole(self, status: int, headers: HeaderPairs, body: bytes) -> bool:
        """Answer at once; return False where the answer has to be sent the usual way."""
        return self._whole is not None and self._whole(status, (*headers, self._header), body)


async def read_body(receive: Receive, limit: int) -> bytes | Refusal:
    """Return the request body; a refusal where it is larger than `limit` bytes or broke off."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] != "http.request":
            return _BROKEN_OFF
        return body if len(body) <= limit else _TOO_LARGE
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] != "http.request":
            return _BROKEN_OFF
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            return _TOO_LARGE
    return b"".join(chunks)


async def send_json(send: Send, status: int, body: bytes, headers: HeaderPairs = ()) -> None:
    """Send one complete JSON answer, in one write where the server lets us."""
    if isinstance(send, NamedSend) and send.whole(status, (_JSON, *headers), body):
        return
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


async def send_empty(send: Send, status: int, headers: HeaderPairs = ()) -> None:
    """Send an answer without a body."""
    start = [(b"content-length", b"0"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": b""})


class EventStream:
    """Server-sent events on a reply that becomes a stream only when there is something to stream.

    `push` never blocks: past a bound, notifications are dropped, because they are a courtesy and
    the final message is not.
    """

    __slots__ = ("_pump", "_queue", "_queued_bytes", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        # Hardly any call streams: what streaming needs is made with the first notification.
        self._queue: asyncio.Queue[bytes | None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._queued_bytes = 0

    def push(self, message: bytes) -> None:
        """Stream one JSON-RPC notification; the first one commits the reply to a stream."""
        if self._queue is None:
            self._queue = asyncio.Queue(_QUEUE_MAX)
            self._pump = asyncio.create_task(self._run(self._queue))
        room = self._queued_bytes + len(message) <= _QUEUE_MAX_BYTES
        if room and self._queue.qsize() < _QUEUE_MAX - 2:
            self._queued_bytes += len(message)
            self._queue.put_nowait(_event(message))

    @property
    def started(self) -> bool:
        """Whether the reply has become a stream."""
        return self._queue is not None

    async def finish(self, message: bytes) -> None:
        """Send the final message and end the stream. Call only once started."""
        queue, pump = self._queue, self._pump
        if queue is None or pump is None or pump.done():  # nobody listens any more
            return
        queue.put_nowait(_event(message))  # `push` leaves room for these two
        queue.put_nowait(None)
        await pump

    async def _run(self, queue: asyncio.Queue[bytes | None]) -> None:
        with contextlib.suppress(OSError):  # how ASGI says that the client has gone
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
            )
            while (event := await queue.get()) is not None:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})
                self._queued_bytes = max(0, self._queued_bytes - len(event))
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(message: bytes) -> bytes:
    """Frame one JSON message, on one line.

    A line break in JSON is only space; in a stream it would end the data, and a tool's own answer
    could begin an event of its own.
    """
    line = message.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: message\ndata: " + line + b"\n\n"
