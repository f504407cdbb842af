from __future__ import annotations

import pytest
from msgspec import structs

from gateway.core.reconcile.reconcile import Rules, Scope, match, needs_arguments
from gateway.core.reconcile.reconcile_calls import CallIndex
from tests.unit.reconcile.history import PAY, SCOPE, History, effect

S = 1_000_000


def between(since_s: int | None, until_s: int | None, *, skew_s: int = 0) -> Scope:
    return structs.replace(
        SCOPE,
        since_us=None if since_s is None else since_s * S,
        until_us=None if until_s is None else until_s * S,
        skew_us=skew_s * S,
    )


def kinds(matched: object) -> list[str]:
    return [one.kind for one in matched.findings]  # type: ignore[attr-defined]


def test_a_row_without_operation_id_has_no_intent() -> None:
    matched = match(SCOPE, {}, [effect(1, "", id="77")])
    assert [(one.kind, one.why) for one in matched.findings] == [
        ("effect_without_intent", "it names no operation")
    ]
    assert matched.findings[0].rows[0].id == "77"


def test_a_call_of_a_tool_that_the_map_does_not_name_explains_nothing() -> None:
    calls = History().call("a", tool="bank.other").index({"a"})
    matched = match(SCOPE, calls, [effect(1, "a")])
    assert "`bank.other`" in matched.findings[0].why
    assert matched.counts.calls == 0


def test_calls_that_nobody_asked_for_are_not_kept() -> None:
    history = History().call("a", tool="bank.other").add("call.refused", "b", reason="x")
    assert history.index() == {}


def test_a_refusal_says_why() -> None:
    calls = History().add("call.refused", "a", reason="policy_denied").index({"a"})
    found = match(SCOPE, calls, [effect(1, "a")]).findings[0]
    assert (found.kind, found.why) == (
        "effect_despite_refusal",
        "the call was refused: policy_denied",
    )


def test_a_held_call_says_what_became_of_it() -> None:
    history = History().add("approval.request", "a", tool={"id": PAY})
    history.add("approval.vote", "a").add("approval.expire", "a")
    found = match(SCOPE, history.index(), [effect(1, "a")]).findings[0]
    assert found.why == "the call was held and never sent: expire"


def test_an_orphan_may_have_had_its_effect() -> None:
    calls = History().intent("a").add("call.orphan", "a", effect="unknown").index()
    assert match(SCOPE, calls, []).counts.unresolved == 1
    assert match(SCOPE, calls, [effect(1, "a")]).findings == []


def test_an_intent_written_again_after_not_sent_counts_as_sent() -> None:
    calls = History().call("a", "not_sent").call("a", "ok").index()
    assert kinds(match(SCOPE, calls, [])) == ["intent_without_effect"]


def test_what_was_sent_stays_sent_whatever_a_broken_log_says_later() -> None:
    history = History().call("a").add("call.refused", "a", reason="x", tool={"id": PAY})
    history.add("call.outcome", "a", delivery="not_sent", status="failed")
    assert history.index()["a"].state == "ok"


def test_records_that_make_no_sense_do_not_stop_an_unverified_reading() -> None:
    index = CallIndex({PAY}, {"7"})
    index.feed({"seq": 0, "type": ["call.intent"], "op": 7})
    index.feed({"seq": 1, "type": "call.refused", "op": 7, "tool": "no object", "ts": "now"})
    assert (index.calls["7"].state, index.calls["7"].start_us) == ("refused", 0)


def test_one_call_may_leave_many_rows_where_the_map_says_so() -> None:
    rows = [effect(1, "a"), effect(2, "a")]
    calls = History().call("a").index()
    assert kinds(match(SCOPE, calls, rows)) == ["effect_twice"]
    many = Scope(tools={PAY: Rules(many=True)})
    matched = match(many, calls, rows)
    assert matched.findings == []
    assert [needs_arguments(many, pair) for pair in matched.pairs] == [False, False]


def test_a_filter_takes_out_what_names_no_operation_of_these_tools() -> None:
    calls = History().call("a").call("b", tool="bank.other").index({"a", "b"})
    rows = [effect(1, "", ignored=0), effect(2, "b", ignored=0), effect(3, "x", ignored=0)]
    matched = match(SCOPE, calls, [*rows, effect(4, "a")])
    assert matched.findings == []
    assert matched.counts.ignored == {0: 3}


@pytest.mark.req("AUD-14")
def test_a_copy_cannot_hide_behind_a_filter_or_a_time() -> None:
    calls = History().call("a").index()
    rows = [effect(1, "a"), effect(2, "a", ignored=0), effect(3, "a", time_us=10**15)]
    found = match(between(0, 100), calls, rows).findings
    assert [len(one.rows) for one in found] == [3]


def test_rows_outside_of_what_is_covered_are_counted_and_left_out() -> None:
    rows = [effect(1, "x", time_us=9 * S), effect(2, "y", time_us=20 * S)]
    matched = match(between(10, 20), {}, [*rows, effect(3, "z", time_us=None)])
    assert (matched.counts.outside, matched.counts.undated) == (2, 1)
    assert [one.op for one in matched.findings] == ["z"]


@pytest.mark.parametrize(
    ("scope", "counted"),
    [
        (between(None, None), "finding"),
        (between(4, 8), "finding"),
        (between(4, 8, skew_s=1), "finding"),
        (between(4, 8, skew_s=2), "at_edge"),
        (between(6, None), "at_edge"),
        (between(None, 6), "at_edge"),
        (between(7, None), "calls_outside"),
        (between(None, 5), "calls_outside"),
        (between(7, None, skew_s=2), "at_edge"),
    ],
)
def test_a_call_without_effect_is_a_finding_when_it_lies_wholly_within(
    scope: Scope, counted: str
) -> None:
    """The call takes from second 5 to second 6."""
    history = History()
    for number in range(5):
        history.add("tools.list", f"before-{number}")
    matched = match(scope, history.call("a").index(), [])
    if counted == "finding":
        assert kinds(matched) == ["intent_without_effect"]
    else:
        assert matched.findings == []
        assert getattr(matched.counts, counted) == 1


def test_an_open_call_may_have_its_effect_at_any_later_time() -> None:
    calls = History().intent("a").index()
    assert match(between(50, 60), calls, []).counts.unresolved == 1
    assert match(between(None, 0), calls, []).counts.calls_outside == 1
