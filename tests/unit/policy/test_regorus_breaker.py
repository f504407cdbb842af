"""Who is refused unasked, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.regorus.regorus_breaker import (
    FORGIVEN_S,
    STRIKES_MAX,
    SUSPENDED_S,
    Breaker,
)

pytestmark = pytest.mark.req("POL-04")
AGENT = (1, "agent")


def test_the_third_strike_suspends_and_each_further_one_does_again() -> None:
    breaker = Breaker()
    assert not breaker
    assert [breaker.strike(AGENT, at) for at in (0.0, 1.0, 2.0)] == [False, False, True]
    assert breaker
    assert breaker.is_suspended(AGENT, 2.0 + SUSPENDED_S - 0.1)
    assert not breaker.is_suspended(AGENT, 2.0 + SUSPENDED_S)
    assert breaker.strike(AGENT, 20.0)
    assert breaker.is_suspended(AGENT, 20.1)


def test_strikes_long_ago_are_forgiven() -> None:
    breaker = Breaker()
    breaker.strike(AGENT, 0.0)
    breaker.strike(AGENT, 1.0)
    assert not breaker.strike(AGENT, 1.0 + FORGIVEN_S)
    assert not breaker.is_suspended(AGENT, 1.0 + FORGIVEN_S)


def test_what_is_known_of_askers_is_bounded() -> None:
    breaker = Breaker()
    for _ in range(STRIKES_MAX):
        breaker.strike(AGENT, 0.0)
    for number in range(4095):
        breaker.strike((number, "other"), 0.0)
    assert breaker.is_suspended(AGENT, 1.0)
    breaker.strike((0, "one more"), 0.0)
    assert not breaker.is_suspended(AGENT, 1.0)


@given(st.lists(st.tuples(st.sampled_from([(1, "a"), (1, "b"), (2, "a")]), st.floats(0, 100))))
def test_nobody_is_suspended_for_what_another_does(
    strikes: list[tuple[tuple[int, str], float]],
) -> None:
    alone, together = Breaker(), Breaker()
    for asker, now_s in sorted(strikes, key=lambda each: each[1]):
        together.strike(asker, now_s)
        if asker == (1, "a"):
            alone.strike(asker, now_s)
    for now_s in (0.0, 50.0, 100.0, 105.0, 200.0):
        assert alone.is_suspended((1, "a"), now_s) == together.is_suspended((1, "a"), now_s)
