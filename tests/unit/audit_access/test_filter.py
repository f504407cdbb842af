"""Which records a filter takes, and that no line is passed over that it would take."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.canonical import encode_record
from gateway.core.log.audit_filter import Filter, Selection, parse_when

INTENT: dict[str, Any] = {
    "seq": 5,
    "ts": 1_000,
    "type": "call.intent",
    "op": "op-1",
    "actor": {"agent": "bot", "run": "run-1"},
    "tool": {"id": "shop.refund"},
    "decision": {"outcome": "permit", "reasons": ["shop:small", "house:ok"]},
}
OUTCOME: dict[str, Any] = {
    "seq": 6,
    "ts": 2_000,
    "type": "call.outcome",
    "op": "op-1",
    "intent": 5,
    "status": "ok",
}
ISSUE = {"seq": 1, "ts": 1, "type": "token.issue", "op": "o", "agent": "bot", "run": "run-1"}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"agent": "bot"},
        {"tool": "shop.refund"},
        {"rule": "house:ok"},
        {"rule": "shop:"},
        {"op": "op-1"},
        {"run": "run-1"},
        {"decision": "permit"},
        {"types": ("call.intent",)},
        {"types": ("boot", "call.*")},
        {"since_us": 1_000, "until_us": 1_001},
    ],
)
def test_a_record_passes_what_it_fits(asked: dict[str, Any]) -> None:
    selection = Selection(Filter(**asked))
    assert selection.may_take(encode_record(INTENT))
    assert selection.takes(INTENT)


@pytest.mark.parametrize(
    "asked",
    [
        {"agent": "bo"},
        {"tool": "shop"},
        {"rule": "ok"},
        {"rule": "house"},
        {"rule": "hous:"},
        {"op": "op"},
        {"run": "run-2"},
        {"decision": "deny"},
        {"types": ("call",)},
        {"types": ("boot", "approval.*")},
        {"since_us": 1_001},
        {"until_us": 1_000},
    ],
)
def test_a_record_does_not_pass_what_it_does_not_fit(asked: dict[str, Any]) -> None:
    assert not Selection(Filter(**asked)).takes(INTENT)


def test_a_refusal_without_a_policy_is_found_by_its_reason() -> None:
    refused = {"seq": 1, "type": "call.refused", "reason": "token_expired"}
    assert Selection(Filter(rule="token_expired")).takes(refused)
    assert Selection(Filter(agent="bot")).takes(ISSUE)
    assert Selection(Filter(run="run-1")).takes(ISSUE)


def test_a_record_without_a_time_is_of_no_time() -> None:
    assert Selection(Filter()).takes({"seq": 1})
    assert not Selection(Filter(since_us=0)).takes({"seq": 1})


def test_how_a_call_ended_goes_with_it() -> None:
    selection = Selection(Filter(tool="shop.refund"))
    assert not selection.may_take(encode_record(OUTCOME))
    assert not selection.takes(OUTCOME)
    assert selection.takes(INTENT)
    assert selection.may_take(encode_record(OUTCOME))
    assert not selection.takes({**OUTCOME, "intent": 4})
    assert selection.takes(OUTCOME)
    assert not selection.takes(OUTCOME)


def test_an_outcome_is_found_by_the_call_that_its_type_keeps_out() -> None:
    selection = Selection(Filter(tool="shop.refund", types=("call.outcome",)))
    assert selection.may_take(encode_record(INTENT))
    assert not selection.takes(INTENT)
    assert selection.takes(OUTCOME)


def test_without_a_call_asked_for_outcomes_stand_for_themselves() -> None:
    assert Selection(Filter(types=("call.outcome",))).takes(OUTCOME)
    selection = Selection(Filter(types=("call.intent",)))
    assert selection.takes(INTENT)
    assert not selection.takes(OUTCOME)


def test_a_call_that_began_before_the_time_is_not_followed() -> None:
    selection = Selection(Filter(tool="shop.refund", since_us=1_500))
    assert not selection.takes(INTENT)
    assert not selection.takes(OUTCOME)


def test_a_human_is_found_by_the_key_of_their_values() -> None:
    selection = Selection(Filter(), {"k1", "k2"})
    assert selection.takes(INTENT, {5})
    assert selection.takes(OUTCOME, ())
    assert not selection.takes({**INTENT, "seq": 7}, {5})
    assert selection.takes({"seq": 9, "type": "redact", "subject": "k2"}, ())


VALUES = st.sampled_from(["bot", "b\u00fc\u2028", 'q"\\', "\u0001\u001f\u007f", "a"])


@given(agent=VALUES, asked=VALUES, rule=VALUES, wanted=VALUES)
def test_a_line_that_is_passed_over_holds_no_record_that_passes(
    agent: str, asked: str, rule: str, wanted: str
) -> None:
    record = {
        **INTENT,
        "actor": {"agent": agent},
        "decision": {"outcome": "deny", "reasons": [rule]},
    }
    selection = Selection(Filter(agent=asked, rule=wanted))
    line = encode_record(record)
    taken = selection.takes(orjson.loads(line))
    assert taken == (agent == asked and rule == wanted)
    assert selection.may_take(line) or not taken


NOW = 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("90s", NOW - 90_000_000),
        ("5m", NOW - 300_000_000),
        ("2h", NOW - 7_200_000_000),
        ("7d", NOW - 604_800_000_000),
        ("1w", NOW - 604_800_000_000),
        ("2023-11-14", 1_699_920_000_000_000),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20.000001+01:00", NOW + 1),
    ],
)
def test_a_time_is_iso_8601_or_how_long_ago(text: str, us: int) -> None:
    assert parse_when(text, NOW) == us


@pytest.mark.parametrize("text", ["", "0d", "7", "7y", "-7d", "yesterday", "2023-11-14T22:13:20"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_when(text, NOW)
