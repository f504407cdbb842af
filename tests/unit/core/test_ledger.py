"""The ledger: exact, never negative, and the same when replayed from the log."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.calls.family import Charge
from gateway.core.calls.ledger import Ledger, view_budget
from gateway.core.refusal import Refusal
from gateway.core.tokens.spending import Spender
from gateway.core.tokens.token import Budget, Grant
from tests.unit.connectors.calls import build_tool

TOOL = build_tool("refund", effect="money", sums=("/amount",), labels=("pii",))
SUM = "srv.refund#/amount"
AMOUNTS = st.integers(0, 2**53) | st.floats(0, 2**53, allow_nan=False)


SPENDER = Spender("root", "root")


def charge_of(ledger: Ledger, amount: object, spender: Spender = SPENDER) -> Charge:
    charge = ledger.reserve(spender, TOOL, Grant("srv"), {"amount": amount})
    assert isinstance(charge, Charge)
    return charge


def record_of(kind: str, op: int, charge: Charge | None = None, delivery: str = "sent") -> Any:  # noqa: ANN401 - a record
    record: dict[str, Any] = {"type": kind, "op": str(op), "delivery": delivery}
    if charge is not None:
        record["charge"] = {
            "family": charge.family,
            "tool": charge.tool,
            "sums": charge.sums,
            "labels": list(charge.labels),
            "also": list(charge.also),
        }
    return record


@pytest.mark.req("GW-10")
@given(st.lists(st.tuples(AMOUNTS, st.sampled_from(["sent", "unknown", "not_sent", "open"]))))
def test_sums_are_exact_and_a_replay_of_the_log_gives_the_same_ledger(
    calls: list[tuple[float, str]],
) -> None:
    live, replayed = Ledger(), Ledger()
    family = live.family("root")
    with localcontext(prec=2_000):
        expected = sum((Decimal(str(a)) for a, d in calls if d != "not_sent"), Decimal(0))
    for op, (amount, delivery) in enumerate(calls):
        charge = charge_of(live, amount)
        replayed.replay(record_of("call.intent", op, charge))
        if delivery == "not_sent":
            live.give_back(charge)
        if delivery != "open":
            replayed.replay(record_of("call.outcome", op, delivery=delivery))
    assert family.sums.get(SUM, Decimal(0)) == expected
    assert family.calls == family.counts.get("srv.refund", 0)
    assert family.calls == sum(delivery != "not_sent" for _, delivery in calls)
    assert replayed.family("root").dump() == family.dump()


@given(st.lists(st.tuples(AMOUNTS, st.booleans()), max_size=30), st.integers(0, 5))
def test_nothing_is_ever_negative_and_max_calls_holds(
    steps: list[tuple[float, bool]], max_calls: int
) -> None:
    ledger = Ledger()
    family = ledger.family("root")
    open_charges: list[Charge] = []
    for amount, give_back in steps:
        if give_back and open_charges:
            ledger.give_back(open_charges.pop())
        else:
            grant = Grant("srv", max_calls=max_calls)
            charge = ledger.reserve(SPENDER, TOOL, grant, {"amount": amount})
            if isinstance(charge, Refusal):
                assert charge.code == "calls_exhausted"
                assert family.counts.get("srv.refund", 0) == max_calls
            else:
                open_charges.append(charge)
        assert 0 <= family.counts.get("srv.refund", 0) <= max_calls
        assert family.calls >= 0
        assert all(value >= 0 for value in family.sums.values())


def test_a_tiny_amount_is_not_lost_beside_a_huge_one() -> None:
    ledger = Ledger()
    huge = charge_of(ledger, 2**53)
    charge_of(ledger, 1e-300)
    ledger.give_back(huge)
    assert ledger.family("root").sums[SUM] == Decimal("1E-300")


@pytest.mark.req("GW-10")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"amount": -1},
        {"amount": -0.5},
        {"amount": True},
        {"amount": "5"},
        {"amount": None},
        {"amount": [5]},
        {"amount": 2**53 + 2.0},
        {"amount": 1e308},
    ],
)
def test_an_amount_that_cannot_be_added_is_refused(arguments: dict[str, Any]) -> None:
    ledger = Ledger()
    family = ledger.family("root")
    refusal = ledger.reserve(SPENDER, TOOL, Grant("srv"), arguments)
    assert refusal == Refusal("decide", "arguments_invalid", "`/amount` must be 0 to 2^53")
    assert (family.calls, family.counts, family.sums) == (0, {}, {})


@pytest.mark.req("POL-02")
@pytest.mark.parametrize("arguments", [{"amount": 5}, {"amount": 5, "tip": None}])
def test_an_amount_that_may_be_left_out_counts_as_nothing(arguments: dict[str, Any]) -> None:
    tool = build_tool("refund", effect="money", sums=("/amount", "/tip"), sums_optional=("/tip",))
    ledger = Ledger()
    charge = ledger.reserve(SPENDER, tool, Grant("srv"), arguments)
    assert isinstance(charge, Charge)
    assert charge.sums == {SUM: "5"}
    # A budget of it could not be kept, and what is given must be an amount all the same.
    tight = replace(SPENDER, budget=Budget(sums={"srv.refund#/tip": 100}))
    refused = ledger.reserve(tight, tool, Grant("srv"), arguments)
    assert refused == Refusal("decide", "budget_exhausted")
    wrong = ledger.reserve(SPENDER, tool, Grant("srv"), {"amount": 5, "tip": "1"})
    assert wrong == Refusal("decide", "arguments_invalid", "`/tip` must be 0 to 2^53")
    missing = ledger.reserve(SPENDER, tool, Grant("srv"), {"tip": 1})
    assert missing == Refusal("decide", "arguments_invalid", "`/amount` must be 0 to 2^53")


def test_policies_see_sums_as_numbers_however_large_they_grow() -> None:
    ledger = Ledger()
    family = ledger.family("root")
    for _ in range(3):
        charge_of(ledger, 2**53)
    seen = family.view()["sums"][SUM]
    assert isinstance(seen, float)
    assert seen == 3.0 * 2**53
    assert family.view()["labels"] == ["pii"]


@given(st.lists(AMOUNTS, min_size=1, max_size=8), st.data())
def test_what_policies_see_is_the_exact_sum_whatever_kinds_of_numbers_it_is_made_of(
    amounts: list[float], data: st.DataObject
) -> None:
    ledger = Ledger()
    charges = [charge_of(ledger, amount) for amount in amounts]
    back = data.draw(st.sets(st.sampled_from(range(len(amounts)))))
    for number in back:
        ledger.give_back(charges[number])
    again = Ledger()
    again.restore(ledger.snapshot())
    with localcontext(prec=2_000):
        left = (Decimal(str(a)) for number, a in enumerate(amounts) if number not in back)
        exact = sum(left, Decimal(0))
        whole = exact <= 2**53 and exact == exact.to_integral_value()
    for family in (ledger.family("root"), again.family("root")):
        seen = family.view()["sums"][SUM]
        assert seen == (int(exact) if whole else float(exact))
        assert isinstance(seen, int) == whole


def test_labels_and_history_never_shrink() -> None:
    ledger = Ledger()
    family = ledger.family("root")
    ledger.give_back(charge_of(ledger, 1))
    assert family.view() == {
        "calls": 0,
        "counts": {"srv.refund": 0},
        "sums": {SUM: 0},
        "labels": ["pii"],
    }
    assert list(family.recent) == ["srv.refund"]


def test_a_snapshot_is_read_back_and_rolled_forward() -> None:
    ledger = Ledger()
    charge = charge_of(ledger, 0.1)
    again = Ledger()
    again.restore(ledger.snapshot())
    assert again.snapshot() == ledger.snapshot()
    again.replay(record_of("call.intent", 1, charge))
    again.replay(record_of("call.outcome", 1, delivery="sent"))
    again.replay(record_of("call.outcome", 1, delivery="not_sent"))  # closed already: no effect
    again.replay(record_of("call.refused", 2))
    assert again.family("root").sums[SUM] == Decimal("0.2")


def test_families_are_apart() -> None:
    ledger = Ledger()
    charge_of(ledger, 5)
    assert ledger.family("two").calls == 0


def test_a_family_whose_run_is_over_is_let_go() -> None:
    ledger = Ledger()
    ledger.family("over").calls = 3
    ledger.family("live").calls = 1
    ledger.forget(["over", "never seen"])
    assert list(ledger.snapshot()) == ["live"]
    assert ledger.family("over").calls == 0


@pytest.mark.req("TOK-11")
def test_policies_see_what_a_budget_leaves_and_never_less_than_nothing() -> None:
    ledger, budget = Ledger(), Budget(calls=2, sums={SUM: 10})
    seen = [view_budget(budget, ledger.family("root"))]
    for amount in (4, 8, 1):
        charge_of(ledger, amount)
        seen.append(view_budget(budget, ledger.family("root")))
    assert [one["calls"] for one in seen] == [{"max": 2, "left": n} for n in (2, 1, 0, 0)]
    assert [one["sums"] for one in seen] == [{SUM: {"max": 10, "left": n}} for n in (10, 6, 0, 0)]
    assert view_budget(Budget(), ledger.family("root")) == {}
    assert view_budget(Budget(calls=9), ledger.family("root")) == {"calls": {"max": 9, "left": 6}}


@pytest.mark.req("POL-02")
def test_of_a_run_with_a_past_in_the_log_nobody_knows_any_more_what_it_has_seen() -> None:
    live, again = Ledger(), Ledger()
    again.replay(record_of("call.intent", 1, charge_of(live, 1)))
    sightings = again.family("root").sightings
    assert (sightings.doubt, sightings.settled) == (True, True)
