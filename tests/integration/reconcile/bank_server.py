"""A bank over MCP, written with the official SDK; PostgreSQL keeps its payments.

    python -m tests.integration.reconcile.bank_server URL PORT READY_FILE

It opens at a line on stdin, so that it can be ready before it is needed. Some amounts make it fail:
13 is refused, after 666 it dies with the payment made, and with 667 before that.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from examples.acme.server import OPERATION_ID, serve_http

UNLUCKY, DIES_AFTER, DIES_BEFORE = 13, 666, 667

SCHEMA = """
CREATE TABLE payments (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operation_id text,
  recipient    text NOT NULL,
  amount       numeric(12, 2) NOT NULL,
  urgent       boolean NOT NULL,
  source       text NOT NULL DEFAULT 'bank',
  booked_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

INSERT = "INSERT INTO payments (operation_id, recipient, amount, urgent)"


class Ledger:
    """One connection, held by PostgreSQL's own client."""

    def __init__(self, url: str) -> None:
        self._psql = subprocess.Popen(
            ["psql", "-X", "-q", "-A", "-t", "-d", url],  # noqa: S607 - wherever the system has it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def ask(self, sql: str) -> list[str]:
        """Run one statement; return its rows."""
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        with self._lock:
            self._psql.stdin.write(f"{sql};\n\\echo end :ERROR\n")
            self._psql.stdin.flush()
            rows: list[str] = []
            while not (line := self._psql.stdout.readline().rstrip("\n")).startswith("end "):
                assert self._psql.poll() is None, "psql has ended"
                rows.append(line)
        assert line == "end false", "the statement failed"
        return rows


def literal(text: str | None) -> str:
    """Return a text as SQL."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def build_server(ledger: Ledger) -> MCPServer:
    """Return the server with its two tools."""
    server = MCPServer(name="bank", version="1.0.0", log_level="WARNING")

    @server.tool()
    def pay(to: str, amount_cents: int, ctx: Context, *, urgent: bool = False) -> str:
        """Pay somebody."""
        given = (ctx.request_context.meta or {}).get(OPERATION_ID)
        operation = given if isinstance(given, str) else None
        if amount_cents == UNLUCKY:
            raise ToolError("the bank is superstitious")
        if amount_cents == DIES_BEFORE:
            os._exit(9)
        values = [literal(operation), literal(to), f"{amount_cents}::numeric / 100", str(urgent)]
        ledger.ask(f"{INSERT} VALUES ({', '.join(values)})")
        if amount_cents == DIES_AFTER:
            os._exit(9)
        return "paid"

    @server.tool()
    def balance() -> str:
        """Say how much was paid."""
        return ledger.ask("SELECT coalesce(sum(amount), 0) FROM payments")[0]

    return server


if __name__ == "__main__":
    where, port, ready = sys.argv[1:]
    bank = build_server(Ledger(where))
    sys.stdin.readline()
    asyncio.run(serve_http(bank, int(port), Path(ready)))
