"""Run history: labels, limits, egress and the last 24 hours, and all of it again from the log."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.family import LABELS_MAX, WINDOW_MAX_CALLS, Charge, Family
from gateway.core.calls.ledger import Ledger
from gateway.core.calls.outputs import Output, Vouched
from gateway.core.policy.obligations import Limit
from gateway.core.records.call_records import _charge
from gateway.core.refusal import Refusal
from gateway.core.tokens.spending import Spender
from gateway.core.tokens.token import Grant
from tests.unit.connectors.calls import build_tool

pytestmark = pytest.mark.req("POL-02")

READ = build_tool("look", effect="read", labels=("untrusted",))
SEND = build_tool("send", effect="external_send", sinks=("/to",), sums=("/amount",))
TOOLS = {"look": READ, "send": SEND}
HOUR = 3600
T0 = 1_800_000_000


def spender(run: str = "run-1", payer: str = "lars bot") -> Spender:
    return Spender(run, run, payer=payer)


def charge(ledger: Ledger, tool: str = "look", at: int = T0, **more: Any) -> Charge | Refusal:  # noqa: ANN401
    run = more.pop("spender", spender())
    arguments = {"amount": more.pop("amount", 1)}
    return ledger.reserve(run, TOOLS[tool], Grant("srv"), arguments, now_s=at, **more)


def made(ledger: Ledger, tool: str = "look", at: int = T0, **more: Any) -> Charge:  # noqa: ANN401
    found = charge(ledger, tool, at, **more)
    assert isinstance(found, Charge)
    return found


def intent(op: int, of: Charge) -> dict[str, Any]:
    """The record of a charge, as it is read back from the log."""
    record = {"type": "call.intent", "op": str(op), "charge": _charge(of)}
    read: dict[str, Any] = orjson.loads(orjson.dumps(record))
    return read


def outcome(op: int, delivery: str = "sent", **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"type": "call.outcome", "op": str(op), "delivery": delivery, **more}


@pytest.mark.req("POL-01")
def test_a_limit_bounds_the_calls_of_a_run_and_gives_back_with_them() -> None:
    ledger, twice = Ledger(), [Limit(type="limit", max_calls=2)]
    first = made(ledger, limits=twice)
    made(ledger, limits=twice)
    assert charge(ledger, limits=twice) == Refusal("decide", "limit_exhausted")
    assert charge(ledger, limits=twice, spender=spender("run-2")) != Refusal(
        "decide", "limit_exhausted"
    )
    made(ledger, "send", limits=twice)  # another tool
    ledger.give_back(first)
    made(ledger, limits=twice)
    assert not ledger.keeps("run-1", READ.id, [Limit(type="limit", max_calls=1)], T0)
    assert ledger.keeps("run-1", READ.id, twice, T0)


@pytest.mark.req("POL-01")
def test_a_limit_with_a_window_bounds_the_calls_within_it() -> None:
    ledger, limit = Ledger(), [Limit(type="limit", max_calls=2, window="10m")]
    for at in (T0, T0 + 1):
        made(ledger, at=at, limits=limit)
    assert charge(ledger, at=T0 + 599, limits=limit) == Refusal("decide", "limit_exhausted")
    made(ledger, at=T0 + 600, limits=limit)
    assert charge(ledger, at=T0 + 600, limits=limit) == Refusal("decide", "limit_exhausted")
    assert charge(ledger, at=T0 - 100, limits=limit) == Refusal("decide", "limit_exhausted")
    made(ledger, at=T0 + 601, limits=limit)


def test_times_are_remembered_without_growing() -> None:
    ledger = Ledger()
    for number in range(1_200):
        made(ledger, at=T0 + number)
    family = ledger.family("run-1")
    assert family.calls_since(READ.id, T0) == WINDOW_MAX_CALLS
    assert family.calls_since("", T0 + 1_199 - 60) == 60
    assert sum(map(len, family.times.values())) <= 4 * WINDOW_MAX_CALLS
    assert sum(map(len, family.dump()["times"].values())) == 2 * WINDOW_MAX_CALLS


def test_labels_of_policy_join_those_of_the_manifest_and_have_an_end() -> None:
    ledger = Ledger()
    made(ledger, labels=["pii"])
    assert ledger.family("run-1").view()["labels"] == ["pii", "untrusted"]
    many = [f"l{number}" for number in range(LABELS_MAX)]
    assert charge(ledger, labels=many) == Refusal("decide", "obligation_unmet")
    assert not ledger.join("run-1", many)
    assert ledger.join("run-1", ["secret"])
    assert ledger.family("run-1").view()["labels"] == ["pii", "secret", "untrusted"]


def test_a_run_says_how_far_it_is_and_where_it_sent_things() -> None:
    ledger = Ledger()
    made(ledger)
    back = made(ledger, "send", egress="unseen")
    made(ledger, "send", egress="trusted")
    ledger.give_back(back)
    view = ledger.family("run-1").view_run()
    assert (view["calls"], view["step"]) == (2, 4)
    assert view["egress"] == {"servers": {"srv": 1}, "classes": {"unseen": 0, "trusted": 1}}


def test_the_last_24_hours_hold_all_runs_of_one_agent_for_one_launcher() -> None:
    ledger = Ledger()
    made(ledger, "send", amount=5)
    made(ledger, "send", at=T0 + 23 * HOUR, amount=7, spender=spender("run-2"))
    made(ledger, "send", at=T0 + 23 * HOUR, amount=9, spender=spender("run-3", "lars other"))
    day = ledger.day("lars bot", T0 + 24 * HOUR).view()
    assert day == {"counts": {SEND.id: 2}, "sums": {f"{SEND.id}#/amount": 12}}
    later = ledger.day("lars bot", T0 + 25 * HOUR).view()
    assert later == {"counts": {SEND.id: 1}, "sums": {f"{SEND.id}#/amount": 7}}
    assert ledger.day("lars bot", T0 + 49 * HOUR).view() == {"counts": {}, "sums": {}}
    assert ledger.day("nobody", T0).view() == {"counts": {}, "sums": {}}


@given(st.lists(st.tuples(st.integers(-60, 60), st.integers(0, 60)), min_size=1, max_size=12))
def test_a_day_holds_the_hours_of_the_last_24_in_whatever_order_they_come(
    steps: list[tuple[int, int]],
) -> None:
    ledger, kept, now = Ledger(), list[int](), T0 // HOUR
    for hour, later in steps:
        made(ledger, at=T0 + hour * HOUR)
        kept = [each for each in kept if each >= T0 // HOUR + hour - 24]
        kept.append(T0 // HOUR + hour)
        now = max(now, T0 // HOUR + later)
        kept = [each for each in kept if each >= now - 24]
        counts = ledger.day("lars bot", now * HOUR).view()["counts"]
        assert counts.get(READ.id, 0) == len(kept)


def test_what_was_not_sent_is_no_part_of_the_day_even_after_its_hour_is_over() -> None:
    ledger = Ledger()
    one, two = made(ledger, "send", amount=5), made(ledger, "send", amount=7)
    ledger.give_back(one)
    assert ledger.day("lars bot", T0).view()["sums"] == {f"{SEND.id}#/amount": 7}
    ledger.day("lars bot", T0 + 48 * HOUR)
    ledger.give_back(two)
    assert ledger.day("lars bot", T0 + 48 * HOUR).view() == {"counts": {}, "sums": {}}


def test_a_day_outlives_its_runs_and_goes_when_it_is_over() -> None:
    ledger = Ledger()
    made(ledger, "send")
    ledger.forget(["run-1"])
    again = Ledger()
    again.restore(ledger.snapshot())
    assert again.day("lars bot", T0).view()["counts"] == {SEND.id: 1}
    made(again, "send", at=T0 + 48 * HOUR, spender=spender("run-9", "lars other"))
    assert [key for key in again.snapshot() if key.startswith("day:")] == ["day:lars other"]


@pytest.mark.req("GW-10")
def test_a_clock_that_was_ahead_for_one_call_does_not_empty_the_days_that_follow() -> None:
    ledger, kept = Ledger(), dict[str, Any]()
    made(ledger, "send", at=T0 + 72 * HOUR, spender=spender("run-2", "lars other"))
    for minute in range(3):  # set right, and kept now and then
        made(ledger, "send", at=T0 + 60 * minute)
        keep(kept, ledger)
    again = Ledger()
    again.restore(kept)
    keep(kept, again)
    for each in (ledger, again):
        assert each.day("lars bot", T0 + 180).view()["counts"] == {SEND.id: 3}


def test_a_snapshot_of_an_earlier_version_is_read() -> None:
    old = {"calls": 3, "counts": {READ.id: 3}, "sums": {}, "labels": ["pii"], "recent": [READ.id]}
    family = Family.load("run-1", old)
    assert (family.step, family.egress["servers"], family.times) == (3, {}, {})
    assert family.sightings.doubt


def test_data_that_comes_untrusted_into_a_run_was_not_seen_by_anybody() -> None:
    ledger = Ledger()
    ledger.begin("run-1", ["pii"])
    assert not ledger.family("run-1").sightings.doubt
    ledger.begin("run-1", ["untrusted"])
    assert ledger.family("run-1").sightings.doubt


def test_all_families_together_remember_no_more_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.core.calls.ledger._ROOM", 10)
    ledger = Ledger()
    many = Output({number: Vouched(()) for number in range(10)}, frozenset(range(20, 25)))
    ledger.learn("run-1", many)
    ledger.learn("run-2", many)
    assert ledger.family("run-2").sightings.size == 0
    assert ledger.family("run-2").sightings.doubt
    ledger.forget(["run-1"])
    ledger.learn("run-3", many)
    assert ledger.family("run-3").sightings.size == 15


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["look", "send"]),
        st.sampled_from(["run-1", "run-2"]),
        st.integers(0, 30 * HOUR),
        st.sampled_from(["sent", "unknown", "not_sent", "open"]),
        st.sampled_from([(), ("pii",), ("secret",)]),
        st.sampled_from([None, "trusted", "untrusted"]),
    ),
    max_size=20,
)


@given(STEPS, st.integers(0, 20))
def test_a_restart_rebuilds_the_same_view_from_snapshot_and_log(
    steps: list[tuple[str, str, int, str, tuple[str, ...], Any]], cut: int
) -> None:
    """However the history goes, and wherever between two calls the snapshot was taken."""
    live, log, snapshot, start = Ledger(), list[dict[str, Any]](), None, 0
    for op, (tool, run, after, delivery, labels, egress) in enumerate(steps):
        if op == cut:
            snapshot, start = orjson.loads(orjson.dumps(live.snapshot())), len(log)
        before = {name: set(live.family(name).labels) for name in ("run-1", "run-2")}
        each = made(live, tool, T0 + after, spender=spender(run), egress=egress)
        log.append(intent(op, each))
        if delivery == "not_sent":
            live.give_back(each)
        elif delivery == "sent" and labels:
            assert live.join(run, labels)
            log.append(outcome(op, delivery, family=run, labels=list(labels)))
            continue
        if delivery != "open":
            log.append(outcome(op, delivery))
        assert all(live.family(name).labels >= known for name, known in before.items())
    again = Ledger()
    again.restore(snapshot or {})
    for record in log[start:]:
        again.replay(record)
    now = T0 + 30 * HOUR
    for run in ("run-1", "run-2"):
        assert again.family(run).view_run() == live.family(run).view_run()
        assert again.family(run).recent == live.family(run).recent
        for name in ("", READ.id, SEND.id):
            assert again.family(run).calls_since(name, T0) == live.family(run).calls_since(name, T0)
    assert again.day("lars bot", now).view() == live.day("lars bot", now).view()


@given(STEPS, st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_what_has_changed_is_all_that_whoever_keeps_the_rest_needs(
    steps: list[tuple[str, str, int, str, tuple[str, ...], Any]], asked: set[int], lost: set[int]
) -> None:
    """Whatever happens to families, whenever changes are asked for, and wherever keeping fails."""
    live, kept = Ledger(), dict[str, Any]()
    for op, (tool, run, after, delivery, labels, egress) in enumerate(steps):
        if op in asked and op in lost:
            live.untake(live.take_changes())
        elif op in asked:
            keep(kept, live)
        each = made(live, tool, T0 + after, spender=spender(run), egress=egress)
        if delivery == "not_sent":
            live.give_back(each)
        elif delivery == "open":
            live.forget([run])
        elif delivery == "unknown":
            live.begin(run, labels)
        else:
            live.join(run, labels)
    keep(kept, live)
    assert kept == orjson.loads(orjson.dumps(live.snapshot()))


def test_a_family_that_rests_is_kept_once_and_one_that_goes_on_is_kept_again() -> None:
    live, kept = Ledger(), dict[str, Any]()
    made(live, "send", spender=spender("run-1"))
    made(live, "send", spender=spender("run-2", "lars other"))
    keep(kept, live)
    made(live, "send", at=T0 + 48 * HOUR, spender=spender("run-1"))
    assert live.take_changes().keys() == {"run-1", "day:lars bot", "day:lars other"}
    assert live.take_changes() == {}
    made(live, "send", at=T0 + 48 * HOUR, spender=spender("run-1"))
    live.untake(dict.fromkeys(["day:lars other"]))
    keep(kept, live)
    assert kept == orjson.loads(orjson.dumps(live.snapshot()))


def keep(kept: dict[str, Any], live: Ledger) -> None:
    """Bring what is kept up to date, as a store does."""
    for name, row in orjson.loads(orjson.dumps(live.take_changes())).items():
        kept[name] = row
        if row is None:
            del kept[name]
