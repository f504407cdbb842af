"""Answers in one write say, byte for byte, what the server's own way of answering says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from gateway.http.asgi import WHOLE_REPLY, NamedSend, Receive, Scope, Send, send_json
from gateway.http.wire_guard import GuardedProtocol
from gateway.unbroken import Unbroken

pytestmark = pytest.mark.network

BODY = b'{"a":1}'


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the path says: `/usual` the server's own way, anything else whole."""
    await receive()
    if scope["path"] == "/stalled":
        await Unbroken().finish(_stall())
        await send_json(NamedSend(send, scope, "r1"), 504, BODY)
        return
    if scope["path"] == "/usual":
        del scope[WHOLE_REPLY]
    extra = [(b"x-a", b"b\r\nx-c: d")] if scope["path"] == "/broken" else [(b"x-a", b"b")]
    if scope["path"] == "/twice":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send_json(NamedSend(send, scope, "r1"), 201, BODY, extra)


async def _stall() -> None:
    """Wait for what never comes, for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    config = uvicorn.Config(
        answering, http=GuardedProtocol, lifespan="off", log_config=None, date_header=False
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: GuardedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server, asyncio.timeout(5):
        yield server.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


async def ask(port: int, *requests: bytes) -> bytes:
    """Send requests at once, the last one to close the connection; return all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(requests))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def request(path: str, *, method: str = "POST", close: bool = False) -> bytes:
    end = "Connection: close\r\n" if close else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{end}\r\n".encode()


async def test_both_ways_put_the_same_on_the_wire_and_keep_the_order_of_pipelined_requests() -> (
    None
):
    async with serving() as port:
        answers = await ask(
            port,
            request("/whole"),
            request("/usual"),
            request("/whole"),
            request("/whole", close=True),
        )
    heads = [part for part in answers.split(b"HTTP/1.1 ") if part]
    assert len(heads) == 4
    head, _, body = heads[0].partition(b"\r\n\r\n")
    lines = {
        b"content-type: application/json",
        b"content-length: 7",
        b"x-a: b",
        b"x-request-id: r1",
    }
    assert body == BODY
    for other in heads:
        assert (
            set(other.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]) - {b"connection: close"}
            == lines
        )
        assert other.startswith(b"201 Created\r\n")
        assert other.endswith(b"\r\n\r\n" + BODY)
    assert head.count(b"\r\n") == len(lines)


async def test_a_time_limit_inside_unbroken_work_holds_behind_the_server() -> None:
    async with serving() as port:
        answer = await ask(port, request("/stalled", close=True))
    assert answer.startswith(b"HTTP/1.1 504 ")


async def test_a_line_break_in_a_header_ends_in_an_error_and_no_second_header() -> None:
    async with serving() as port:
        answer = await ask(port, request("/broken", close=True))
        whole = await ask(port, request("/broken"), request("/usual", close=True))
    for reply in (answer, whole):
        assert b"x-c" not in reply
        assert BODY not in reply
    assert whole.startswith(b"HTTP/1.1 500 ")


async def test_what_asks_for_no_body_and_what_has_begun_goes_the_usual_way() -> None:
    async with serving() as port:
        answer = await ask(port, request("/whole", method="HEAD", close=True))
        begun = await ask(port, request("/twice", close=True))
    assert answer.endswith(b"\r\n\r\n")
    assert begun.count(b"HTTP/1.1 200") == 1
    assert b"201" not in begun
