"""The official MCP client, on both wires, through a served gateway (GW-06)."""

from __future__ import annotations

from typing import Any, Literal

import httpx2
import orjson
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.conftest import Acme
from tests.e2e.served import Served

pytestmark = pytest.mark.req("GW-06")

Mode = Literal["auto", "legacy"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_calls_and_hears_progress(
    house: Served, acme: Acme, mode: Mode
) -> None:
    agent, before = house.agent(), acme.rows("notes")
    heard: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total))

    async with (
        httpx2.AsyncClient(headers=agent.auth, trust_env=False) as http,
        Client(
            streamable_http_client(house.site.url + "/mcp", http_client=http), mode=mode
        ) as client,
    ):
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == agent.list_names()
        note = {"customer_id": "cus_1001", "body": "canary"}
        written = await client.call_tool("acme__notes_add", note)
        assert not written.is_error
        report: Any = await client.call_tool(
            "acme__reports_export", {"month": "2026-10"}, progress_callback=hear
        )
        assert report.structured_content["rows"] == len(heard) == 1
        denied = await client.call_tool("stub__forbidden", {})
        assert denied.is_error
        held = await client.call_tool("stub__transfer", {"to": "canary", "amount": 3})
        assert held.structured_content is not None
        assert held.structured_content["status"] == "pending_approval"
    assert acme.rows("notes") == before + 1


@pytest.mark.req("POL-01")
async def test_the_official_client_takes_a_result_that_policy_made_unlike_what_its_tool_promises(
    house: Served,
) -> None:
    async with (
        httpx2.AsyncClient(headers=house.agent().auth, trust_env=False) as http,
        Client(streamable_http_client(house.site.url + "/mcp", http_client=http)) as client,
    ):
        await client.list_tools()
        whole: Any = await client.call_tool("acme__reports_export", {"month": "2026-10"})
        assert whole.structured_content["revenue_cents"] > 0
        changed: Any = await client.call_tool("acme__reports_export", {"month": "2026-09"})
        note, report = (block.text for block in changed.content)
        assert "carried out; do not repeat it" in note
        told = orjson.loads(report)
        assert (told["month"], told["revenue_cents"]) == ("2026-09", "[redacted]")
        assert changed.meta["countersign/changed"] == told
        assert changed.is_error
        assert changed.structured_content is None


async def test_one_server_is_served_under_its_bare_names(house: Served) -> None:
    agent = house.agent()
    names = agent.list_names("/mcp/stub")
    assert {"echo", "transfer"} <= names
    assert not any("__" in name for name in names)
    assert agent.list_names("/mcp/nobody") == {"countersign_approval_status"}
