"""Recorded intents and tools for tests of transports, and a clock that is set by hand."""

from __future__ import annotations

from typing import Any

import orjson

from connectors.catalog import Catalog
from connectors.listing import read_offers
from connectors.manifest import Manifest
from gateway.core.calls.call import (
    Arguments,
    AuthenticatedCall,
    CallMeta,
    Intent,
    RawCall,
    RecordedIntent,
    ResolvedCall,
)
from gateway.core.catalog import Review, Tool
from gateway.core.entry import Entry
from gateway.core.policy.decision import Permit
from gateway.core.tokens.token import Claims, Grant

OPEN_SCHEMA = {"type": "object", "additionalProperties": True}
OP = "0" * 31 + "1"


def build_manifest(*reviews: Review, server: str = "srv") -> Manifest:
    return Manifest(id=server, transport="http", tools=reviews)


def build_tool(name: str = "echo", *, schema: dict[str, Any] | None = None, **review: Any) -> Tool:  # noqa: ANN401 - any key of a Review
    """Return a callable tool as the catalog makes it."""
    raw = orjson.dumps({"name": name, "inputSchema": schema or OPEN_SCHEMA})
    offers, _ = read_offers([raw])
    given = Review(
        **{"name": name, "effect": "read", "definition_digest": offers[name].digest} | review
    )
    catalog = Catalog()
    catalog.review(build_manifest(given))
    catalog.offer("srv", [raw])
    tool = catalog.view().find(name, "srv")
    assert tool is not None
    return tool


def build_intent(
    tool: Tool | str = "echo",
    arguments: dict[str, Any] | bytes = b"{}",
    *,
    op: str = OP,
    run_id: str = "run-1",
    deadline_ms: int = 5_000,
    **meta: Any,  # noqa: ANN401 - any key of a CallMeta
) -> RecordedIntent:
    """Return an intent as the log would have made it durable."""
    tool = build_tool(tool) if isinstance(tool, str) else tool
    raw = arguments if isinstance(arguments, bytes) else orjson.dumps(arguments)
    call = RawCall(
        op=op,
        credential=b"agent-token",
        tool=tool.wire_name,
        server=None,
        arguments=Arguments(raw, orjson.loads(raw)),
        meta=CallMeta(surface="mcp", **meta),
    )
    claims = Claims(
        issuer="https://gw.example",
        audience="https://gw.example",
        subject="agent",
        client_id="agent",
        jti="jti",
        issued_at=0,
        expires_at=300,
        scopes=frozenset({"tools:call"}),
        grants=(),
        environment="test",
        run_id=run_id,
        root_jti="root",
        sid="sid",
    )
    resolved = ResolvedCall(AuthenticatedCall(call, claims, 0), tool, Grant(tool.server))
    intent = Intent(
        resolved=resolved,
        decision=Permit((), (), "sha256:0"),
        entry=Entry(type="call.intent", op=op, fields={}),
        idempotency_key=op,
        deadline_ms=deadline_ms,
        find_stop=lambda: None,
    )
    return RecordedIntent(intent, 0, b"\0" * 32)


class HandClock:
    """A `Clock` that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000_000)
