from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.policy.memory_policy import REVISION, MemoryPolicy
from gateway.core.errors import PolicyError
from gateway.core.policy.decision import Deny, Permit, Phase
from gateway.core.ports import PolicyEngine

YES = Permit(reasons=(), obligations=(), revision=REVISION)
NO = Deny(reasons=(), revision=REVISION)


async def test_a_table_answers_by_tool_and_phase() -> None:
    engine: PolicyEngine = MemoryPolicy({"shop.act": YES, ("shop.act", "list"): NO})
    assert await engine.decide("shop.act", "call", b"{}") == YES
    assert await engine.decide("shop.act", "list", b"{}") == NO
    assert await engine.decide("shop.act", "result", b"{}") == YES


async def test_what_the_table_does_not_name_is_undefined() -> None:
    decision = await MemoryPolicy({}).decide("shop.act", "call", b"{}")
    assert isinstance(decision, Deny)
    assert decision.reasons[0].code == "policy_undefined"


async def test_a_function_sees_what_was_asked() -> None:
    def answer(_tool: str, _phase: Phase, asked: dict[str, Any]) -> Permit | None:
        return YES if asked["n"] == 1 else None

    engine = MemoryPolicy(answer)
    engine.set_tools({"a": ("shop", "read")})
    first, second = await engine.decide_many([("a", b'{"n":1}'), ("b", b'{"n":2}')], "list")
    assert first == YES
    assert isinstance(second, Deny)
    assert engine.asked == [("a", "list", {"n": 1}), ("b", "list", {"n": 2})]
    assert engine.revision == REVISION


async def test_a_function_can_be_an_engine_that_is_down() -> None:
    def down(*_: object) -> None:
        raise PolicyError("down", code="policy_timeout")

    with pytest.raises(PolicyError, match="down"):
        await MemoryPolicy(down).decide("a", "call", b"{}")


def test_what_it_reads_and_concerns_is_given() -> None:
    engine = MemoryPolicy({}, reads_ledger=False, concerns_result=True)
    assert not engine.reads_ledger("a", "call")
    assert engine.concerns("a", "result")
    assert engine.concerns("a", "call")
    assert not MemoryPolicy({}).concerns("a", "result")
