"""A stranger on the network: what may be had without any credential (threat model, GW-18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from gateway.http import wire_guard
from gateway.http.asgi import Message, Receive, Scope, Send, send_empty
from gateway.http.wire_guard import GuardedProtocol
from tests.unit.path.world import World

pytestmark = [pytest.mark.network, pytest.mark.req("GW-18")]

HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send_empty(send, 204)


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A server with the gateway's protocol; yields its port."""
    config = uvicorn.Config(hello, http=GuardedProtocol, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: GuardedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


async def read_all(port: int, *chunks: bytes) -> bytes:
    """Send and return all that comes until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with suppress(ConnectionError):
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        answer = await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "flood", [b"X: " + b"a" * 400_000, b"a: b\r\n" * 70_000, b"\r\n" * 200_000], ids=len
)
async def test_a_head_without_end_is_cut_off(flood: bytes) -> None:
    async with serving() as port, asyncio.timeout(5):
        start = b"" if flood.startswith(b"\r") else b"GET / HTTP/1.1\r\nHost: x\r\n"
        assert await read_all(port, start, flood) == b""


async def test_a_trailer_without_end_is_cut_off() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving() as port, asyncio.timeout(5):
        answer = await read_all(port, head, b"1\r\na\r\n0\r\nX: " + b"a" * 400_000)
        assert answer.count(b"HTTP/1.1") <= 1


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTTP/1.1\r\n", HELLO[:-2] + b"Content-Length: 9\r\n\r\n"]
)
async def test_who_sends_nothing_more_is_cut_off(
    start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_guard, "REQUEST_MAX_S", 0.1)
    async with serving() as port, asyncio.timeout(5):
        await read_all(port, start)


async def test_a_connection_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_guard, "REQUEST_MAX_S", 0.1)
    async with serving() as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(6):
            writer.write(HELLO)
            assert b"204" in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
        writer.close()


async def test_connections_leave_files_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_guard, "connections_max", lambda: 2)
    async with serving() as port, asyncio.timeout(5):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert await read_all(port, HELLO) == b""
        for _, writer in silent:
            writer.close()


async def test_a_body_is_read_only_for_a_token_that_is_believed() -> None:
    world, sent = World(), []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/mcp",
        "headers": [(b"host", b"gw.example"), (b"authorization", b"Bearer garbage")],
    }
    await world.app(scope, receive, send)
    assert sent[0]["status"] == 401
