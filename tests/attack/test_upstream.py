"""A malicious upstream: what it may cost everybody else (threat model, GW-18)."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from connectors import mcp_wire as wire
from connectors.catalog import Catalog
from connectors.http_exchange import HttpExchange
from connectors.http_pool import HttpPool
from connectors.refresh import Refresher
from connectors.sse import EventReader
from gateway.core.calls.call import UpstreamResult
from gateway.core.errors import UpstreamError
from gateway.http.asgi import EventStream, Message

pytestmark = pytest.mark.req("GW-18")


def test_blanks_are_passed_over_at_once() -> None:
    padded = b'{"a":1,' + b" " * 8_000_000 + b'"b":2}'
    assert wire.split_object(padded)  # one look at each blank again would take hours


def test_an_object_of_countless_members_is_refused() -> None:
    with pytest.raises(ValueError, match="members"):
        wire.split_object(orjson.dumps({str(number): 1 for number in range(20_000)}))


def test_a_line_that_comes_byte_by_byte_costs_no_more_than_its_length() -> None:
    events = EventReader(8 << 20)
    events.feed(b"data: " + b"x" * 4_000_000)

    for _ in range(20_000):  # joining the line anew for each byte would copy 80 GB
        assert events.feed(b"x") == []
    assert events.feed(b"\n\r\n") == [b"x" * 4_020_000]


def test_a_listing_is_bounded() -> None:
    listing = wire.Listing()
    page = orjson.dumps({"tools": [{"name": "x" * 400_000}], "nextCursor": "1"})
    listing.add(UpstreamResult(result=page))
    listing.add(UpstreamResult(result=page.replace(b'"1"', b'"2"')))
    with pytest.raises(UpstreamError, match="larger than"):
        listing.add(UpstreamResult(result=page.replace(b'"1"', b'"3"')))


async def test_an_upstream_that_stalls_does_not_hold_up_the_listing_of_others() -> None:
    class Stalls:
        async def list_tools(self) -> list[bytes]:
            await asyncio.Event().wait()
            raise AssertionError

    refresher = Refresher(Catalog(), {"a": Stalls()}, listing_s=0.01)
    error = await refresher.refresh("a")
    assert error is not None
    assert error.code == "upstream_timeout"


async def test_what_streams_to_an_agent_that_does_not_read_is_bounded() -> None:
    reads, kept = asyncio.Event(), 0

    async def send(message: Message) -> None:
        nonlocal kept
        if message["type"] == "http.response.body":
            await reads.wait()
            kept += len(message["body"])

    stream = EventStream(send)
    for _ in range(900):
        stream.push(b"x" * 100_000)
    reads.set()
    await stream.finish(b"{}")
    assert kept < 2_000_000


@pytest.mark.network
@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65_536, id="a head without end"),
        pytest.param(b"", b"HTTP/1.1 103 Hints\r\n\r\n" * 3_000, id="hints without end"),
    ],
)
async def test_what_comes_before_an_answer_is_bounded(first: bytes, again: bytes) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        try:
            while sent < 100_000_000:
                writer.write(again)
                await writer.drain()
                sent += len(again)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpPool() as pool:
        http = HttpExchange(pool, f"http://127.0.0.1:{port}/", result_max_bytes=1_000_000)
        with pytest.raises(UpstreamError) as told:
            await http.ask(1, b"{}", http.head({}), timeout_s=10, hears=lambda _: None)
    assert told.value.delivery == "unknown"
    assert sent < 50_000_000
