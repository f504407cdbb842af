"""A shadow with real engines: a hostile candidate costs live calls nothing."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.core.errors import ConfigurationError
from gateway.core.policy.decision import Deny, Permit
from gateway.shadow import Report, ShadowEvaluator
from tests.integration.policy.conftest import SHOP, Start, make_bundle, question

pytestmark = pytest.mark.req("POL-08")

STRICTER = SHOP.replace(" > 100", " > 10")


def evaluator(deadline_ms: int = 10_000) -> ShadowEvaluator[Bundle]:
    return ShadowEvaluator(
        lambda bundle: Candidate(bundle, deadline_ms=deadline_ms), now_s=lambda: 0
    )


async def compared(shadow: ShadowEvaluator[Bundle], count: int) -> Report:
    async with asyncio.timeout(60):
        while (report := shadow.report()) is None or report.compared < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return report


async def test_live_decisions_stay_and_the_candidates_are_counted(start: Start) -> None:
    shadow = evaluator()
    await shadow.start(make_bundle(STRICTER), "stricter")
    engine = ObservedPolicy(await start(), shadow.observe)
    for amount in (5, 50, 500):
        decision = await engine.decide("shop.act", "call", question(amount=amount))
        assert isinstance(decision, Deny if amount == 500 else Permit)
    report = await compared(shadow, 3)
    assert report.counts == {"unchanged": 2, "newly_denied": 1}
    assert report.by_rule == {"newly_denied": {"shop:too_much": 1}}
    await shadow.stop()


async def test_a_candidate_that_never_answers_costs_live_calls_nothing(start: Start) -> None:
    shadow = evaluator(deadline_ms=200)
    bomb = SHOP.replace("input.context.args.bomb\n", "input.context.args.amount == 7\n")
    await shadow.start(make_bundle(bomb), "bomb")
    engine = ObservedPolicy(await start(), shadow.observe)
    for _ in range(20):
        decision = await engine.decide("shop.act", "call", question(amount=7))
        assert isinstance(decision, Permit)
    report = await compared(shadow, 1)
    assert set(report.errors) <= {"policy_timeout", "policy_worker_died", "policy_overloaded"}
    assert report.counts == {"error": report.compared}
    await shadow.stop()


async def test_a_candidate_that_fails_its_self_test_is_not_started(start: Start) -> None:
    shadow = evaluator()
    open_ = 'package policies.shop\n\npermit contains {"code": "all"} if input.phase != ""\n'
    everything = make_bundle(open_)
    files = tuple(
        (path, content.replace(b'["shop"]', b'["*"]')) for path, content in everything.files
    )
    bundle = Bundle(revision="sha256:" + "9" * 64, files=files, packages=everything.packages)
    with pytest.raises(ConfigurationError):
        await shadow.start(bundle, "open")
    assert shadow.report() is None
    engine = ObservedPolicy(await start(), shadow.observe)
    assert isinstance(await engine.decide("shop.act", "call", question(amount=1)), Permit)
