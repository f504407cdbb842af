"""What stands between the harness and the gateway: tokens are put on, and nothing else is done."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.conformance.run import find_log_faults, gateway

pytestmark = [pytest.mark.req("GW-17"), pytest.mark.network]

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def call(url: str, **headers: str) -> httpx.Response:
    params = {"name": "test_simple_text", "arguments": {}, "_meta": META}
    return httpx.post(
        url,
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "test_simple_text",
            **headers,
        },
        timeout=10,
    )


def test_requests_without_a_token_are_a_fixed_subjects() -> None:
    with gateway() as (url, faults):
        reply = call(url)
        # What a browser's page sends under a name of its own comes through to the gateway.
        rebound = call(url, Host="evil.example", Origin="http://evil.example")
    assert reply.json()["result"]["content"][0]["text"].startswith("This is a simple text")
    assert rebound.status_code == 403
    assert faults == []


def test_each_query_has_a_run_of_its_own() -> None:
    with gateway("--real-tokens", runs=2) as (url, faults):
        replies = [call(f"{url}?{name}") for name in ("one", "two", "one")]
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert faults == []


def test_a_log_without_calls_and_the_runs_behind_their_tokens_is_at_fault(tmp_path: Path) -> None:
    faults = find_log_faults(tmp_path, runs=1)
    assert faults == ["the audit log tells of no call", "the audit log tells of 0 runs, not 1"]


def test_an_intent_without_an_outcome_is_a_fault(tmp_path: Path) -> None:
    told = [("call.intent", "a"), ("call.intent", "b"), ("call.outcome", "a")]
    lines = [
        json.dumps({"seq": seq, "ts": seq, "type": kind, "op": op})
        for seq, (kind, op) in enumerate(told)
    ]
    (tmp_path / f"{0:020d}.jsonl").write_text("".join(line + "\n" for line in lines))
    assert find_log_faults(tmp_path, runs=0) == ["call `b` has an intent and no outcome"]
