"""Agents over MCP: the official client, a real gateway, servers of the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
import pytest
from mcp import types
from mcp.shared.exceptions import MCPError

from tests.integration.mcp.conftest import PATIENCE_S, Governed

pytestmark = [
    pytest.mark.req("GW-06"),
    pytest.mark.network,
    pytest.mark.asyncio(loop_scope="module"),
    # The notifications under test are deprecated in 2026-07-28 and part of both wires.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

both_wires = pytest.mark.parametrize("mode", ["auto", "legacy"])
both_upstreams = pytest.mark.parametrize("server", ["modern", "legacy"])
BOTH_ACCEPTED = "application/json, text/event-stream"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def text_of(result: types.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    return block.text


@both_wires
async def test_the_official_client_agrees_on_the_newest_wire_that_both_speak(
    governed: Governed, mode: str
) -> None:
    async with governed.client(mode) as client:
        spoken = {"auto": "2026-07-28", "legacy": "2025-11-25"}
        assert client.session.protocol_version == spoken[mode]


@both_wires
async def test_tools_are_listed_under_wire_names(governed: Governed, mode: str) -> None:
    async with governed.client(mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
    tools = ("echo", "slow", "talk")
    own = [f"{server}__{tool}" for server in ("legacy", "modern") for tool in tools]
    assert names == [*own, "countersign_approval_status"]


@both_wires
@both_upstreams
async def test_a_call_reaches_the_tool_and_both_records_are_in_the_log(
    governed: Governed, mode: str, server: str
) -> None:
    async with governed.client(mode) as client:
        result = await client.call_tool(f"{server}__echo", {"value": "grüße"})
    assert (text_of(result), result.is_error) == ("grüße", False)
    intent, outcome = governed.records("call.intent")[-1], governed.records("call.outcome")[-1]
    assert intent["op"] == outcome["op"]
    assert (outcome["status"], outcome["delivery"]) == ("ok", "sent")


@both_wires
async def test_one_server_is_served_alone_under_bare_names(governed: Governed, mode: str) -> None:
    async with governed.client(mode, "/mcp/modern") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == ["echo", "slow", "talk", "countersign_approval_status"]
        assert text_of(await client.call_tool("echo", {"value": "bare"})) == "bare"
        with pytest.raises(MCPError, match="no such tool"):
            await client.call_tool("modern__echo", {"value": "not here"})


@both_wires
@both_upstreams
async def test_progress_and_log_messages_arrive_before_the_result(
    governed: Governed, mode: str, server: str
) -> None:
    heard: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(f"{message}: {progress:g} of {total:g}")

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(f"{params.level}: {params.data}")

    async with governed.client(mode, logging_callback=on_log, log_level="info") as client:
        result = await client.call_tool(f"{server}__talk", {}, progress_callback=on_progress)
        assert text_of(result) == "done talking"
        await governed.until(lambda: len(heard) == 4)
    assert sorted(heard) == [
        "info: line 1",
        "info: line 2",
        "step 1: 1 of 2",
        "step 2: 2 of 2",
    ]


@both_upstreams
async def test_a_session_hears_nothing_below_the_level_that_it_set(
    governed: Governed, server: str
) -> None:
    heard: list[object] = []

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params.data)

    async with governed.client("legacy", logging_callback=on_log) as client:
        await client.set_logging_level("error")
        assert text_of(await client.call_tool(f"{server}__talk", {})) == "done talking"
        await client.set_logging_level("debug")
        await client.call_tool(f"{server}__talk", {})
        await governed.until(lambda: len(heard) == 2)
    assert heard == ["line 1", "line 2"]


@both_upstreams
async def test_without_a_level_the_stateless_wire_hears_no_log_messages(
    governed: Governed, server: str
) -> None:
    reply = await post(governed, stateless_call(f"{server}__talk"), {"Mcp-Name": f"{server}__talk"})
    assert b"notifications/message" not in reply.content
    assert orjson.loads(reply.content)["result"]["content"][0]["text"] == "done talking"


@both_wires
async def test_an_unknown_tool_is_a_protocol_error(governed: Governed, mode: str) -> None:
    async with governed.client(mode) as client:
        with pytest.raises(MCPError, match="no such tool") as caught:
            await client.call_tool("modern__nothing", {})
    assert caught.value.error.code == -32602
    assert governed.records("call.refused")[-1]["reason"] == "tool_unknown"


@both_wires
async def test_arguments_that_break_the_schema_are_told_as_a_result(
    governed: Governed, mode: str
) -> None:
    before = len(governed.records("call.intent"))
    async with governed.client(mode) as client:
        result = await client.call_tool("modern__echo", {"value": "x", "extra": 1})
    assert result.is_error
    assert "arguments_invalid" in text_of(result)
    assert len(governed.records("call.intent")) == before


@pytest.mark.parametrize("server", ["modern", "legacy"])
async def test_a_marked_argument_travels_in_its_header(governed: Governed, server: str) -> None:
    async with governed.client("auto") as client:
        await client.list_tools()
        arguments = {"value": "marked", "region": "münchen"}
        assert text_of(await client.call_tool(f"{server}__echo", arguments)) == "marked"


@pytest.mark.parametrize("sent", [{}, {"Mcp-Param-Region": "berlin"}])
async def test_a_header_that_contradicts_its_argument_is_refused_before_policy(
    governed: Governed, sent: dict[str, str]
) -> None:
    before = len(governed.records("call.intent"))
    call = stateless_call("modern__echo", {"region": "lyon"})
    reply = await post(governed, call, {"Mcp-Name": "modern__echo", **sent})
    assert reply.status_code == 400
    assert orjson.loads(reply.content)["error"]["code"] == -32020
    assert governed.records("call.refused")[-1]["reason"] == "header_mismatch"
    assert len(governed.records("call.intent")) == before


async def test_headers_tell_nobody_of_a_tool_that_is_hidden_from_them(governed: Governed) -> None:
    replies = []
    for name in ("modern__echo", "modern__nothing"):
        call = stateless_call(name, {"region": "lyon"})
        headers = {"Mcp-Name": name, "Mcp-Param-Region": "berlin", **governed.narrow_headers}
        replies.append(await post(governed, call, headers))
    hidden, missing = (orjson.loads(reply.content) for reply in replies)
    ops = {body["error"]["data"]["countersign/refusal"].pop("op") for body in (hidden, missing)}
    assert len(ops) == 2
    assert hidden == missing
    assert {reply.status_code for reply in replies} == {400}
    assert hidden["error"]["code"] == -32602


@both_wires
@both_upstreams
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_hangs_up_leaves_an_intent_with_its_outcome(
    governed: Governed, mode: str, server: str, *, streaming: bool
) -> None:
    upstreams, before = governed.upstreams, len(governed.records("call.outcome"))
    upstreams.entered.clear()
    upstreams.gate.clear()
    async with calling(governed, mode, f"{server}__slow", streaming=streaming) as reader:
        assert await asyncio.to_thread(upstreams.entered.wait, PATIENCE_S)
        if streaming:  # the answer has begun
            await asyncio.wait_for(reader.readuntil(b"notifications/progress"), PATIENCE_S)
    intent = governed.records("call.intent")[-1]
    assert len(governed.records("call.outcome")) == before
    upstreams.gate.set()
    await governed.until(lambda: len(governed.records("call.outcome")) > before)
    (outcome,) = governed.records("call.outcome")[before:]
    assert outcome["op"] == intent["op"]
    assert (outcome["status"], outcome["delivery"]) == ("ok", "sent")


def stateless_call(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments or {}, "_meta": META}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def stateless_headers(governed: Governed) -> dict[str, str]:
    return {
        **governed.headers,
        "Content-Type": "application/json",
        "Accept": BOTH_ACCEPTED,
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
    }


async def post(
    governed: Governed, message: dict[str, Any], headers: dict[str, str]
) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as http:
        return await http.post(
            f"{governed.url}/mcp",
            content=orjson.dumps(message),
            headers={**stateless_headers(governed), **headers},
        )


async def open_session(governed: Governed) -> dict[str, str]:
    """Initialize on the 2025 wire; return the headers of the session's requests."""
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    headers = {
        **governed.headers,
        "Content-Type": "application/json",
        "Accept": BOTH_ACCEPTED,
        "MCP-Protocol-Version": "2025-11-25",
    }
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as http:
        reply = await http.post(
            f"{governed.url}/mcp", content=orjson.dumps(message), headers=headers
        )
    return {**headers, "Mcp-Session-Id": reply.headers["mcp-session-id"]}


@asynccontextmanager
async def calling(
    governed: Governed, mode: str, tool: str, *, streaming: bool
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a call over a bare connection, which breaks when the block ends."""
    message = stateless_call(tool)
    headers = {**stateless_headers(governed), "Mcp-Name": tool}
    if mode == "legacy":
        message["params"]["_meta"] = {}
        headers = await open_session(governed)
    if streaming:
        message["params"]["_meta"] = {**message["params"]["_meta"], "progressToken": "mine"}
    body = orjson.dumps(message)
    address = governed.url.removeprefix("http://")
    lines = {"Host": address, **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"POST /mcp HTTP/1.1\r\n" + head.encode() + b"\r\n" + body)
        await writer.drain()
        yield reader
    finally:
        writer.transport.abort()
