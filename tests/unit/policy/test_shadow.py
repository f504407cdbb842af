"""Shadow evaluation: it compares what it can, counts what it cannot, and holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal

import orjson
import pytest

from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.core.approvals.approval import spec_digest
from gateway.core.errors import AuditError, PolicyError
from gateway.core.policy.asked import Asked
from gateway.core.policy.decision import (
    ApprovalSpec,
    Decision,
    Deny,
    Hold,
    Permit,
    Phase,
    Reason,
    Stage,
)
from gateway.shadow import Report, ShadowEvaluator

pytestmark = pytest.mark.req("POL-08")

REV: Final = "sha256:" + "c" * 64
SPEC: Final = ApprovalSpec(stages=((Stage(groups=("approver",)),),))
PERMIT: Final = Permit((Reason("fine", policy="old"),), (), REV)
DENY: Final = Deny((Reason("no", policy="new"),), REV)
HOLD: Final = Hold((Reason("ask", policy="new"),), (), REV, SPEC)

Answer = Callable[[Asked], Decision | str]


class Twin:
    """A candidate that answers what it is told to, once its gate is open."""

    revision = REV

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = False
        self.asked = 0

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def decide(self, questions: Sequence[Asked]) -> list[Decision | str]:
        await self.gate.wait()
        self.asked += len(questions)
        return [self.answer(each) for each in questions]


def document(tool: str = "shop.pay", phase: Phase = "call", spec: str | None = None) -> bytes:
    approval = None if spec is None else {"id": "apr", "spec_digest": spec}
    return orjson.dumps(
        {
            "version": 1,
            "phase": phase,
            "subject": {"id": "ann"},
            "resource": {"id": tool, "server": "shop", "effect": "money"},
            "context": {"approval": approval},
        }
    )


def evaluator(twin: Twin, waiting_max: int = 2_048) -> ShadowEvaluator[str]:
    return ShadowEvaluator(lambda _bundle: twin, now_s=lambda: 7, waiting_max=waiting_max)


async def compared(shadow: ShadowEvaluator[str], count: int) -> Report:
    """Return the report once so many decisions were compared."""
    async with asyncio.timeout(10):
        while (report := shadow.report()) is None or report.compared < count:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return report


async def test_what_a_candidate_would_change_is_counted_by_rule_tool_and_agent() -> None:
    answers: dict[str, Decision | str] = {
        "shop.same": PERMIT,
        "shop.denied": DENY,
        "shop.held": HOLD,
        "shop.broken": "policy_error",
    }
    shadow = evaluator(Twin(lambda asked: answers[asked.tool_id]))
    await shadow.start("bundle", "try")
    for tool in answers:
        shadow.observe(tool, "call", document(tool), PERMIT)
    shadow.observe("shop.same", "call", document("shop.same"), DENY)
    report = await compared(shadow, 5)
    assert report.counts == {
        "unchanged": 1,
        "newly_denied": 1,
        "newly_held": 1,
        "newly_permitted": 1,
        "error": 1,
    }
    assert report.errors == {"policy_error": 1}
    assert report.by_tool["newly_denied"] == {"shop.denied": 1}
    assert report.by_rule["newly_held"] == {"new:ask": 1}
    assert report.by_agent["newly_permitted"] == {"ann": 1}
    assert (report.observed, report.dropped, report.changed) == (5, 0, 3)
    assert (report.label, report.state, report.since_s) == ("try", "running", 7)
    await shadow.stop()


async def test_a_candidate_that_is_behind_holds_nobody_up_and_what_it_misses_is_counted() -> None:
    twin = Twin(lambda _asked: PERMIT)
    twin.gate.clear()
    shadow = evaluator(twin, waiting_max=100)
    await shadow.start("bundle", "slow")
    for _ in range(1_000):
        shadow.observe("shop.pay", "call", document(), PERMIT)  # does not wait
    await asyncio.sleep(0)
    report = shadow.report()
    assert report is not None
    assert report.observed == 1_000
    assert report.compared == 0
    assert report.dropped >= 900
    twin.gate.set()
    last = await compared(shadow, 100)
    assert last.compared + last.dropped == 1_000
    await shadow.stop()


async def test_what_waits_when_it_ends_was_never_compared() -> None:
    twin = Twin(lambda _asked: PERMIT)
    twin.gate.clear()
    shadow = evaluator(twin)
    await shadow.start("bundle", "x")
    for _ in range(50):
        shadow.observe("shop.pay", "call", document(), PERMIT)
    await asyncio.sleep(0)
    report = await shadow.stop()
    assert report is not None
    assert (report.observed, report.compared, report.dropped) == (50, 0, 50)
    assert (report.state, report.until_s) == ("stopped", 7)
    assert not twin.running
    shadow.observe("shop.pay", "call", document(), PERMIT)
    assert shadow.report() == report
    assert await shadow.stop() is None


def fail(asked: Asked) -> Decision:
    if asked.tool_id == "shop.broken":
        raise RuntimeError(asked.tool_id)
    return PERMIT


async def faulty(shadow: ShadowEvaluator[str], count: int) -> Report:
    """Return the report once it broke so often."""
    async with asyncio.timeout(10):
        while (report := shadow.report()) is None or report.faults < count:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return report


async def test_a_fault_ends_no_call_and_is_told_and_the_comparison_goes_on_anew() -> None:
    twins: list[Twin] = []

    def build(_bundle: str) -> Twin:
        twins.append(Twin(fail))
        return twins[-1]

    shadow = ShadowEvaluator(build, now_s=lambda: 7, fault_pause_s=0)
    await shadow.start("bundle", "x")
    shadow.observe("shop.broken", "call", document("shop.broken"), PERMIT)
    report = await faulty(shadow, 1)
    assert (report.state, report.fault, report.dropped) == ("failed", "RuntimeError", 1)
    for _ in range(3):
        shadow.observe("shop.pay", "call", document(), DENY)
    report = await compared(shadow, 3)
    assert (report.state, report.faults, report.dropped) == ("running", 1, 1)
    assert report.counts == {"newly_permitted": 3}
    assert [twin.running for twin in twins] == [False, True]
    stopped = await shadow.stop()
    assert stopped is not None
    assert (stopped.state, stopped.faults) == ("stopped", 1)
    assert not twins[-1].running


async def test_workers_that_do_not_start_again_are_started_until_they_do() -> None:
    left = [RuntimeError("no room"), OSError("no room")]

    class Reluctant(Twin):
        async def start(self) -> None:
            if self.asked and left:
                raise left.pop()
            await super().start()

    twin = Reluctant(fail)
    shadow = ShadowEvaluator[str](lambda _bundle: twin, now_s=lambda: 7, fault_pause_s=0)
    await shadow.start("bundle", "x")
    shadow.observe("shop.broken", "call", document("shop.broken"), PERMIT)
    assert (await faulty(shadow, 3)).state == "failed"
    shadow.observe("shop.pay", "call", document(), PERMIT)
    assert (await compared(shadow, 1)).state == "running"
    await shadow.stop()


async def test_an_input_that_cannot_be_read_keeps_no_other_away() -> None:
    shadow = evaluator(Twin(fail))
    await shadow.start("bundle", "x")
    for content in (b"{", document(), b"[]"):
        shadow.observe("shop.pay", "call", content, PERMIT)
    report = await compared(shadow, 1)
    assert (report.faults, report.dropped, report.state) == (2, 2, "running")
    shadow.observe("shop.pay", "call", b"{", PERMIT)
    assert (await faulty(shadow, 3)).compared == 1
    await shadow.stop()


async def test_while_it_waits_to_begin_anew_it_can_be_ended() -> None:
    shadow = ShadowEvaluator[str](lambda _bundle: Twin(fail), now_s=lambda: 7, fault_pause_s=3_600)
    await shadow.start("bundle", "x")
    shadow.observe("shop.broken", "call", document("shop.broken"), PERMIT)
    await faulty(shadow, 1)
    shadow.observe("shop.pay", "call", document(), PERMIT)
    report = await shadow.stop()
    assert report is not None
    assert (report.state, report.observed, report.dropped) == ("failed", 2, 2)


async def test_workers_that_are_gone_are_errors_of_the_candidate() -> None:
    def fail(_asked: Asked) -> Decision:
        raise PolicyError("gone", code="policy_unavailable")

    shadow = evaluator(Twin(fail))
    await shadow.start("bundle", "x")
    shadow.observe("shop.pay", "call", document(), PERMIT)
    report = await compared(shadow, 1)
    assert report.errors == {"policy_unavailable": 1}
    await shadow.stop()


async def test_what_people_agreed_to_is_no_difference_in_resume() -> None:
    shadow = evaluator(Twin(lambda _asked: HOLD))
    await shadow.start("bundle", "x")
    same = spec_digest(SPEC)
    shadow.observe("shop.pay", "resume", document(phase="resume", spec=same), HOLD)
    shadow.observe("shop.pay", "resume", document(phase="resume", spec="sha256:other"), PERMIT)
    report = await compared(shadow, 2)
    assert report.counts == {"unchanged": 1, "newly_denied": 1}
    assert report.by_rule["newly_denied"] == {"approval_stale": 1, "new:ask": 1}
    await shadow.stop()


async def test_start_and_end_are_noted_and_without_a_note_nothing_runs() -> None:
    twin, told = Twin(lambda _asked: PERMIT), list[str]()

    async def note(what: Literal["start", "stop"], report: Report) -> None:
        told.append(f"{what} {report.label}")
        if report.label == "unrecorded":
            raise AuditError("full", code="audit_unavailable")

    shadow = evaluator(twin)
    shadow.note = note
    await shadow.start("bundle", "one")
    await shadow.start("bundle", "two")
    await shadow.stop()
    assert told == ["start one", "stop one", "start two", "stop two"]
    with pytest.raises(AuditError):
        await shadow.start("bundle", "unrecorded")
    assert not twin.running
    shadow.observe("shop.pay", "call", document(), PERMIT)
    assert twin.asked == 0


async def test_every_phase_and_every_answer_is_told_to_observers() -> None:
    def answer(tool: str, phase: Phase, _document: object) -> Decision:
        if tool == "shop.down":
            raise PolicyError("down", code="policy_timeout")
        return PERMIT if phase == "call" else DENY

    seen: list[tuple[str, str, str]] = []

    def observe(tool: str, phase: Phase, _document: bytes, decision: Decision) -> None:
        seen.append((tool, phase, decision.reasons[0].code))

    engine = ObservedPolicy(MemoryPolicy(answer, concerns_result=True), observe)
    assert await engine.decide("shop.pay", "call", b"{}") == PERMIT
    assert await engine.decide_many([("shop.a", b"{}"), ("shop.b", b"{}")], "list") == [DENY, DENY]
    with pytest.raises(PolicyError):
        await engine.decide("shop.down", "call", b"{}")
    assert seen == [
        ("shop.pay", "call", "fine"),
        ("shop.a", "list", "no"),
        ("shop.b", "list", "no"),
        ("shop.down", "call", "policy_timeout"),
    ]
    assert engine.concerns("shop.pay", "result")
    assert engine.reads_ledger("shop.pay", "call")
    assert engine.revision.startswith("sha256:")
