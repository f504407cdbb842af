"""What every transport promises, be the server in memory, behind HTTP or a child process."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from connectors.http_pool import HttpPool
from connectors.mcp_http import McpHttpTransport
from connectors.mcp_stdio import McpStdioTransport
from connectors.memory import MemoryTransport, build_text_result
from gateway.core.calls.call import Relay, UpstreamResult
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from tests.integration.connectors.servers import build_sdk_server, legacy_only, serve
from tests.unit.connectors.calls import HandClock, build_intent

SERVER = Path(__file__).parents[1] / "integration" / "connectors" / "plain_server.py"
Transport = MemoryTransport | McpHttpTransport | McpStdioTransport

pytestmark = [pytest.mark.network, pytest.mark.req("GW-09")]


def memory() -> MemoryTransport:
    def echo(arguments: dict[str, Any], _: Relay | None) -> str:
        return orjson.dumps({"arguments": arguments}).decode()

    async def progress(_: dict[str, Any], relay: Relay | None) -> str:
        if relay is not None:
            relay(
                b'{"jsonrpc":"2.0","method":"notifications/progress",'
                b'"params":{"progressToken":7,"progress":1,"total":2}}'
            )
        return "done"

    def fail(_: dict[str, Any], __: Relay | None) -> UpstreamResult:
        return build_text_result("it failed", is_error=True)

    return MemoryTransport("srv", {"echo": echo, "fail": fail, "progress": progress})


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """The official SDK's server in every way in which it can be met."""
    with ExitStack() as stack:
        apps: dict[str, Any] = {
            "http-modern": build_sdk_server().streamable_http_app(),
            "http-legacy": legacy_only(build_sdk_server().streamable_http_app()),
            "http-stateless": legacy_only(
                build_sdk_server().streamable_http_app(stateless_http=True)
            ),
        }
        yield {name: stack.enter_context(serve(app)) + "/mcp" for name, app in apps.items()}


@pytest.fixture(params=["memory", "http-modern", "http-legacy", "http-stateless", "stdio"])
async def transport(
    request: pytest.FixtureRequest, urls: dict[str, str]
) -> AsyncIterator[Transport]:
    async with HttpPool() as pool:
        made: Transport
        if request.param == "memory":
            made = memory()
        elif request.param == "stdio":
            command = [sys.executable, "-S", str(SERVER)]
            made = McpStdioTransport("srv", command, limits=Limits(), clock=HandClock())
        else:
            made = McpHttpTransport("srv", urls[request.param], limits=Limits(), pool=pool)
        await made.start()
        yield made
        await made.close()


@pytest.fixture(params=["memory", "http", "stdio"])
async def unreachable(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    async with HttpPool() as pool:
        if request.param == "memory":
            closed = memory()
            await closed.close()
            yield closed
        elif request.param == "stdio":
            yield McpStdioTransport(
                "srv", ["/nonexistent/server"], limits=Limits(), clock=HandClock()
            )
        else:
            with socket.create_server(("127.0.0.1", 0)) as nobody:
                url = f"http://127.0.0.1:{nobody.getsockname()[1]}/mcp"
            yield McpHttpTransport("srv", url, limits=Limits(), pool=pool)


async def test_a_call_returns_what_the_tool_answered(transport: Transport) -> None:
    answer = await transport.call(build_intent("echo", {"value": "grüß dich"}), None)
    assert answer.error is None
    assert not answer.is_error
    assert answer.result is not None
    text = orjson.loads(answer.result)["content"][0]["text"]
    assert orjson.loads(text)["arguments"] == {"value": "grüß dich"}


@pytest.mark.req("TOK-06")
async def test_a_call_that_was_stopped_meanwhile_is_not_sent(transport: Transport) -> None:
    recorded = build_intent("echo")
    stopped = replace(recorded, intent=replace(recorded.intent, find_stop=lambda: "killed"))
    with pytest.raises(UpstreamError) as caught:
        await transport.call(stopped, None)
    assert (caught.value.code, caught.value.delivery) == ("killed", "not_sent")


@pytest.mark.req("TOK-06")
async def test_a_call_that_is_stopped_while_a_connection_is_made_is_not_sent(
    urls: dict[str, str],
) -> None:
    pool = HttpPool()
    transport = McpHttpTransport("srv", urls["http-modern"], limits=Limits(), pool=pool)
    recorded = build_intent("echo")
    await transport.call(recorded, None)
    await pool.close()  # the next call has to connect anew
    said = iter([None, "killed"])
    stopped = replace(recorded, intent=replace(recorded.intent, find_stop=lambda: next(said)))
    with pytest.raises(UpstreamError) as caught:
        await transport.call(stopped, None)
    assert (caught.value.code, caught.value.delivery) == ("killed", "not_sent")
    await transport.close()
    await pool.close()


async def test_an_error_of_the_tool_is_a_result(transport: Transport) -> None:
    answer = await transport.call(build_intent("fail"), None)
    assert answer.error is None
    assert answer.is_error


async def test_an_unknown_tool_is_answered_not_raised(transport: Transport) -> None:
    answer = await transport.call(build_intent("nonesuch"), None)
    assert answer.is_error


async def test_every_definition_is_listed(transport: Transport) -> None:
    names = {orjson.loads(raw)["name"] for raw in await transport.list_tools()}
    assert {"echo", "fail", "progress"} <= names


async def test_calls_at_the_same_time_get_their_own_answers(transport: Transport) -> None:
    intents = [build_intent("echo", {"value": f"v{n}"}, op=f"{n:032x}") for n in range(20)]
    answers = await asyncio.gather(*(transport.call(intent, None) for intent in intents))
    texts = [orjson.loads(answer.result or b"")["content"][0]["text"] for answer in answers]
    assert [orjson.loads(text)["arguments"]["value"] for text in texts] == [
        f"v{n}" for n in range(20)
    ]


async def test_progress_comes_with_the_agents_own_token(transport: Transport) -> None:
    heard: list[bytes] = []
    await transport.call(build_intent("progress", progress_token=7), heard.append)
    progress = [orjson.loads(line) for line in heard if b"notifications/progress" in line]
    assert [message["params"]["progressToken"] for message in progress] == [7]
    assert progress[0]["params"]["progress"] == 1


async def test_without_a_relay_progress_is_dropped(transport: Transport) -> None:
    answer = await transport.call(build_intent("progress", progress_token=7), None)
    assert not answer.is_error


async def test_a_call_to_a_server_that_is_away_is_not_sent(unreachable: Transport) -> None:
    with pytest.raises(UpstreamError) as caught:
        await unreachable.call(build_intent("echo"), None)
    assert caught.value.delivery == "not_sent"
    assert caught.value.retryable


async def test_a_server_that_is_away_cannot_be_listed(unreachable: Transport) -> None:
    with pytest.raises(UpstreamError):
        await unreachable.list_tools()
    await unreachable.close()
