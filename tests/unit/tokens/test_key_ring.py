"""The ring of token keys as a pure state machine; no living token is ever without its key."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tokens import key_ring
from gateway.core.tokens.key_ring import (
    PUBLISHED,
    TRANSITIONS,
    IllegalMoveError,
    KeyRing,
    State,
    Step,
    Timing,
    find_due,
)
from gateway.http.oauth import DOCUMENT_MAX_AGE_S

pytestmark = pytest.mark.req("TOK-07")

NOW_S = 1_800_000_000
TOKEN_MAX_S = 300
SKEW_S = 60
HOUR_S = 3_600
EMPTY = KeyRing(environment="test")
PUBLIC = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}


def add(ring: KeyRing, kid: str, now_s: int = NOW_S) -> KeyRing:
    return key_ring.add(ring, kid=kid, source="", public=PUBLIC, now_s=now_s, own=True)


def state_of(ring: KeyRing, kid: str) -> State | None:
    key = ring.get(kid)
    return None if key is None else key.state


def make_step(ring: KeyRing, step: Step) -> KeyRing:
    """Do a step by its public name; `retire` is what `promote` does to the active key."""
    if step == "retire":
        return key_ring.promote(add(ring, "other"), "other", NOW_S)
    moves = {"promote": key_ring.promote, "drop": key_ring.drop, "withdraw": key_ring.withdraw}
    return moves[step](ring, "k", NOW_S)


def ring_in(state: State) -> KeyRing:
    ring = add(EMPTY, "k")
    if state == "gone":
        return key_ring.withdraw(ring, "k", NOW_S)
    if state in {"active", "retired"}:
        ring = key_ring.promote(ring, "k", NOW_S)
    if state == "retired":
        ring = key_ring.promote(add(ring, "later"), "later", NOW_S)
    return ring


@pytest.mark.parametrize("step", [step for step in get_args(Step) if step != "retire"])
@pytest.mark.parametrize("state", get_args(State))
def test_a_key_moves_along_the_table_and_nowhere_else(state: State, step: Step) -> None:
    ring = ring_in(state)
    assert state_of(ring, "k") == state
    target = TRANSITIONS.get((state, step))
    if target is None:
        with pytest.raises(IllegalMoveError):
            make_step(ring, step)
    else:
        assert state_of(make_step(ring, step), "k") == target


def test_the_key_that_signed_is_retired_by_the_one_that_follows() -> None:
    ring = make_step(ring_in("active"), "retire")
    assert (state_of(ring, "k"), state_of(ring, "other")) == ("retired", "active")


def test_a_key_that_is_gone_never_comes_back() -> None:
    ring = ring_in("gone")
    assert ring.keys[0].public == {}
    with pytest.raises(IllegalMoveError, match="was in the ring before"):
        add(ring, "k")


def test_a_key_that_is_not_there_cannot_move() -> None:
    with pytest.raises(IllegalMoveError):
        key_ring.promote(EMPTY, "k", NOW_S)


def test_a_next_key_signs_only_once_every_cache_of_the_key_set_knows_it() -> None:
    timing = Timing()
    assert timing.publish_s >= DOCUMENT_MAX_AGE_S + SKEW_S
    ring = add(ring_in("active"), "n", NOW_S + 10)
    wanted = KeyRing(environment="test", keys=ring.keys, wanted=True)
    assert find_due(wanted, NOW_S + 9 + timing.publish_s, timing).promote is None
    assert find_due(wanted, NOW_S + 10 + timing.publish_s, timing).promote == "n"
    assert find_due(ring, NOW_S + 10 + timing.publish_s, timing).promote is None  # nobody asked


def test_a_retired_key_is_believed_until_its_last_token_is_over() -> None:
    timing = Timing()
    assert timing.keep_s >= TOKEN_MAX_S + SKEW_S
    ring = ring_in("retired")
    assert find_due(ring, NOW_S + timing.keep_s - 1, timing).drop == ()
    assert find_due(ring, NOW_S + timing.keep_s, timing).drop == ("k",)


def test_the_next_key_is_made_in_time_to_take_over_at_the_active_ones_age() -> None:
    timing = Timing(max_age_s=24 * HOUR_S)
    ring, ahead = ring_in("active"), 24 * HOUR_S - timing.publish_s
    assert not find_due(ring, NOW_S + ahead - 1, timing).make
    assert find_due(ring, NOW_S + ahead, timing).make
    coming = add(ring, "n", NOW_S + ahead)
    assert find_due(coming, NOW_S + 24 * HOUR_S - 1, timing).promote is None
    assert find_due(coming, NOW_S + 24 * HOUR_S, timing).promote == "n"


def test_without_an_age_keys_change_on_command_only() -> None:
    ring = add(ring_in("active"), "n")
    assert find_due(ring, NOW_S + 10_000 * HOUR_S, Timing()) == key_ring.Due()


def test_a_clock_that_was_set_back_never_shortens_what_is_kept() -> None:
    ring = key_ring.promote(add(EMPTY, "a"), "a", NOW_S - HOUR_S)
    ring = key_ring.promote(add(ring, "b", NOW_S), "b", NOW_S - 2 * HOUR_S)
    former = ring.get("a")
    assert former is not None
    assert former.activated_at == former.retired_at == NOW_S


def test_a_record_names_the_key_its_state_and_environment_and_the_person_only_sealed() -> None:
    key = ring_in("active").keys[0]
    entry = key_ring.build_key_change("op", key, "test", "command", by="Ann")
    assert (entry.type, entry.fields) == (
        "token_key.change",
        {"kid": "k", "state": "active", "environment": "test", "why": "command"},
    )
    assert [(opening.path, opening.subject) for opening in entry.openings] == [("by", "ann")]
    assert key_ring.build_key_change("op", key, "test", "start").openings == ()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "turn", "rotate", "restart", "lose"]),
        st.integers(min_value=0, max_value=500),
    ),
    max_size=60,
)


@given(events=EVENTS, max_age_s=st.sampled_from([0, 1_000, HOUR_S]))
def test_at_every_instant_every_living_token_verifies_and_one_key_signs(
    events: list[tuple[str, int]], max_age_s: int
) -> None:
    """Turns come when they come; whatever happens between them, no token loses its key.

    `lose`: the active key's private half is lost, so another signs at once.
    """
    timing, names = Timing(max_age_s=max_age_s), map(str, itertools.count())
    now_s, ring = NOW_S, key_ring.promote(add(EMPTY, "first"), "first", NOW_S)
    living: list[tuple[str, int]] = []
    seen: set[str] = set()
    for event, seconds in events:
        now_s += seconds
        # A token is issued just before anything happens: the worst moment.
        assert ring.active is not None
        living.append((ring.active.kid, now_s + TOKEN_MAX_S))
        if event == "rotate":
            coming = ring.find("next") or (add(ring, next(names), now_s).find("next"))
            if ring.get(coming[0].kid) is None:
                ring = add(ring, coming[0].kid, now_s)
            ring = KeyRing(environment="test", keys=ring.keys, wanted=True)
        elif event == "lose":
            name = next(names)
            ring = key_ring.promote(add(ring, name, now_s), name, now_s)
        elif event == "turn":
            due = find_due(ring, now_s, timing)
            for kid in due.drop:
                ring = key_ring.drop(ring, kid, now_s)
            if due.make:
                ring = add(ring, next(names), now_s)
            if due.promote is not None:
                key = ring.get(due.promote)
                assert key is not None
                assert now_s - key.published_at >= DOCUMENT_MAX_AGE_S
                ring = key_ring.promote(ring, due.promote, now_s)
        published = {key.kid for key in ring.find(*PUBLISHED)}
        assert len(ring.find("active")) == 1
        # Tokens are believed for their life, and a minute more where clocks differ.
        living = [(kid, exp) for kid, exp in living if exp + SKEW_S > now_s]
        assert {kid for kid, _ in living} <= published
        gone = {key.kid for key in ring.find("gone")}
        assert seen <= gone
        seen = gone
