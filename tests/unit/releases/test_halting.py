from __future__ import annotations

import pytest

from gateway.adapters.policy.counted_policy import CountedPolicy
from gateway.core.errors import PolicyError
from gateway.core.policy.decision import Decision, Deny, Permit
from gateway.core.releases.halting import STEP_S, Limits, Rates, Window, find_jump

pytestmark = pytest.mark.req("POL-07")

CALM = Rates(1_000, 100, 0)


@pytest.mark.parametrize(
    ("after", "jumped"),
    [
        (Rates(1_000, 300, 0), None),
        (Rates(1_000, 301, 0), "denials"),
        (Rates(1_000, 100, 20), None),
        (Rates(1_000, 100, 21), "errors"),
        (Rates(1_000, 900, 900), "errors"),
        (Rates(200, 100, 0), "denials"),
        (Rates(199, 199, 199), None),
        (Rates(), None),
    ],
)
def test_a_jump_is_a_rise_of_a_share_over_enough_calls(after: Rates, jumped: str | None) -> None:
    assert find_jump(CALM, after, Limits()) == jumped


def test_too_few_calls_before_say_nothing() -> None:
    assert find_jump(Rates(199, 0, 0), Rates(1_000, 1_000, 0), Limits()) is None


def test_a_halt_that_is_switched_off_does_not_happen() -> None:
    assert find_jump(CALM, Rates(1_000, 1_000, 1_000), Limits(enabled=False)) is None


def test_fewer_denials_are_no_jump() -> None:
    assert find_jump(Rates(1_000, 900, 500), Rates(1_000, 0, 0), Limits()) is None


def test_a_window_forgets_what_is_older_than_it() -> None:
    window = Window(window_s=2 * STEP_S)
    for second in range(4):
        window.count("deny")
        window.count("permit")
        window.turn(second * STEP_S)
    window.count("error")
    assert window.rates() == Rates(5, 2, 1)


class Engine:
    """Answers what it is told to, or fails."""

    revision = "sha256:1"

    def __init__(self, *answers: Decision | None) -> None:
        self.answers = list(answers)

    def reads_ledger(self, tool_id: str, phase: str) -> bool:
        return (tool_id, phase) == ("a", "call")

    def concerns(self, tool_id: str, phase: str) -> bool:
        return (tool_id, phase) == ("b", "result")

    async def decide(self, tool_id: str, phase: str, document: bytes) -> Decision:
        del tool_id, phase, document
        answer = self.answers.pop(0)
        if answer is None:
            raise PolicyError("late", code="policy_timeout")
        return answer

    async def decide_many(self, items: list[tuple[str, bytes]], phase: str) -> list[Decision]:
        return [await self.decide(tool_id, phase, document) for tool_id, document in items]


async def test_answers_on_calls_are_counted_and_nothing_else_is_changed() -> None:
    permit, deny = Permit((), (), "r"), Deny((), "r")
    window = Window(60)
    engine = Engine(permit, deny, None, deny, permit)
    counted = CountedPolicy(engine, window.count)  # type: ignore[arg-type]
    assert counted.revision == "sha256:1"
    assert counted.reads_ledger("a", "call")
    assert counted.concerns("b", "result")
    assert await counted.decide("a", "call", b"") is permit
    assert await counted.decide("a", "call", b"") is deny
    with pytest.raises(PolicyError):
        await counted.decide("a", "call", b"")
    assert await counted.decide("a", "result", b"") is deny
    assert await counted.decide_many([("a", b"")], "list") == [permit]
    assert window.rates() == Rates(3, 1, 1)
