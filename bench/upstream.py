"""The tool server behind both proxies: MCP 2026-07-28, as little work as a server can do.

`python -m bench.upstream [--result-bytes 500]` prints its port. `GET /calls` tells how many tool
calls it has executed, so that the bench can compare that with what the audit log says.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

import orjson

from bench.serving import serve_lean

MODERN: Final = "2026-07-28"
TOOLS: Final[list[dict[str, Any]]] = [
    {
        "name": "refund",
        "description": "Pay a customer back, in whole or in part, for an order.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "order_id": {"type": "string", "pattern": "^ord_[0-9]{4,12}$"},
                "customer_id": {"type": "string", "maxLength": 40},
                "amount_cents": {"type": "integer", "minimum": 1},
                "currency": {"enum": ["EUR", "USD"]},
                "reason": {"type": "string", "maxLength": 500},
            },
            "required": ["order_id", "amount_cents", "currency", "reason"],
            "additionalProperties": False,
        },
    },
    {
        "name": "echo",
        "description": "Say the same again.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
    },
]


def build_result(size: int) -> bytes:
    """Return a tool result of about `size` bytes, as data and as text."""
    data: dict[str, Any] = {
        "refund_id": "rf_000000012345",
        "order_id": "ord_500123",
        "status": "succeeded",
        "amount_cents": 1250,
        "currency": "EUR",
        "note": "",
    }
    bare = len(_result(data))
    data["note"] = "x" * max(0, (size - bare) // 2)
    return _result(data)


def _result(data: dict[str, Any]) -> bytes:
    text = orjson.dumps(data).decode()
    return orjson.dumps(
        {
            "resultType": "complete",
            "content": [{"type": "text", "text": text}],
            "structuredContent": data,
            "isError": False,
        }
    )


class Upstream:
    """Answers `server/discover`, `tools/list` and `tools/call`, and counts the calls."""

    def __init__(self, result: bytes) -> None:
        self._result = result
        self._calls = 0

    def __call__(self, body: bytes) -> bytes:
        """Answer one request; a body of nothing asks for the number of calls."""
        if not body:
            return b"%d" % self._calls
        message = orjson.loads(body)
        if message.get("method") == "tools/call" and message["params"]["name"] == "refund":
            self._calls += 1
            result = self._result
        else:
            result = self._other(message)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (orjson.dumps(message.get("id")), result)

    @staticmethod
    def _other(message: dict[str, Any]) -> bytes:
        match message.get("method"):
            case "server/discover":
                found: dict[str, Any] = {
                    "resultType": "complete",
                    "supportedVersions": [MODERN],
                    "capabilities": {"tools": {}},
                }
            case "tools/list":
                found = {"resultType": "complete", "tools": TOOLS, "ttlMs": 60_000}
            case _:
                text = [{"type": "text", "text": "there is no such tool"}]
                found = {"resultType": "complete", "content": text, "isError": True}
        return orjson.dumps(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--result-bytes", type=int, default=500)
    serve_lean(Upstream(build_result(parser.parse_args().result_bytes)))
