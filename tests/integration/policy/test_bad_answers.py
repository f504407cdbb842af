"""Policies that answer nonsense: each call is denied with one record, and nothing is sent."""

from __future__ import annotations

import pytest

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.calls.answer import Refused
from tests.unit.path.world import World

pytestmark = [pytest.mark.req("POL-01"), pytest.mark.network]

PERMIT = (
    'package policies.p\n\npermit contains {"code": "yes"} if input.resource.server == "mail"\n'
)
OWNED = {"authority": {"policies": {"p": ["mail"]}}}


@pytest.mark.parametrize(
    ("name", "item", "code"),
    [
        ("obligation", '{"type": "levitate"}', "obligation_unknown"),
        ("obligation", '{"kind": "redact"}', "obligation_unknown"),
        ("obligation", '"redact"', "policy_answer_invalid"),
        ("obligation", '{"type": "redact", "fields": ["/a"]}', "obligation_invalid"),
        ("obligation", '{"type": "limit", "max_calls": "3"}', "obligation_invalid"),
        ("obligation", '{"type": "add_label", "labels": ["Bad"]}', "obligation_invalid"),
        ("obligation", '{"type": "require_idempotency_key"}', "obligation_unmet"),
        ("obligation", '{"type": "limit", "max_calls": 0}', "limit_exhausted"),
        ("hold", '{"code": "wait", "approval": {"stages": []}}', "approval_invalid"),
        ("deny", '"no"', "reason_invalid"),
    ],
)
async def test_an_answer_that_cannot_be_obeyed_denies_its_call_with_one_record(
    name: str, item: str, code: str
) -> None:
    # out of a list, so that the gate cannot see at load what it will be
    rule = f'{name} contains item if {{\n\tinput.phase == "call"\n\tsome item in [{item}]\n}}\n'
    engine = RegorusPolicy(build_bundle({"p.rego": PERMIT + rule}, OWNED), deadline_ms=2_000)
    await engine.start()
    try:
        world = World(policy=engine)  # type: ignore[arg-type]  # the real engine
        answer = await world.enforcement.call(world.raw("mail__send", b"{}"))
        assert isinstance(answer, Refused)
        assert answer.refusal.code == code
        assert world.sent == []
        record = world.only_record()
        assert record["type"] == "call.refused"
        assert record["decision"]["outcome"] == "deny"
        assert record["decision"]["reasons"][0].rpartition(":")[2] == code
        assert world.ledger.family("root-1").calls == 0
    finally:
        await engine.stop()
