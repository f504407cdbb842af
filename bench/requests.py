"""The requests of a load: realistic `tools/call` messages, ready as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from bench.upstream import MODERN

TOOL: Final = "bench__refund"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}


def build_arguments(number: int) -> dict[str, Any]:
    """Return arguments of about 150 bytes that differ from call to call."""
    return {
        "order_id": f"ord_{500_000 + number}",
        "customer_id": f"cus_{70_000 + number * 7}",
        "amount_cents": 500 + number * 11,
        "currency": "EUR",
        "reason": "the parcel came three weeks late and one item was broken",
    }


def build_body(number: int) -> bytes:
    """Return one `tools/call` message."""
    return orjson.dumps(
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {"name": TOOL, "arguments": build_arguments(number), "_meta": _META},
        }
    )


def build_requests(port: int, tokens: Sequence[str]) -> list[bytes]:
    """Return one HTTP request for each token, each with arguments of its own."""
    return [_build_request(port, token, number) for number, token in enumerate(tokens)]


def _build_request(port: int, token: str, number: int) -> bytes:
    body = build_body(number)
    head = (
        "POST /mcp HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\n"
        f"MCP-Protocol-Version: {MODERN}\r\n"
        "Mcp-Method: tools/call\r\n"
        f"Mcp-Name: {TOOL}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
