"""What calls are obliged to stands in their records, so that other terms show (POL-08)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.core.policy.decision import Obligation, Permit, Reason
from gateway.core.records.impact import compare, told_by, told_by_record
from tests.unit.path.world import World

pytestmark = pytest.mark.req("POL-08")

REVISION = "sha256:" + "0" * 64


def permit(max_calls: int) -> Permit:
    limit = Obligation("limit", {"type": "limit", "max_calls": max_calls, "window": "10m"})
    return Permit((Reason("ok", policy="p"),), (limit,), REVISION)


async def test_a_lifted_limit_shows_in_calls_that_went_and_in_calls_that_it_stopped() -> None:
    world = World(policy=MemoryPolicy(lambda *_: permit(1)))
    for _ in range(2):
        await world.enforcement.call(world.raw("mail__send", b"{}"))
    decided = world.records("call.intent", "call.refused")
    went, stopped = (told_by_record(one) for one in decided)
    assert decided[1]["decision"] | {"obligations_digest": ""} == {
        "outcome": "deny",
        "reasons": ["limit_exhausted"],
        "obligations": ["limit"],
        "obligations_digest": "",
        "limits": [{"max_calls": 1, "window_s": 600}],
    }
    assert went is not None
    assert stopped is not None
    same, wide = told_by(permit(1)), told_by(permit(256))
    found: list[Any] = [
        compare(was, now, "call").kind for now in (same, wide) for was in (went, stopped)
    ]
    assert found == ["unchanged", "gateway", "obligations", "newly_permitted"]
