"""Acme's back office over MCP, written with the official SDK; it knows nothing of any gateway.

    python -m examples.acme.server --db shop.db --port 0 --ready-file ready   # streamable HTTP
    python -m examples.acme.server --db shop.db --stdio

HTTP is stateless and on loopback only. Under MCP 2026-07-28 a reply is plain JSON unless the tool
reports progress, then it is an event stream; under 2025-11-25 it is always an event stream.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import ToolAnnotations
from pydantic import Field

from examples.acme.records import (
    CustomerFile,
    CustomerMatches,
    Email,
    NoteAdded,
    Order,
    OrderList,
    OrderStatus,
    OrderSummary,
    Refund,
    RefundReason,
    Report,
)
from examples.acme.store import Refused, Store, Trace, create_database

OPERATION_ID = "io.countersign/operation_id"
"""The `_meta` member in which a gateway names the operation; kept beside each row."""

REPORT_STEP_S = 0.1
"""How long one order takes in `reports_export`: long enough to watch the progress."""

CustomerId = Annotated[str, Field(pattern=r"^cus_[0-9]{4}$", description="For example cus_1001")]
OrderId = Annotated[str, Field(pattern=r"^ord_[0-9]{4}$", description="For example ord_5001")]
Limit = Annotated[int, Field(ge=1, le=100, description="At most this many")]
Key = Annotated[
    str | None,
    Field(
        min_length=8,
        max_length=64,
        description="Same key, same effect: a repeated call answers with the first one's result",
    ),
]
Address = Annotated[
    str, Field(pattern=r"^[^@\s,;<>]+@[a-z0-9.-]+$", max_length=254, description="One recipient")
]

READ = ToolAnnotations(read_only_hint=True, open_world_hint=False)
WRITE = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
ONE_WAY = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
OUTWARD = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True)


def build_server(store: Store) -> MCPServer:
    """Return the server over `store`, with every tool registered."""
    server = MCPServer(
        name="acme-backoffice",
        version="1.0.0",
        log_level="WARNING",
        instructions="Customers, orders, refunds and mail of Acme Outfitters. Money is euro cents.",
    )
    _add_reading_tools(server, store)
    _add_order_tools(server, store)
    _add_contact_tools(server, store)
    _add_report_tool(server, store)
    return server


def _add_reading_tools(server: MCPServer, store: Store) -> None:
    @server.tool(annotations=READ)
    def customers_search(
        query: Annotated[str, Field(min_length=2, max_length=100)], limit: Limit = 10
    ) -> CustomerMatches:
        """Find customers by a part of their name, company or e-mail address."""
        return store.search_customers(query, limit)

    @server.tool(annotations=READ)
    def customers_get(customer_id: CustomerId) -> CustomerFile:
        """Read one customer with the notes on file."""
        with _shop_rules():
            return store.customer_file(customer_id)

    @server.tool(annotations=READ)
    def orders_get(order_id: OrderId) -> Order:
        """Read one order with its lines and what is left to refund."""
        with _shop_rules():
            return store.order(order_id)

    @server.tool(annotations=READ)
    def orders_list(
        customer_id: CustomerId | None = None,
        status: OrderStatus | None = None,
        limit: Limit = 20,
    ) -> OrderList:
        """List orders, newest first, of one customer or of all."""
        return store.orders(customer_id, status, limit)


def _add_order_tools(server: MCPServer, store: Store) -> None:
    @server.tool(annotations=ONE_WAY)
    def refunds_create(
        order_id: OrderId,
        amount_cents: Annotated[int, Field(gt=0, le=10_000_000, description="Euro cents")],
        reason: RefundReason,
        ctx: Context,
        idempotency_key: Key = None,
    ) -> Refund:
        """Pay money back to the customer of an order. Never more than is left of its total."""
        with _shop_rules():
            return store.create_refund(order_id, amount_cents, reason, _trace(ctx, idempotency_key))

    @server.tool(annotations=ONE_WAY)
    def orders_cancel(
        order_id: OrderId, reason: Annotated[str, Field(min_length=3, max_length=200)]
    ) -> Order:
        """Cancel an order that is paid but not shipped. It does not refund."""
        with _shop_rules():
            return store.cancel_order(order_id, reason)


def _add_contact_tools(server: MCPServer, store: Store) -> None:
    @server.tool(annotations=OUTWARD)
    def email_send(
        to: Address,
        subject: Annotated[str, Field(min_length=1, max_length=200)],
        body: Annotated[str, Field(min_length=1, max_length=20_000)],
        ctx: Context,
        idempotency_key: Key = None,
    ) -> Email:
        """Send a plain-text mail in the name of Acme Outfitters. It cannot be called back."""
        with _shop_rules():
            return store.queue_email(to, subject, body, _trace(ctx, idempotency_key))

    @server.tool(annotations=WRITE)
    def notes_add(
        customer_id: CustomerId,
        body: Annotated[str, Field(min_length=1, max_length=2_000)],
        ctx: Context,
    ) -> NoteAdded:
        """Add a note to a customer's file, for whoever reads it next."""
        with _shop_rules():
            return store.add_note(customer_id, body, _trace(ctx, None))


def _add_report_tool(server: MCPServer, store: Store) -> None:
    @server.tool(annotations=READ)
    async def reports_export(
        month: Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")], ctx: Context
    ) -> Report:
        """Export a month of orders as CSV. Slow; reports progress per order."""
        orders = await asyncio.to_thread(store.orders_of_month, month)
        await ctx.info(f"exporting {len(orders)} orders of {month}")
        for done, order in enumerate(orders, start=1):
            await asyncio.sleep(REPORT_STEP_S)
            await ctx.report_progress(done, len(orders), order.id)
        await ctx.info("export complete")
        return _report(month, orders)


def _report(month: str, orders: list[OrderSummary]) -> Report:
    lines = ["order,customer,status,total_cents,refundable_cents"]
    lines += [
        f"{o.id},{o.customer_id},{o.status},{o.total_cents},{o.refundable_cents}" for o in orders
    ]
    return Report(
        month=month,
        rows=len(orders),
        revenue_cents=sum(o.total_cents for o in orders if o.status != "cancelled"),
        refunded_cents=sum(o.total_cents - o.refundable_cents for o in orders),
        csv="\r\n".join(lines) + "\r\n",
    )


@contextmanager
def _shop_rules() -> Iterator[None]:
    """Tell the caller what the shop refuses; a fault stays a fault, and its text stays here."""
    try:
        yield
    except Refused as refusal:
        raise ToolError(str(refusal)) from refusal


def _trace(ctx: Context, key: str | None) -> Trace:
    operation = (ctx.request_context.meta or {}).get(OPERATION_ID)
    return Trace(key=key, operation_id=operation if isinstance(operation, str) else None)


async def serve_http(server: MCPServer, port: int, ready_file: Path | None) -> None:
    """Serve `/mcp` on loopback until told to stop; `ready_file` gets the URL once it listens."""
    listener = socket.create_server(("127.0.0.1", port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    app = server.streamable_http_app(stateless_http=True)
    http = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    if ready_file is not None:
        # Connections queue from here on, so the file may say so before the first is accepted.
        partial = ready_file.with_name(ready_file.name + ".partial")
        partial.write_text(url, encoding="utf-8")
        partial.replace(ready_file)
    print(f"acme-backoffice listens on {url}", file=sys.stderr, flush=True)
    await http.serve(sockets=[listener])


def main(argv: list[str] | None = None) -> None:
    """Serve over HTTP, or over stdio with `--stdio`. A missing database is made and seeded."""
    parser = argparse.ArgumentParser(prog="python -m examples.acme.server", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="SQLite file; made if missing")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    parser.add_argument("--ready-file", type=Path, help="the URL is written here once it listens")
    parser.add_argument("--stdio", action="store_true", help="speak MCP over stdin and stdout")
    options = parser.parse_args(argv)
    # Log messages are deprecated in 2026-07-28 and still what 2025-11-25 clients show.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    if not options.db.exists():
        create_database(options.db)
    server = build_server(Store(options.db))
    if options.stdio:
        server.run("stdio")
    else:
        asyncio.run(serve_http(server, options.port, options.ready_file))


if __name__ == "__main__":
    main()
