"""Receipts: a caller who asks gets the proof that the outcome of its call is in the log."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from connectors.memory import MemoryTransport
from gateway.core.calls.answer import CallReceipt
from gateway.core.calls.call import RecordedIntent, Relay, UpstreamResult
from gateway.core.entry import Receipt
from gateway.core.errors import AuditError
from gateway.core.log.merkle import hash_leaf
from gateway.core.log.tlog_proof import find_fault, parse_proof
from gateway.protocol.mcp_reply import Reply, add_receipt
from tests.unit.path.world import DENY, HOLD, World, build_claims, sign

BODY = b'{"arguments":{"amount":5}}'
ASKED = {"countersign-receipt": "1"}
META = b',"countersign/receipt":true'
RECEIPT = CallReceipt(7, "ab" * 32, "text")


def check(world: World, receipt: dict[str, Any]) -> dict[str, Any]:
    """Believe a receipt as its holder would; return the record that it is of."""
    proof = parse_proof(receipt["proof"])
    assert proof.index == receipt["seq"]
    leaf = bytes.fromhex(receipt["leaf"])
    assert find_fault(proof, leaf, [world.durable.audit.key]) is None
    found: dict[str, Any] = orjson.loads(
        next(line for line in world.durable.audit.lines if hash_leaf(line) == leaf)
    )
    return found


async def with_answer(world: World, answer: UpstreamResult) -> None:
    """Have the refund's server answer with exact bytes."""

    async def call(_intent: RecordedIntent, _relay: Relay | None) -> UpstreamResult:
        return answer

    transport = MemoryTransport("billing", {})
    transport.call = call  # type: ignore[method-assign, assignment]
    world.durable.transports["billing"] = transport


@pytest.mark.req("AUD-02")
async def test_a_reply_over_rest_carries_the_receipt_of_its_outcome(world: World) -> None:
    plain = (await world.call_rest("billing__refund", BODY)).json()
    reply = (await world.call_rest("billing__refund", BODY, ASKED)).json()
    record = check(world, reply.pop("receipt"))
    assert (record["type"], record["op"]) == ("call.outcome", reply["id"])
    assert reply.keys() == plain.keys()


@pytest.mark.req("AUD-02")
async def test_a_result_over_mcp_carries_the_receipt_in_its_meta(world: World) -> None:
    plain = (await world.call_mcp("billing__refund", b'{"amount":1}')).json()
    reply = (await world.call_mcp("billing__refund", b'{"amount":1}', meta=META)).json()
    receipt = reply["result"].pop("_meta")
    record = check(world, receipt.pop("countersign/receipt"))
    assert (record["type"], receipt) == ("call.outcome", {})
    assert reply == plain


@pytest.mark.parametrize("value", [b"false", b"1", b'"true"', b"null", b"{}"])
async def test_who_does_not_ask_gets_none(world: World, value: bytes) -> None:
    meta = b',"countersign/receipt":' + value
    reply = await world.call_mcp("billing__refund", b'{"amount":1}', meta=meta)
    assert b"receipt" not in reply.body
    reply = await world.call_rest("billing__refund", BODY, {"countersign-receipt": "yes"})
    assert b"receipt" not in reply.body


@pytest.mark.req("AUD-02")
async def test_a_tool_s_error_carries_the_receipt_too(world: World) -> None:
    await with_answer(world, UpstreamResult(error=b'{"code":-32000,"message":"no"}', is_error=True))
    reply = (await world.call_mcp("billing__refund", b'{"amount":1}', meta=META)).json()
    record = check(world, reply["error"]["data"]["countersign/receipt"])
    assert record["status"] == "tool_error"
    told = (await world.call_rest("billing__refund", BODY, ASKED)).json()
    assert (told["status"], check(world, told["receipt"])["status"]) == ("failed", "tool_error")


@pytest.mark.parametrize("outcome", [DENY, HOLD])
async def test_a_call_that_was_not_sent_has_no_receipt(outcome: Any) -> None:  # noqa: ANN401
    world = World({("billing.refund", "call"): outcome})
    await world.launch()
    reply = await world.call_rest("billing__refund", BODY, ASKED)
    assert b"receipt" not in reply.body
    plain = await world.call_mcp("billing__refund", b'{"amount":1}')
    asked = await world.call_mcp("billing__refund", b'{"amount":1}', meta=META)
    assert asked.told == plain.told
    assert b"receipt" not in asked.body


@pytest.mark.req("AUD-02")
async def test_a_receipt_is_looked_up_by_who_made_the_call(world: World) -> None:
    made = (await world.call_rest("billing__refund", BODY)).json()
    path, token = f"/v1/calls/{made['id']}", sign(build_claims())
    await world.call_rest("billing__refund", BODY)
    again = (await world.request("GET", path, headers=ASKED, token=token)).json()
    assert check(world, again.pop("receipt"))["op"] == made["id"]
    assert again == made
    other = sign(build_claims(run_id="run-2"))
    reply = await world.request("GET", path, headers=ASKED, token=other)
    assert (reply.status, reply.code) == (404, "call_unknown")


async def test_a_receipt_that_cannot_be_made_does_not_keep_the_reply(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_record: Receipt) -> str:
        raise AuditError("no proof", code="audit_unproven")

    monkeypatch.setattr(world.durable.audit, "prove", fail)
    reply = await world.call_rest("billing__refund", BODY, ASKED)
    assert (reply.status, b"receipt" in reply.body) == (200, False)
    reply = await world.call_mcp("billing__refund", b'{"amount":1}', meta=META)
    assert (reply.status, b"receipt" in reply.body) == (200, False)


async def test_a_header_that_asks_twice_is_refused(world: World) -> None:
    pairs = [("countersign-receipt", "1"), ("countersign-receipt", "0")]
    token = sign(build_claims())
    reply = await world.request("POST", "/v1/tools/billing__refund/call", BODY, pairs, token=token)
    assert reply.code == "header_mismatch"


def test_nothing_of_the_tool_s_own_is_lost() -> None:
    own = b'{"jsonrpc":"2.0","id":1,"result":{"n":1.50,"_meta":{"x":1e3}}}'
    body = add_receipt(Reply(200, own), RECEIPT).body
    assert body == (
        b'{"jsonrpc":"2.0","id":1,"result":{"n":1.50,"_meta":{"x":1e3,"countersign/receipt":'
        b'{"seq":7,"leaf":"' + b"ab" * 32 + b'","proof":"text"}}}}'
    )
    for strange in (
        b'{"id":1,"result":{"_meta":7}}',
        b'{"id":1,"result":[]}',
        b'{"id":1,"error":{"code":1,"data":"text"}}',
    ):
        assert add_receipt(Reply(200, strange), RECEIPT).body == strange
