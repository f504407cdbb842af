from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from connectors.http_pool import HttpPool
from connectors.listing import read_digests
from connectors.mcp_http import McpHttpTransport
from gateway.core.calls.call import UpstreamResult
from gateway.core.catalog import Tool
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from tests.integration.connectors.servers import DISCOVERED, Answer, Liar, Reply
from tests.unit.connectors.calls import build_intent, build_tool

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

pytestmark = [pytest.mark.network, pytest.mark.req("GW-09")]

Connect = Callable[..., AbstractAsyncContextManager[McpHttpTransport]]
LIMITS = Limits(result_max_bytes=100_000)
OK = {"content": [{"type": "text", "text": "ok"}]}


def event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + orjson.dumps({"jsonrpc": "2.0", **message}) + b"\n\n"


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool() as pool:
        yield pool


@pytest.fixture
def connect(pool: HttpPool) -> Connect:
    @asynccontextmanager
    async def make(liar: Liar, **options: Any) -> AsyncIterator[McpHttpTransport]:  # noqa: ANN401 - any option
        limits = options.pop("limits", LIMITS)
        async with liar.serve() as url:
            transport = McpHttpTransport("srv", url, limits=limits, pool=pool, **options)
            try:
                yield transport
            finally:
                await transport.close()

    return make


async def send(connect: Connect, answer: Answer, **call: Any) -> UpstreamResult:  # noqa: ANN401 - as build_intent
    async with connect(Liar(answer)) as transport:
        return await transport.call(build_intent("echo", **call), None)


async def refusal(connect: Connect, answer: Answer, **call: Any) -> tuple[str, str]:  # noqa: ANN401 - as build_intent
    with pytest.raises(UpstreamError) as caught:
        await send(connect, answer, **call)
    return caught.value.code, caught.value.delivery


# What comes back


async def test_the_result_is_kept_byte_for_byte(connect: Connect) -> None:
    raw = '{ "content":[ ],  "structuredContent":{"é":1e2, "n": 10000000000000000000001} }'

    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.body(b'{"jsonrpc": "2.0", "id": %d, "result": %b}' % (reply.id, raw.encode()))

    assert (await send(connect, answer)).result == raw.encode()


async def test_an_error_answer_is_kept_byte_for_byte(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        body = b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32602, "message":"no"}}' % reply.id
        await reply.body(body, status="400 Bad Request")

    assert await send(connect, answer) == UpstreamResult(
        error=b'{"code":-32602, "message":"no"}', is_error=True
    )


@pytest.mark.parametrize("code", ["-32000", "1e400", "-32022"])
async def test_an_error_answer_is_one_whatever_numbers_are_in_it(
    connect: Connect, code: str
) -> None:
    error = b'{"code":%b,"message":"no","data":[1e400]}' % code.encode()

    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.body(b'{"jsonrpc":"2.0","id":%d,"error":%b}' % (reply.id, error))

    assert await send(connect, answer) == UpstreamResult(error=error, is_error=True)


async def test_a_stream_with_progress_ends_in_the_result(connect: Connect) -> None:
    async def answer(request: dict[str, Any], reply: Reply) -> None:
        token = request["params"]["_meta"]["progressToken"]
        await reply.stream(
            b": hello\nid: 1\ndata:\n\n",
            event({"method": "notifications/progress", "params": {"progressToken": "other"}}),
            event({"method": "notifications/progress", "params": {"progressToken": token, "p": 1}}),
            event({"method": "notifications/message", "params": {"level": "info", "data": "x"}}),
            event({"method": "notifications/progress", "params": [1]}),
            event({"method": "notifications/unheard", "params": {}}),
            b"event: other\ndata: {}\n\n",
            event({"id": reply.id, "result": OK})[:-9],
            event({"id": reply.id, "result": OK})[-9:],
        )

    heard: list[bytes] = []
    async with connect(Liar(answer)) as transport:
        result = await transport.call(build_intent("echo", progress_token="mine"), heard.append)
    assert result.result == orjson.dumps(OK)
    assert [orjson.loads(line)["params"] for line in heard] == [
        {"progressToken": "mine", "p": 1},
        {"level": "info", "data": "x"},
    ]


async def test_a_stream_that_floods_the_gateway_does_not_hold_up_the_others(
    connect: Connect,
) -> None:
    async def answer(request: dict[str, Any], reply: Reply) -> None:
        token = request["params"]["_meta"]["progressToken"]
        progress = event({"method": "notifications/progress", "params": {"progressToken": token}})
        await reply.stream(progress * 5_000, event({"id": reply.id, "result": OK}))

    turn, heard = 0, Counter[int]()

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with connect(Liar(answer)) as transport:
        others = asyncio.create_task(take_turns())
        call = build_intent("echo", progress_token="mine")
        result = await transport.call(call, lambda _line: heard.update([turn]))
        others.cancel()
    assert result.result == orjson.dumps(OK)
    assert heard.total() == 5_000
    assert max(heard.values()) < 200


async def test_a_flood_that_says_nothing_ends_when_the_time_is_over(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.stream(b"\n" * 1_000_000)

    async with asyncio.timeout(10):
        assert await refusal(connect, answer, deadline_ms=300) == ("upstream_timeout", "unknown")


async def test_a_stream_that_stays_open_gives_its_connection_up(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.stream(event({"id": reply.id, "result": OK}))

    async with connect(Liar(answer)) as transport:
        await transport.call(build_intent("echo"), None)
        await transport.call(build_intent("echo"), None)


async def test_a_stream_that_ends_properly_gives_its_connection_back(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.stream(event({"id": reply.id, "result": OK}))
        await asyncio.sleep(0)
        await reply.raw(b"0\r\n\r\n")

    async with connect(Liar(answer)) as transport:
        for _ in range(3):
            await transport.call(build_intent("echo"), None)


async def test_an_answer_of_unknown_length_is_read_whole(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        body = orjson.dumps({"jsonrpc": "2.0", "id": reply.id, "result": OK})
        await reply.raw(head + b"Connection: close\r\n\r\n" + body)
        await reply.drop()

    assert (await send(connect, answer)).result == orjson.dumps(OK)


# What goes out


async def test_the_arguments_go_out_byte_for_byte_and_no_agent_token_with_them(
    connect: Connect,
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.result(OK)

    liar = Liar(answer)
    async with connect(liar, headers={"Authorization": "Bearer own"}) as transport:
        intent = build_intent(
            build_tool("echo", operation_id_at="table.column"),
            b'{"a": 1.0, "b":"\\u00e9"}',
            client_capabilities=b'{"sampling":{}}',
            traceparent=TRACE,
        )
        await transport.call(intent, None)
        assert transport.protocol_version == "2026-07-28"
    request, headers = liar.seen[-1]
    assert request["params"] == {
        "name": "echo",
        "arguments": {"a": 1.0, "b": "é"},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "countersign", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
            "io.countersign/operation_id": intent.intent.idempotency_key,
            "traceparent": TRACE,
        },
    }
    assert headers["mcp-method"] == "tools/call"
    assert headers["mcp-name"] == "echo"
    assert headers["mcp-protocol-version"] == "2026-07-28"
    assert headers["authorization"] == "bearer own"
    assert "agent-token" not in str(liar.seen)


async def test_marked_arguments_are_repeated_in_headers(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.result(OK)

    schema = {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    }
    liar = Liar(answer)
    async with connect(liar) as transport:
        tool = build_tool("echo", schema=schema)
        for region in ("eu", "us\r\nX-Evil: 1"):
            await transport.call(build_intent(tool, {"region": region}), None)
    assert liar.seen[-2][1]["mcp-param-region"] == "eu"
    assert liar.seen[-1][1]["mcp-param-region"].startswith("=?base64?")
    assert "x-evil" not in liar.seen[-1][1]


# Lies and failures, and what is said of the delivery


async def whole(reply: Reply, body: bytes, **options: Any) -> None:  # noqa: ANN401 - as Reply.body
    await reply.body(body.replace(b"ID", str(reply.id).encode()), **options)


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b'{"jsonrpc":"2.0","id":ID,"result":{}}', {"kind": "text/html"}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{}}', {"more": "Content-Encoding: gzip\r\n"}),
        (b'{"jsonrpc":"2.0","id":12345678,"result":{}}', {}),
        (b'{"jsonrpc":"1.0","id":ID,"result":{}}', {}),
        (b'{"jsonrpc":"2.0","id":ID}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{},"error":{}}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{},"result":{"isError":true}}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{"isError":false,"isError":true}}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":[]}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{"a":NaN}}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{"a":"\xff"}}', {}),
        (b'{"jsonrpc":"2.0","id":ID,"result":{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}}", {}),
        (b"<html>", {}),
        (b"", {}),
        (b"data: x\n\n", {"kind": "text/event-stream"}),
    ],
)
async def test_an_answer_that_cannot_be_used_was_sent(
    connect: Connect, body: bytes, options: dict[str, str]
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await whole(reply, body, **options)

    assert await refusal(connect, answer) == ("upstream_protocol", "sent")


@pytest.mark.parametrize(
    ("status", "delivery"),
    [
        ("202 Accepted", "sent"),
        ("307 Temporary Redirect", "sent"),
        ("401 Unauthorized", "sent"),
        ("404 Not Found", "sent"),
        ("500 Internal Server Error", "unknown"),
        ("502 Bad Gateway", "unknown"),
    ],
)
async def test_a_refusal_over_http_says_what_is_known_of_the_delivery(
    connect: Connect, status: str, delivery: str
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.body({"detail": "no"}, status=status, more="Location: http://127.0.0.2/\r\n")

    assert await refusal(connect, answer) == ("upstream_unavailable", delivery)


async def test_a_success_with_the_status_of_an_error_is_no_success(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        body = {"jsonrpc": "2.0", "id": reply.id, "result": OK}
        await reply.body(body, status="500 Internal Server Error")

    assert await refusal(connect, answer) == ("upstream_unavailable", "unknown")


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_past_the_limit_is_refused(connect: Connect, *, declared: bool) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        body = b'{"jsonrpc":"2.0","id":1,"result":{"a":"%b"}}' % (b"x" * 200_000)
        length = f"Content-Length: {len(body)}\r\n" if declared else "Connection: close\r\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n"
        await reply.raw(head.encode() + body)
        await reply.drop()

    assert await refusal(connect, answer) == ("result_too_large", "sent")


@pytest.mark.parametrize("line", [b"data: " + b"x" * 200_000, b"data: xxxxx\n" * 40_000])
async def test_an_event_past_the_limit_is_refused(connect: Connect, line: bytes) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.stream(line)

    assert await refusal(connect, answer) == ("result_too_large", "sent")


async def test_a_slow_answer_ends_unknown(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        """Say nothing."""

    assert await refusal(connect, answer, deadline_ms=50) == ("upstream_timeout", "unknown")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: nothing\n\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_connection_that_breaks_leaves_it_unknown(connect: Connect, said: bytes) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.raw(said)
        await reply.drop()

    assert await refusal(connect, answer) == ("upstream_unavailable", "unknown")


async def test_a_result_that_asks_for_input_cannot_be_relayed(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.result({"resultType": "input_required", "inputRequests": {}})

    assert await refusal(connect, answer) == ("unsupported_result", "sent")


async def test_a_call_that_may_have_arrived_is_not_sent_again(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.drop()

    liar = Liar(answer)
    async with connect(liar) as transport:
        with pytest.raises(UpstreamError):
            await transport.call(build_intent("echo"), None)
    assert [request["method"] for request, _ in liar.seen] == ["server/discover", "tools/call"]


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("307 Temporary Redirect", r"HTTP 307; .* name in `url` where it leads"),
        ("301 Moved Permanently", r"HTTP 301; .* name in `url` where it leads"),
        ("401 Unauthorized", r"HTTP 401; .* name one under `auth`"),
        ("404 Not Found", r"HTTP 404; .* look at `url`"),
        ("405 Method Not Allowed", r"HTTP 405; .* look at `url`"),
    ],
)
async def test_a_server_that_cannot_be_used_as_it_is_configured_is_told_with_what_to_do(
    connect: Connect, status: str, remedy: str
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        more = "Location: http://127.0.0.2/mcp/?key=canary\r\n"
        await reply.body(b"", status=status, more=more, kind="text/plain")

    async with connect(Liar(answer, discovered=None)) as transport:
        with pytest.raises(UpstreamError, match=remedy) as caught:
            await transport.list_tools()
    assert "canary" not in str(caught.value)


async def test_a_redirect_is_not_followed(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.result(OK)

    elsewhere = Liar(answer)
    async with elsewhere.serve() as url:

        async def redirect(_: dict[str, Any], reply: Reply) -> None:
            more = f"Location: {url}\r\n"
            await reply.body(b"", status="307 Temporary Redirect", more=more)

        assert await refusal(connect, redirect) == ("upstream_unavailable", "sent")
    assert elsewhere.seen == []


# Eras


class Legacy:
    """Answers as a 2025-11-25 server with sessions; `lost` makes it forget them."""

    def __init__(self) -> None:
        self.sessions = 0
        self.lost = False
        self.says_lost = ("404 Not Found", b"")
        self.heard: list[str] = []
        self.answered = asyncio.Event()

    async def __call__(self, request: dict[str, Any], reply: Reply) -> None:
        method = request.get("method", "answer")
        self.heard.append(method)
        if method == "answer":
            self.answered.set()
        if method == "initialize":
            self.sessions += 1
            self.lost = False
            result = {"protocolVersion": "2025-06-18", "capabilities": {}}
            body = {"jsonrpc": "2.0", "id": reply.id, "result": result}
            await reply.body(body, more=f"Mcp-Session-Id: s{self.sessions}\r\n")
        elif method in ("notifications/initialized", "answer"):
            await reply.body(b"", status="202 Accepted")
        elif method == "DELETE":
            await reply.body(b"")
        elif method == "server/discover":
            await reply.body(b"no session", status="400 Bad Request", kind="text/plain")
        elif self.lost:
            status, said = self.says_lost
            await reply.body(said.replace(b"#", b"%d" % reply.id), status=status)
        elif method == "tools/list":
            await reply.result({"tools": [{"name": "echo"}]})
        else:
            asks = {"id": 1, "method": "sampling/createMessage", "params": {}}
            changed = {"method": "notifications/tools/list_changed"}
            events = (event(asks), event(changed), event({"id": reply.id, "result": OK}))
            await reply.stream(*events)
            await reply.raw(b"0\r\n\r\n")


async def test_an_older_server_gets_a_session_and_its_requests_are_refused(
    connect: Connect,
) -> None:
    legacy, noticed = Legacy(), list[str]()
    liar = Liar(legacy, discovered=None)
    async with connect(liar, on_list_changed=noticed.append) as transport:
        await transport.start()
        assert transport.protocol_version == "2025-06-18"
        await transport.call(build_intent("echo"), None)
        await legacy.answered.wait()
    assert noticed == ["srv"]
    call, headers = liar.seen[3]
    assert "_meta" not in call["params"]
    assert headers["mcp-session-id"] == "s1"
    assert headers["mcp-protocol-version"] == "2025-06-18"
    answers = [request for request, _ in liar.seen if "error" in request]
    assert answers[0]["error"]["code"] == -32601
    assert legacy.heard[-1] == "DELETE"


NO_SESSION = b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"no valid session"},"id":null}'
NO_SESSION_FOR_THIS = NO_SESSION.replace(b"null", b"#")


@pytest.mark.parametrize(
    "said", [b'{"jsonRpcError":{"code":-32603},"stackTrace":[]}', b"", b"<h1>Server Error</h1>"]
)
async def test_a_server_that_fails_at_a_method_it_does_not_know_is_asked_the_older_way(
    connect: Connect, said: bytes
) -> None:
    legacy = Legacy()

    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request.get("method") == "server/discover":
            await reply.body(said, status="500 Internal Server Error")
        else:
            await legacy(request, reply)

    async with connect(Liar(answer, discovered=None)) as transport:
        assert await transport.list_tools() == [b'{"name": "echo"}']
        assert transport.protocol_version == "2025-06-18"


async def test_a_server_that_keeps_silent_on_a_method_it_does_not_know_is_asked_the_older_way(
    connect: Connect,
) -> None:
    legacy, forever = Legacy(), asyncio.Event()

    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request.get("method") == "server/discover":
            await forever.wait()
        else:
            await legacy(request, reply)

    limits = Limits(upstream_timeout_ms=1_500)
    async with connect(Liar(answer, discovered=None), limits=limits) as transport:
        assert await transport.list_tools() == [b'{"name": "echo"}']
        assert transport.protocol_version == "2025-06-18"
        forever.set()


async def test_a_server_that_fails_at_both_ways_is_not_used(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.body(b"", status="500 Internal Server Error")

    liar = Liar(answer, discovered=None)
    async with connect(liar) as transport:
        with pytest.raises(UpstreamError, match="HTTP 500") as caught:
            await transport.call(build_intent("echo"), None)
    assert caught.value.delivery == "not_sent"
    methods = [request["method"] for request, _ in liar.seen]
    assert methods == ["server/discover", "initialize"]


def reviewed(definition: bytes) -> Tool:
    """Return `echo` as somebody approved it."""
    return replace(build_tool("echo"), definition_digest=read_digests([definition])["echo"])


@pytest.mark.parametrize("body", [b"", NO_SESSION, NO_SESSION_FOR_THIS])
async def test_a_lost_session_costs_no_call_where_the_tool_is_still_as_reviewed(
    connect: Connect, body: bytes
) -> None:
    legacy, intent = Legacy(), build_intent(reviewed(b'{"name": "echo"}'))
    legacy.says_lost = ("404 Not Found", body)
    noticed: list[str] = []
    async with connect(Liar(legacy, discovered=None), on_list_changed=noticed.append) as transport:
        await transport.call(intent, None)
        noticed.clear()
        legacy.heard.clear()
        legacy.lost = True
        answer = await transport.call(intent, None)
        assert answer.result is not None
        assert noticed[0] == "srv"  # what came back may be another one
        asked = [one for one in legacy.heard if one != "answer"]
        again = ["server/discover", "initialize", "notifications/initialized", "tools/list"]
        assert asked == ["tools/call", *again, "tools/call"]


async def test_a_lost_session_costs_one_call_where_the_tool_is_another_one_now(
    connect: Connect,
) -> None:
    legacy = Legacy()
    intent = build_intent(reviewed(b'{"name": "echo", "description": "as it was"}'))
    async with connect(Liar(legacy, discovered=None)) as transport:
        await transport.call(intent, None)
        legacy.lost = True
        with pytest.raises(UpstreamError) as caught:
            await transport.call(intent, None)
        assert (caught.value.delivery, caught.value.retryable) == ("not_sent", True)
        assert legacy.heard.count("tools/call") == 2  # and neither of them after it was lost
        assert legacy.sessions == 2


async def test_a_server_that_loses_every_session_is_asked_once_more_and_no_more(
    connect: Connect,
) -> None:
    legacy, intent = Legacy(), build_intent(reviewed(b'{"name": "echo"}'))

    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request.get("method") == "tools/call":
            legacy.lost = True
        await legacy(request, reply)

    async with connect(Liar(answer, discovered=None)) as transport:
        with pytest.raises(UpstreamError) as caught:
            await transport.call(intent, None)
    assert caught.value.delivery == "not_sent"
    assert legacy.heard.count("tools/call") == 2


async def test_a_call_that_hears_late_of_a_lost_session_does_not_end_the_new_one(
    connect: Connect,
) -> None:
    legacy, intent = Legacy(), build_intent(reviewed(b'{"name": "echo"}'))
    arrived, released = asyncio.Event(), asyncio.Event()

    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request.get("method") == "tools/call" and legacy.sessions and not arrived.is_set():
            arrived.set()
            await released.wait()
            await reply.body(b"", status="404 Not Found")
        else:
            await legacy(request, reply)

    async with connect(Liar(answer, discovered=None)) as transport, asyncio.TaskGroup() as tasks:
        await transport.start()
        late = tasks.create_task(transport.call(intent, None))
        await arrived.wait()
        legacy.lost = True
        assert (await transport.call(intent, None)).result is not None
        released.set()
        assert (await late).result is not None
        assert legacy.sessions == 2


async def test_a_session_is_opened_anew_with_a_server_that_calls_a_lost_one_a_bad_request(
    connect: Connect,
) -> None:
    legacy = Legacy()
    legacy.says_lost = ("400 Bad Request", NO_SESSION)
    async with connect(Liar(legacy, discovered=None)) as transport:
        await transport.call(build_intent("echo"), None)
        legacy.lost = True
        with pytest.raises(UpstreamError) as caught:
            await transport.call(build_intent("echo"), None)
        assert (caught.value.delivery, legacy.heard.count("tools/call")) == ("sent", 2)
        await transport.call(build_intent("echo"), None)
        assert legacy.sessions == 2


@pytest.mark.parametrize("says", [("404 Not Found", b""), ("400 Bad Request", NO_SESSION)])
async def test_a_listing_survives_a_lost_session(connect: Connect, says: tuple[str, bytes]) -> None:
    legacy = Legacy()
    legacy.says_lost = says
    async with connect(Liar(legacy, discovered=None)) as transport:
        await transport.start()
        legacy.lost = True
        assert await transport.list_tools() == [b'{"name": "echo"}']


async def test_a_server_that_comes_back_in_an_older_era_is_listed_in_that_one(
    connect: Connect,
) -> None:
    legacy = Legacy()
    legacy.says_lost = ("400 Bad Request", NO_SESSION)
    legacy.lost = True  # it knows no session, and the gateway has none
    discovered: list[dict[str, Any]] = [DISCOVERED]

    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request.get("method") == "server/discover" and discovered:
            await reply.result(discovered.pop())
        else:
            await legacy(request, reply)

    async with connect(Liar(answer, discovered=None)) as transport:
        await transport.start()
        assert transport.protocol_version == "2026-07-28"
        assert await transport.list_tools() == [b'{"name": "echo"}']
        assert transport.protocol_version == "2025-06-18"


async def test_a_server_that_no_longer_speaks_the_version_is_asked_again(
    connect: Connect,
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        error = {"code": -32022, "message": "unsupported", "data": {"supported": []}}
        await reply.body(
            {"jsonrpc": "2.0", "id": reply.id, "error": error}, status="400 Bad Request"
        )

    async with connect(Liar(answer)) as transport:
        assert (await transport.call(build_intent("echo"), None)).is_error
        assert transport.protocol_version is None


@pytest.mark.parametrize(("session", "usable"), [("", True), ("s" * 9000, False), ("a b", False)])
async def test_a_session_id_that_is_none_is_not_kept(
    connect: Connect, session: str, *, usable: bool
) -> None:
    async def answer(request: dict[str, Any], reply: Reply) -> None:
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, **OK}
        body = {"jsonrpc": "2.0", "id": reply.id, "result": result}
        discovers = request["method"] == "server/discover"
        status = "400 Bad Request" if discovers else "200 OK"
        await reply.body(
            b"" if discovers else body, status=status, more=f"Mcp-Session-Id: {session}\r\n"
        )

    liar = Liar(answer, discovered=None)
    async with connect(liar) as transport:
        calls = [transport.call(build_intent("echo"), None)]
        (end,) = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(end, UpstreamResult) == usable
        assert isinstance(end, UpstreamError) == (not usable)
        assert not any("mcp-session-id" in headers for _, headers in liar.seen)


@pytest.mark.parametrize(
    "version", ['"1999-01-01"', "7", '{"a":1}'], ids=["ancient", "number", "object"]
)
async def test_a_server_of_an_unknown_version_is_not_used(connect: Connect, version: str) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        result = b'{"protocolVersion":%b}' % version.encode()
        await reply.body(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (reply.id, result))

    async with connect(Liar(answer, discovered=None)) as transport:
        with pytest.raises(UpstreamError, match="no version of MCP") as caught:
            await transport.call(build_intent("echo"), None)
    assert caught.value.delivery == "not_sent"


async def test_a_refused_handshake_is_told(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        error = {"code": -32603, "message": "no"}
        await reply.body({"jsonrpc": "2.0", "id": reply.id, "error": error})

    async with connect(Liar(answer, discovered=None)) as transport:
        with pytest.raises(UpstreamError, match="no version of MCP") as caught:
            await transport.start()
    assert caught.value.delivery == "not_sent"


async def test_many_first_calls_ask_for_the_era_once(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.result(OK)

    liar = Liar(answer)
    async with connect(liar) as transport:
        await asyncio.gather(*(transport.call(build_intent("echo"), None) for _ in range(5)))
    methods = [request["method"] for request, _ in liar.seen]
    assert methods == ["server/discover"] + ["tools/call"] * 5


async def test_who_waits_for_a_server_that_keeps_silent_waits_no_longer_than_the_first(
    connect: Connect,
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        """Keep silent."""

    liar = Liar(answer, discovered=None)
    async with connect(liar, limits=replace(LIMITS, upstream_timeout_ms=200)) as transport:
        calls = (transport.call(build_intent("echo"), None) for _ in range(5))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [request["method"] for request, _ in liar.seen] == ["server/discover", "initialize"]
        again = await asyncio.gather(
            transport.call(build_intent("echo"), None), return_exceptions=True
        )
        assert len(liar.seen) == 4  # the next one asks for itself
    told = [(end.code, end.delivery) for end in (*ends, *again) if isinstance(end, UpstreamError)]
    assert told == [("upstream_timeout", "not_sent")] * 6


async def test_who_gives_up_while_the_era_is_asked_for_takes_it_from_nobody(
    connect: Connect,
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request["method"] == "server/discover":
            asked.set()
            await may_answer.wait()
        await reply.result(DISCOVERED if request["method"] == "server/discover" else OK)

    liar = Liar(answer, discovered=None)
    async with connect(liar) as transport:
        impatient = asyncio.create_task(transport.list_tools())
        patient = asyncio.create_task(transport.call(build_intent("echo"), None))
        await asked.wait()
        impatient.cancel()
        may_answer.set()
        assert orjson.loads((await patient).result or b"") == OK
    assert [request["method"] for request, _ in liar.seen] == ["server/discover", "tools/call"]


async def test_a_close_while_the_era_is_asked_for_ends_who_waits(connect: Connect) -> None:
    asked = asyncio.Event()

    async def answer(_: dict[str, Any], reply: Reply) -> None:
        asked.set()

    async with connect(Liar(answer, discovered=None)) as transport:
        call = asyncio.create_task(transport.call(build_intent("echo"), None))
        await asked.wait()
        await transport.close()
        with pytest.raises(UpstreamError) as caught:
            await call
    assert caught.value.delivery == "not_sent"


@pytest.mark.parametrize(
    "discovered", [{"supportedVersions": ["2025-11-25"]}, {"supportedVersions": 1}, {}]
)
async def test_what_does_not_offer_the_modern_version_is_asked_the_older_way(
    connect: Connect, discovered: dict[str, Any]
) -> None:
    legacy = Legacy()
    async with connect(Liar(legacy, discovered=discovered)) as transport:
        await transport.start()
        assert transport.protocol_version == "2025-06-18"


async def test_a_server_that_is_ill_is_not_taken_for_an_older_one(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.body(b"", status="503 Service Unavailable")

    liar = Liar(answer, discovered=None)
    async with connect(liar) as transport:
        with pytest.raises(UpstreamError) as caught:
            await transport.call(build_intent("echo"), None)
    assert caught.value.delivery == "not_sent"
    assert len(liar.seen) == 1


# Listings


@pytest.mark.parametrize(
    "page",
    [
        {"tools": [], "nextCursor": "same"},
        {"tools": 1},
        {},
    ],
)
async def test_a_listing_that_is_none_or_never_ends_is_refused(
    connect: Connect, page: dict[str, Any]
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.result(page)

    async with connect(Liar(answer)) as transport:
        with pytest.raises(UpstreamError, match="list of tools"):
            await transport.list_tools()


async def test_a_listing_may_have_pages(connect: Connect) -> None:
    async def answer(request: dict[str, Any], reply: Reply) -> None:
        if request["params"].get("cursor") == "two":
            await reply.result({"tools": [{"name": "b"}]})
        else:
            await reply.result({"tools": [{"name": "a"}], "nextCursor": "two"})

    async with connect(Liar(answer)) as transport:
        assert await transport.list_tools() == [b'{"name": "a"}', b'{"name": "b"}']


async def test_a_listing_whose_pages_come_slowly_takes_no_longer_than_a_call(
    connect: Connect,
) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await asyncio.sleep(0.1)  # a slow server
        await reply.result({"tools": [], "nextCursor": str(len(liar.seen))})

    liar = Liar(answer)
    async with connect(liar, limits=replace(LIMITS, upstream_timeout_ms=400)) as transport:
        with pytest.raises(UpstreamError, match="did not list its tools in time") as caught:
            await transport.list_tools()
    assert caught.value.code == "upstream_timeout"
    assert len(liar.seen) < 10


async def test_a_cursor_that_is_no_text_ends_the_listing(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        page = b'{"tools":[{"name":"a"}],"nextCursor":1e400}'
        await reply.body(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (reply.id, page))

    async with connect(Liar(answer)) as transport:
        assert await transport.list_tools() == [b'{"name":"a"}']


async def test_a_refused_listing_is_an_error(connect: Connect) -> None:
    async def answer(_: dict[str, Any], reply: Reply) -> None:
        await reply.body({"jsonrpc": "2.0", "id": reply.id, "error": {"code": -1, "message": ""}})

    async with connect(Liar(answer)) as transport:
        with pytest.raises(UpstreamError, match="refused to list"):
            await transport.list_tools()
