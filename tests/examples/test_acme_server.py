"""The example back office, spoken to by the official client over real HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jsonschema_rs
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import LoggingMessageNotificationParams, RequestParamsMeta, TextContent
from ruamel.yaml import YAML

from examples.acme.server import OPERATION_ID

Mode = Literal["2026-07-28", "legacy"]
MODES: list[Mode] = ["2026-07-28", "legacy"]

if TYPE_CHECKING:
    from mcp.types import CallToolResult

    from tests.examples.conftest import Acme

pytestmark = [pytest.mark.network, pytest.mark.req("GW-15")]

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "examples" / "acme" / "manifests"


def rows(acme: Acme, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(acme.database)) as connection:
        return connection.execute(sql, values).fetchall()


def structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def operation(name: str) -> RequestParamsMeta:
    meta: RequestParamsMeta = {}
    meta[OPERATION_ID] = name  # type: ignore[literal-required] # an open map, says the SDK
    return meta


def refusal(result: CallToolResult) -> str:
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@pytest.mark.parametrize("mode", MODES)
async def test_every_tool_is_listed_with_both_schemas_on_both_wires(acme: Acme, mode: Mode) -> None:
    async with Client(acme.url, mode=mode) as client:
        listed = (await client.list_tools()).tools
    for tool in listed:
        assert tool.description
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            jsonschema_rs.meta.validate(schema)


async def test_the_manifest_names_each_tool_and_points_at_real_arguments(acme: Acme) -> None:
    manifest = YAML(typ="safe").load(MANIFESTS / "acme.yaml")
    reviewed = {tool["name"]: tool for tool in manifest["tools"]}
    async with Client(acme.url) as client:
        offered = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert reviewed.keys() == offered.keys()
    for name, review in reviewed.items():
        known = offered[name].input_schema["properties"]
        for pointer in [p for key in ("sinks", "sums", "sensitive") for p in review.get(key, [])]:
            assert pointer.removeprefix("/") in known, (name, pointer)


async def test_the_manifest_tells_where_the_operation_id_lands(acme: Acme) -> None:
    manifest = YAML(typ="safe").load(MANIFESTS / "acme.yaml")
    places = [tool["operation_id_at"] for tool in manifest["tools"] if "operation_id_at" in tool]
    assert places
    for place in places:
        table, _, column = place.partition(".")
        assert rows(acme, "SELECT 1 FROM pragma_table_info(?) WHERE name = ?", table, column)


async def test_a_search_and_an_order_come_as_structured_content(acme: Acme) -> None:
    async with Client(acme.url) as client:
        found = structured(await client.call_tool("customers_search", {"query": "keller"}))
        order = structured(await client.call_tool("orders_get", {"order_id": "ord_5002"}))
    assert [customer["id"] for customer in found["customers"]] == ["cus_1001"]
    assert order["total_cents"] == order["refundable_cents"] == 42000
    assert [line["sku"] for line in order["lines"]] == ["MAT-S", "TENT-2P"]


async def test_a_list_is_filtered_and_newest_first(acme: Acme) -> None:
    asked = {"customer_id": "cus_1005", "limit": 5}
    async with Client(acme.url) as client:
        listed = structured(await client.call_tool("orders_list", asked))
    assert [order["id"] for order in listed["orders"]] == ["ord_5007", "ord_5006"]


async def test_a_refund_writes_one_row_with_the_operation_id(acme: Acme) -> None:
    asked = {"order_id": "ord_5001", "amount_cents": 2500, "reason": "late"}
    async with Client(acme.url) as client:
        paid = structured(await client.call_tool("refunds_create", asked, meta=operation("op-1")))
    assert (paid["refundable_cents"], paid["replayed"]) == (6490, False)
    assert rows(
        acme, "SELECT amount_cents, operation_id FROM refunds WHERE order_id='ord_5001'"
    ) == [(2500, "op-1")]


async def test_a_refund_repeated_under_its_key_pays_once(acme: Acme) -> None:
    asked = {"order_id": "ord_5003", "amount_cents": 900, "reason": "damaged"}
    keyed = {**asked, "idempotency_key": "ticket-4711"}
    async with Client(acme.url) as client:
        first = structured(await client.call_tool("refunds_create", keyed))
        again = structured(await client.call_tool("refunds_create", keyed))
        other = await client.call_tool("refunds_create", {**keyed, "amount_cents": 901})
    assert first["refund_id"] == again["refund_id"]
    assert again["replayed"] is True
    assert "another refund" in refusal(other)
    assert rows(acme, "SELECT count(*) FROM refunds WHERE order_id = 'ord_5003'") == [(1,)]


async def test_a_gateways_operation_id_alone_makes_a_call_happen_once(acme: Acme) -> None:
    asked = {"to": "support@acme.example", "subject": "hello", "body": "twice asked, once sent"}
    async with Client(acme.url) as client:
        sent = [
            structured(await client.call_tool("email_send", asked, meta=operation("op-mail")))
            for _ in range(2)
        ]
    assert [mail["replayed"] for mail in sent] == [False, True]
    assert rows(acme, "SELECT recipient FROM email_outbox WHERE operation_id = 'op-mail'") == [
        ("support@acme.example",)
    ]


async def test_refunds_in_a_race_never_exceed_the_order(acme: Acme) -> None:
    asked = {"order_id": "ord_5007", "amount_cents": 1000, "reason": "goodwill"}
    async with Client(acme.url) as client:
        results = await asyncio.gather(
            *(client.call_tool("refunds_create", asked) for _ in range(6))
        )
    assert sum(not result.is_error for result in results) == 3
    assert rows(acme, "SELECT sum(amount_cents) FROM refunds WHERE order_id='ord_5007'") == [
        (3000,)
    ]


async def test_what_the_shop_does_not_do_is_said_and_not_done(acme: Acme) -> None:
    refund = {"order_id": "ord_5004", "amount_cents": 6450, "reason": "goodwill"}
    async with Client(acme.url) as client:
        too_much = refusal(await client.call_tool("refunds_create", refund))
        unknown = refusal(
            await client.call_tool("refunds_create", {**refund, "order_id": "ord_9999"})
        )
        shipped = refusal(
            await client.call_tool("orders_cancel", {"order_id": "ord_5008", "reason": "too late"})
        )
        nobody = refusal(
            await client.call_tool("notes_add", {"customer_id": "cus_9999", "body": "?"})
        )
    assert "5000 cents left" in too_much
    assert "no order `ord_9999`" in unknown
    assert "already shipped" in shipped
    assert "no customer `cus_9999`" in nobody


async def test_an_order_is_cancelled_once_and_stays_so(acme: Acme) -> None:
    asked = {"order_id": "ord_5005", "reason": "ordered twice"}
    async with Client(acme.url) as client:
        for _ in range(2):
            assert (
                structured(await client.call_tool("orders_cancel", asked))["status"] == "cancelled"
            )
    assert rows(acme, "SELECT cancel_reason FROM orders WHERE id = 'ord_5005'") == [
        ("ordered twice",)
    ]


async def test_a_note_is_read_back_with_the_file(acme: Acme) -> None:
    async with Client(acme.url) as client:
        await client.call_tool("notes_add", {"customer_id": "cus_1002", "body": "called back"})
        file = structured(await client.call_tool("customers_get", {"customer_id": "cus_1002"}))
    assert [note["body"] for note in file["notes"]] == ["called back"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_report_sends_progress_and_log_messages(acme: Acme, mode: Mode) -> None:
    steps: list[tuple[float, float | None]] = []
    logged: list[object] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, total))

    async def on_log(params: LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    async with Client(acme.url, mode=mode, logging_callback=on_log, log_level="info") as client:
        report = structured(
            await client.call_tool(
                "reports_export", {"month": "2026-10"}, progress_callback=on_progress
            )
        )
    assert report["rows"] == 1
    assert steps == [(1, 1)]
    assert logged == ["exporting 1 orders of 2026-10", "export complete"]


async def test_the_same_server_speaks_over_stdio(tmp_path: Path) -> None:
    process = StdioServerParameters(
        command=sys.executable,
        args=["-m", "examples.acme.server", "--stdio", "--db", str(tmp_path / "shop.db")],
        cwd=ROOT,
    )
    async with Client(stdio_client(process)) as client:
        order = structured(await client.call_tool("orders_get", {"order_id": "ord_5001"}))
    assert order["status"] == "delivered"
