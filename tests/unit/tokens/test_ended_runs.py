"""Runs that ended are refused for as long as a token of theirs may live, and then forgotten."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.tokens.ended_runs import EndedRuns

pytestmark = pytest.mark.req("TOK-11")

GRACE_S = 900
RUNS = {f"run-{number}": 1_000 * number for number in range(1, 9)}
"""Runs and their deadlines."""


class Desk:
    """What a gateway does with its ended runs, beside a store that forgets nothing."""

    def __init__(self) -> None:
        self.ended, self.kept = EndedRuns(), set[str]()
        self.over_s = 0

    def end(self, run_id: str) -> None:
        self.kept.add(run_id)
        self.ended.add([run_id])

    def tidy(self, now_s: int) -> None:
        over_s = now_s - GRACE_S
        if self.ended.is_ahead_of(now_s):
            self.ended.go_back([one for one in self.kept if RUNS[one] >= over_s], over_s)
        over = {run_id for run_id, deadline in RUNS.items() if deadline < over_s}
        self.kept |= over
        self.ended.let_go(over, over_s)


@example([(1_901, None), (1_000, None), (100, None)])
@example([(1_901, None), (1_500, None), (700, None)])
@example([(2_950, None), (1_995, None), (1_100, None), (999, None)])
@given(st.lists(st.tuples(st.integers(0, 12_000), st.sampled_from([None, *RUNS])), max_size=12))
def test_whatever_a_clock_shows_no_token_of_an_ended_run_is_good_and_every_other_is(
    steps: list[tuple[int, str | None]],
) -> None:
    desk = Desk()
    for now_s, ends in steps:
        if ends is not None:
            desk.end(ends)
        else:
            desk.tidy(now_s)
        for run_id in desk.kept:
            lives_until = min(now_s + 300, RUNS[run_id])
            assert lives_until <= now_s or desk.ended.bars(run_id, lives_until)
        desk.tidy(now_s)
        for run_id in RUNS.keys() - desk.kept:
            assert not desk.ended.bars(run_id, min(now_s + 300, RUNS[run_id]))


def test_a_run_is_forgotten_once_its_deadline_has_passed() -> None:
    desk = Desk()
    for run_id in RUNS:
        desk.end(run_id)
    desk.tidy(8_500)
    assert desk.ended._ids == {"run-8"}  # noqa: SLF001 - memory has no other witness
