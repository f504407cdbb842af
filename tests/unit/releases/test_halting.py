from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import orjson
import pytest

from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.releases.release_guard import ReleaseGuard
from gateway.core.errors import PolicyError
from gateway.core.policy.asked import Asked
from gateway.core.policy.decision import ApprovalSpec, Decision, Deny, Hold, Permit, Reason, Stage
from gateway.core.policy.policy_answer import deny
from gateway.core.releases.halting import Compared, Counted, Limits, Rates, find_jump, kind_of

pytestmark = pytest.mark.req("POL-07")

PERMIT = Permit((), (), "r")
DENY = Deny((Reason("no", policy="house"),), "r")
HOLD = Hold((), (), "r", ApprovalSpec(stages=((Stage(groups=("approver",)),),)))
Calls = tuple[int, Counted, Counted]
CALM: Calls = (0, "permit", "deny")
DENIED: Calls = (90, "permit", "deny")
FEW: Calls = (9, "permit", "deny")
FAILED = deny("policy_timeout", "r")


def compared(*agents: Calls, calm: int = 100) -> Compared:
    """Return what was compared: of each agent so many calls of a kind, and `calm` others."""
    found = Compared()
    for number, (count, before, after) in enumerate(agents):
        for _ in range(count):
            found.add(f"agent {number}", before, after)
        for _ in range(calm):
            found.add(f"agent {number}", "permit", "permit")
    return found


@pytest.mark.parametrize(
    ("agents", "jumped"),
    [
        ([(26, "permit", "deny"), (26, "permit", "deny")], "denials"),
        ([(26, "hold", "deny"), (26, "permit", "deny")], "denials"),
        ([(25, "permit", "deny"), (25, "permit", "deny")], None),
        ([(900, "deny", "deny"), (900, "deny", "deny")], None),
        ([(900, "deny", "permit"), (900, "deny", "permit")], None),
        ([(900, "permit", "hold"), (900, "permit", "hold")], None),
        ([(900, "permit", "deny"), (0, "permit", "deny")], None),
        ([(900, "permit", "deny"), (26, "permit", "deny")], "denials"),
        ([(900, "permit", "deny"), (25, "permit", "deny")], None),
        ([(3, "permit", "error"), (3, "deny", "error")], "errors"),
        ([(2, "permit", "error"), (2, "permit", "error")], None),
        ([(900, "error", "error"), (900, "error", "error")], None),
        ([(900, "permit", "error")], None),
        ([], None),
    ],
)
def test_a_jump_is_of_what_the_release_before_let_through_and_seen_by_two(
    agents: list[Calls], jumped: str | None
) -> None:
    assert find_jump(compared(*agents), Limits()) == jumped


def test_one_agent_neither_brings_a_halt_about_nor_keeps_one_away() -> None:
    alone = compared((100_000, "permit", "deny"), *(CALM,) * 4)
    assert find_jump(alone, Limits()) is None
    # Five of six see it, and the sixth makes a million calls that go.
    noisy = compared(*(DENIED,) * 5, (100_000, "permit", "permit"))
    assert find_jump(noisy, Limits()) == "denials"


def test_where_one_agent_is_enough_it_is_enough() -> None:
    assert find_jump(compared((101, "permit", "deny")), Limits(agents_min=1)) == "denials"


def test_too_few_calls_and_agents_of_too_few_calls_say_nothing() -> None:
    few = compared((99, "permit", "deny"), (100, "permit", "deny"), calm=0)
    assert find_jump(few, Limits()) is None
    few.add("agent 0", "permit", "deny")
    assert find_jump(few, Limits()) == "denials"
    each = compared(*(FEW,) * 100, calm=0)
    assert find_jump(each, Limits()) is None


def test_a_halt_that_is_switched_off_does_not_happen() -> None:
    all_denied = compared((900, "permit", "deny"), (900, "permit", "deny"))
    assert find_jump(all_denied, Limits(enabled=False)) is None


def test_what_is_compared_is_told_as_shares_of_the_same_calls() -> None:
    found = compared((2, "deny", "error"), (1, "error", "deny"), calm=1)
    assert (found.before, found.after) == (Rates(5, 2, 1), Rates(5, 1, 2))


def test_names_of_agents_without_end_take_no_memory_without_end() -> None:
    found = Compared()
    for number in range(5_000):
        found.add(f"agent {number}", "permit", "permit")
    assert len(found.agents) <= 4_097
    assert found.after.calls == 5_000


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (PERMIT, "permit"),
        (HOLD, "hold"),
        (DENY, "deny"),
        (FAILED, "error"),
        (deny("policy_undefined", "r"), "error"),
        (deny("no_policy_permits", "r"), "deny"),
        (Deny((Reason("policy_mine", policy="house"),), "r"), "deny"),
        ("policy_timeout", "error"),
    ],
)
def test_no_answer_is_a_failure_and_what_a_policy_says_is_none(
    answer: Decision | str, kind: str
) -> None:
    assert kind_of(answer) == kind


class Twin:
    """A release's engine that says what it is told to."""

    def __init__(self, revision: str, answers: list[Decision | str]) -> None:
        self.revision = revision
        self.answers = answers
        self.running = False

    async def start(self) -> None:
        if not self.answers:
            raise PolicyError("it does not start")
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def decide(self, questions: Sequence[Asked]) -> list[Decision | str]:
        return [self.answers.pop(0) for _ in questions]


class Live:
    """What decides: permits, denies or fails, as its tool is named."""

    revision = "new"

    async def decide(self, tool_id: str, phase: str, document: bytes) -> Decision:
        del phase, document
        if tool_id == "late":
            raise PolicyError("late", code="policy_timeout")
        return DENY if tool_id == "denied" else PERMIT


OLD, NEW = (Bundle(name, (), {}) for name in ("old", "new"))


async def compare(guard: ReleaseGuard, *tools: str, phase: str = "call") -> None:
    engine = ObservedPolicy(Live(), guard.observe)  # type: ignore[arg-type]
    for tool in tools:
        document = orjson.dumps({"phase": phase, "subject": {"id": "ann"}})
        try:
            await engine.decide(tool, phase, document)  # type: ignore[arg-type]
        except PolicyError:
            assert tool == "late"


async def until(guard: ReleaseGuard, calls: int) -> None:
    async with asyncio.timeout(5):
        while guard.compared.after.calls < calls:  # noqa: ASYNC110 - counted by a task
            await asyncio.sleep(0.002)


async def test_live_calls_are_put_to_the_release_before_and_failures_asked_again() -> None:
    answers: dict[str, list[Decision | str]] = {
        "old": [PERMIT, PERMIT, PERMIT, PERMIT, "policy_timeout"],
        "new": ["policy_timeout", PERMIT],
    }
    made: list[Twin] = []

    def build(bundle: Bundle) -> Twin:
        made.append(Twin(bundle.revision, answers[bundle.revision]))
        return made[-1]

    guard = ReleaseGuard(build, now_s=lambda: 0)
    await compare(guard, "free")  # nothing is watched yet
    await guard.watch(OLD, NEW)
    await compare(guard, "free", phase="list")
    await compare(guard, "free", "denied", "late", "late", "free")
    await until(guard, 4)
    # Of the two that came late, one fails in peace as well; what the one before cannot say is out.
    assert guard.compared.after == Rates(4, 1, 1)
    assert guard.compared.before == Rates(4, 0, 0)
    assert [one.revision for one in made if one.running] == ["old", "new"]
    await guard.end()
    assert not any(one.running for one in made)
    await compare(guard, "denied")
    assert guard.compared.after.calls == 4


async def test_a_release_before_that_does_not_start_any_more_is_compared_with_nothing() -> None:
    guard = ReleaseGuard(lambda bundle: Twin(bundle.revision, []), now_s=lambda: 0)
    await guard.watch(OLD, NEW)
    await compare(guard, "denied")
    assert guard.compared.after.calls == 0
    assert guard.faults == 1
    await guard.end()


class Breaking(Twin):
    """A twin whose first question breaks it, once."""

    broke: ClassVar[set[str]] = set()

    async def decide(self, questions: Sequence[Asked]) -> list[Decision | str]:
        if self.revision not in self.broke:
            self.broke.add(self.revision)
            raise RuntimeError("a fault of ours")
        return await super().decide(questions)


async def test_comparing_that_breaks_is_told_and_goes_on_so_that_a_release_is_still_halted() -> (
    None
):
    Breaking.broke.clear()
    made: list[Twin] = []

    def build(bundle: Bundle) -> Twin:
        made.append(Breaking(bundle.revision, [PERMIT, PERMIT]))
        return made[-1]

    guard = ReleaseGuard(build, now_s=lambda: 0)
    await guard.watch(OLD, NEW)
    await compare(guard, "free")  # breaks the one before
    await faulty(guard, 1)
    await compare(guard, "late")  # breaks the new one, asked again
    await faulty(guard, 2)
    assert guard.compared.after.calls == 0
    await compare(guard, "denied", "late")
    await until(guard, 2)
    assert guard.compared.after == Rates(2, 1, 0)
    assert [one.revision for one in made if one.running] == ["old", "new"]
    await guard.end()
    assert not any(one.running for one in made)
    assert guard.faults == 0


async def faulty(guard: ReleaseGuard, count: int) -> None:
    async with asyncio.timeout(5):
        while guard.faults < count:  # noqa: ASYNC110 - counted by a task
            await asyncio.sleep(0.002)
