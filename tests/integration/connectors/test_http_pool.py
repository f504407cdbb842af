from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from connectors.http_pool import (
    HttpError,
    HttpPool,
    HttpTimeoutError,
    Target,
    build_head,
    read_target,
)
from tests.integration.authorize.listening import make_certificate

pytestmark = [pytest.mark.network, pytest.mark.req("GW-09")]

LIMIT = 5_000_000
Handler = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """One accepted connection: reads whole requests, writes whatever it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await self._reader.readexactly(length)

    async def say(self, *data: bytes) -> None:
        for part in data:
            self.writer.write(part)
            await self.writer.drain()


class Server:
    """A raw server. `accepted` counts connections."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.accepted = 0
        self.tasks: set[asyncio.Task[Any]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self._handler(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[tuple[Server, Target]]:
    server = Server(handler)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield server, read_target(f"http://127.0.0.1:{port}/mcp?x=1")
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


async def ask(pool: HttpPool, target: Target, body: bytes = b"{}", timeout_s: float = 5) -> bytes:
    head = build_head("POST", target, {"X-One": "1"})
    response = await pool.post(target, head, body, limit=LIMIT, timeout_s=timeout_s)
    return await response.read()


def replies(*parts: bytes) -> Handler:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*parts)

    return handler


async def test_a_request_arrives_as_written_and_the_answer_as_sent() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.say(OK)

    async with serve(handler) as (_, target), HttpPool() as pool:
        assert await ask(pool, target, b'{"a":1}') == b"ok"
    assert seen[0].startswith(b"POST /mcp?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert seen[0].endswith(b"\r\nX-One: 1\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}')


async def test_one_connection_serves_many_requests_one_after_the_other() -> None:
    async with serve(replies(OK)) as (server, target), HttpPool() as pool:
        for _ in range(20):
            assert await ask(pool, target) == b"ok"
        assert server.accepted == 1


async def test_who_is_stopped_while_it_connects_sends_nothing_and_leaves_the_connection() -> None:
    asked: list[str] = []

    def stop() -> None:
        asked.append("stop?")
        raise PermissionError("stopped")

    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "
    async with serve(replies(OK)) as (server, target), HttpPool() as pool:
        with pytest.raises(PermissionError):
            await pool.post(target, head, b"{}", limit=9, timeout_s=5, go_ahead=stop)
        assert await ask(pool, target) == b"ok"
        assert server.accepted == 1
        await pool.post(target, head, b"{}", limit=9, timeout_s=5, go_ahead=stop)
    assert asked == ["stop?"]  # a connection that is there is not waited for


async def test_an_answer_in_pieces_and_in_chunks_is_put_together() -> None:
    pieces = (
        b"HTTP/1.1 200 OK\r\nTransfer-Enc",
        b"oding: chunked\r\n\r\n3\r\nabc\r\n",
        b"4\r\ndefg\r\n0\r\nContent-Type: text/evil\r\n\r\n",
    )
    async with serve(replies(*pieces)) as (server, target), HttpPool() as pool:
        head = build_head("POST", target, {})
        for _ in range(2):
            response = await pool.post(target, head, b"", limit=LIMIT, timeout_s=5)
            assert await response.read() == b"abcdefg"
            assert "content-type" not in response.headers
        assert server.accepted == 1


async def test_a_body_without_a_length_ends_with_its_connection_which_serves_no_more() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n", b"to the end")

    async with serve(handler) as (server, target), HttpPool() as pool:
        assert await ask(pool, target) == b"to the end"
        assert await ask(pool, target) == b"to the end"
        assert server.accepted == 2


async def test_an_interim_answer_is_not_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n"
    async with serve(replies(early, OK)) as (_, target), HttpPool() as pool:
        head = build_head("POST", target, {})
        response = await pool.post(target, head, b"", limit=LIMIT, timeout_s=5)
        assert (response.status, await response.read()) == (200, b"ok")
        assert "x-early" not in response.headers


async def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next_one() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.request()
        await peer.say(OK)

    async with serve(handler) as (_, target), HttpPool() as pool:
        assert await ask(pool, target) == b"ok"
        assert await ask(pool, target) == b"ok"


@pytest.mark.parametrize("seen", [1, 9, 40, -6, -4, -1])
async def test_an_answer_that_begins_behind_another_is_never_ended_by_the_next_one(
    seen: int,
) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK + evil[:seen])
        await peer.request()
        await peer.say(evil[seen:])

    async with serve(handler) as (server, target), HttpPool() as pool:
        assert await ask(pool, target) == b"ok"
        assert await ask(pool, target) == b"ok"
        assert server.accepted == 2


async def test_a_line_break_behind_an_answer_is_none() -> None:
    async with serve(replies(OK + b"\r\n")) as (server, target), HttpPool() as pool:
        assert [await ask(pool, target) for _ in range(3)] == [b"ok"] * 3
        assert server.accepted == 1


async def test_an_answer_that_is_not_http_may_have_been_sent() -> None:
    async with serve(replies(b"SSH-2.0-OpenSSH\r\n")) as (_, target), HttpPool() as pool:
        with pytest.raises(HttpError) as caught:
            await ask(pool, target)
        assert caught.value.sent


async def test_a_connection_that_breaks_off_tells_that_the_request_may_have_arrived() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async with serve(handler) as (_, target), HttpPool() as pool:
        with pytest.raises(HttpError) as caught:
            await ask(pool, target)
        assert caught.value.sent


async def test_nobody_listening_means_nothing_was_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = read_target(f"http://127.0.0.1:{free.getsockname()[1]}/")
    async with HttpPool() as pool:
        with pytest.raises(HttpError) as caught:
            await ask(pool, target)
        assert not caught.value.sent


async def test_a_silent_upstream_is_given_up_when_the_time_is_over() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await asyncio.Event().wait()

    async with serve(handler) as (_, target), HttpPool() as pool:
        with pytest.raises(HttpTimeoutError) as caught:
            await ask(pool, target, timeout_s=0.05)
        assert caught.value.sent


async def test_a_deadline_earlier_than_that_of_the_request_before_holds() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        await asyncio.Event().wait()

    async with serve(handler) as (server, target), HttpPool() as pool:
        assert await ask(pool, target, timeout_s=60) == b"ok"
        with pytest.raises(HttpTimeoutError) as caught:
            await asyncio.wait_for(ask(pool, target, timeout_s=0.05), 10)
        assert caught.value.sent
        assert server.accepted == 1


async def test_the_deadline_of_a_request_that_is_over_does_not_end_the_next_one() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, over.set)  # past the first one's deadline
        await over.wait()
        await peer.say(OK)
        await peer.request()
        await asyncio.Event().wait()

    async with serve(handler) as (server, target), HttpPool() as pool:
        assert await ask(pool, target, timeout_s=0.05) == b"ok"
        assert await ask(pool, target, timeout_s=5) == b"ok"
        with pytest.raises(HttpTimeoutError):
            await asyncio.wait_for(ask(pool, target, timeout_s=0.05), 10)
        assert server.accepted == 1


async def test_an_idle_connection_has_no_deadline() -> None:
    async with serve(replies(OK)) as (server, target), HttpPool() as pool:
        assert await ask(pool, target, timeout_s=0.05) == b"ok"
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, later.set)
        await later.wait()
        assert await ask(pool, target) == b"ok"
        assert server.accepted == 1


async def test_past_the_connections_allowed_callers_wait_for_one_that_is_free() -> None:
    async with serve(replies(OK)) as (server, target), HttpPool(connections=2) as pool:
        answers = await asyncio.gather(*(ask(pool, target) for _ in range(20)))
        assert answers == [b"ok"] * 20
        assert server.accepted == 2


async def test_waiting_for_a_connection_too_long_means_nothing_was_sent() -> None:
    asked = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await asyncio.Event().wait()

    async with serve(handler) as (_, target), HttpPool(connections=1) as pool:
        first = asyncio.create_task(ask(pool, target))
        await asked.wait()
        with pytest.raises(HttpTimeoutError) as caught:
            await ask(pool, target, timeout_s=0.05)
        assert not caught.value.sent
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_caller_that_leaves_as_its_turn_comes_gives_it_to_the_next() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            asked.set()
            await answer.wait()
            await peer.say(OK)

    class Pool(HttpPool):
        leaving: asyncio.Task[bytes] | None = None

        def free(self, connection: Any, target: Target) -> None:  # noqa: ANN401 - as the pool's
            super().free(connection, target)
            if self.leaving is not None:
                self.leaving.cancel()

    async with serve(handler) as (_, target), Pool(connections=1) as pool:
        first = asyncio.create_task(ask(pool, target))
        await asked.wait()
        pool.leaving = asyncio.create_task(ask(pool, target))
        await asyncio.sleep(0)
        last = asyncio.create_task(ask(pool, target))
        await asyncio.sleep(0)
        answer.set()
        assert await first == b"ok"
        assert await asyncio.wait_for(last, 2) == b"ok"
        assert pool.leaving.cancelled()


async def test_a_caller_that_is_cancelled_leaves_no_answer_behind_for_the_next() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await answer.wait()
        await peer.say(OK)

    async with serve(handler) as (server, target), HttpPool() as pool:
        first = asyncio.create_task(ask(pool, target))
        await asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        answer.set()
        assert await ask(pool, target) == b"ok"
        assert server.accepted == 2


async def test_a_caller_that_is_cancelled_as_its_answer_comes_does_not_end_the_next_one() -> None:
    answered = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        answered.set()
        await peer.request()
        await peer.say(OK)

    async with serve(handler) as (server, target), HttpPool() as pool:
        first = asyncio.create_task(ask(pool, target))
        await answered.wait()
        await asyncio.sleep(0)  # the answer has been read, and its caller has yet to hear of it
        first.cancel()
        assert await ask(pool, target) == b"ok"
        with suppress(asyncio.CancelledError):
            await first
        assert server.accepted == 1


async def test_a_large_body_is_read_whole_however_slowly() -> None:
    chunk = b"x" * 65_536
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(chunk) * 60)
    async with serve(replies(head, *[chunk] * 60)) as (server, target), HttpPool() as pool:
        lead = build_head("POST", target, {})
        response = await pool.post(target, lead, b"", limit=LIMIT, timeout_s=5)
        size = 0
        async for part in response.chunks():
            size += len(part)
            await asyncio.sleep(0)
        assert size == len(chunk) * 60
        assert await ask(pool, target) == chunk * 60
        assert server.accepted <= 2


async def test_a_body_in_very_many_pieces_is_not_taken_faster_than_it_is_read() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await peer.say(head + b"1\r\nx\r\n" * 300_000 + b"0\r\n\r\n")

    async with serve(handler) as (_, target), HttpPool() as pool:
        head = build_head("POST", target, {})
        response = await pool.post(target, head, b"", limit=LIMIT, timeout_s=20)
        transport = response._connection._transport  # noqa: SLF001 - whether it is read from
        assert transport is not None
        while transport.is_reading() and not response.complete:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        assert not response.complete
        assert await response.read() == b"x" * 300_000


async def test_a_body_beyond_the_limit_is_not_kept() -> None:
    parts = [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000] * 20]

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(*parts)

    async with serve(handler) as (_, target), HttpPool() as pool:
        head = build_head("POST", target, {})
        response = await pool.post(target, head, b"", limit=10_000, timeout_s=5)
        with pytest.raises(OverflowError):
            await response.read()
        response.release()


async def test_a_body_that_comes_at_once_is_held_to_the_limit_however_it_is_framed() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
    async with serve(replies(chunked)) as (_, target), HttpPool() as pool:
        head = build_head("POST", target, {})
        fits = await pool.post(target, head, b"", limit=4, timeout_s=5)
        assert await fits.read() == fits.whole == b"abcd"
        larger = await pool.post(target, head, b"", limit=3, timeout_s=5)
        assert (larger.complete, larger.whole) == (True, None)
        with pytest.raises(OverflowError):
            await larger.read()


async def test_a_plain_server_behind_https_is_not_talked_to() -> None:
    async def handler(peer: Peer) -> None:
        await peer.say(OK)

    async with serve(handler) as (_, target), HttpPool() as pool:
        with pytest.raises(HttpError) as caught:
            await ask(pool, replace(target, tls=True))
        assert not caught.value.sent


async def test_a_host_name_without_an_address_is_told() -> None:
    async with HttpPool() as pool:
        with pytest.raises(HttpError, match="host name has no address") as caught:
            await ask(pool, read_target("http://shop..example/mcp"))
        assert not caught.value.sent


async def test_a_server_of_a_private_ca_is_talked_to_once_its_ca_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)

    certificate, context = make_certificate(tmp_path)
    listening = await asyncio.start_server(Server(handler).connected, "127.0.0.1", 0, ssl=context)
    target = read_target(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    async with listening:
        async with HttpPool() as pool:
            with pytest.raises(HttpError, match=r"not believed: self.*SSL_CERT_FILE") as caught:
                await ask(pool, target)
            assert not caught.value.sent
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with HttpPool() as pool:
            assert await ask(pool, target) == b"ok"


@pytest.mark.parametrize("value", ["a\r\nX-Two: 2", "a\nb", "a\0b"])
def test_no_header_can_end_its_line(value: str) -> None:
    target = read_target("http://127.0.0.1/")
    with pytest.raises(ValueError, match="line break"):
        build_head("POST", target, {"X-One": value})


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "http:///x", "http://u:p@host/", "http://host/a b", "http://hôst/"]
)
def test_an_url_that_leads_nowhere_plain_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="upstream URL"):
        read_target(url)


def test_an_https_url_gets_its_port_and_the_root_its_slash() -> None:
    target = read_target("https://api.example")
    assert (target.port, target.tls, target.path) == (443, True, "/")
