from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.policy.decision import ApprovalSpec, Deny, Hold, Obligation, Permit, Reason, Stage
from gateway.core.policy.policy_answer import read_answer

REVISION = "sha256:" + "ab" * 32
PERMIT: dict[str, Any] = {"outcome": "permit", "reasons": [{"code": "ok"}], "obligations": []}
APPROVAL: dict[str, Any] = {
    "stages": [{"any_of": [{"approve": 2, "deny": 1, "who": {"groups": ["finance"]}}]}],
    "ttl": "15m",
    "execute": "on_redeem",
}
HOLD: dict[str, Any] = {**PERMIT, "outcome": "hold", "approval": APPROVAL}


def read(answer: object) -> Permit | Hold | Deny:
    return read_answer(orjson.dumps(answer), REVISION)


def code(answer: object) -> str:
    decision = read(answer)
    assert isinstance(decision, Deny)
    return decision.reasons[0].code


@pytest.mark.req("GW-11")
def test_a_well_formed_permit_is_a_permit() -> None:
    answer = {
        "outcome": "permit",
        "reasons": [{"code": "ok", "message": "fine", "policy": "reads"}],
        "obligations": [{"type": "redact", "pointers": ["/card"]}],
    }
    assert read(answer) == Permit(
        reasons=(Reason(code="ok", message="fine", policy="reads"),),
        obligations=(Obligation("redact", {"type": "redact", "pointers": ["/card"]}),),
        revision=REVISION,
    )


def test_a_well_formed_hold_says_who_must_agree() -> None:
    decision = read(HOLD)
    assert isinstance(decision, Hold)
    stage = Stage(approve=2, deny=1, groups=("finance",))
    assert decision.approval == ApprovalSpec(stages=((stage,),), ttl_s=900, execute="on_redeem")


def test_a_deny_keeps_its_reasons() -> None:
    answer = {"outcome": "deny", "reasons": [{"code": "over_limit"}], "obligations": []}
    assert read(answer) == Deny(reasons=(Reason(code="over_limit"),), revision=REVISION)


@pytest.mark.req("GW-11")
def test_undefined_is_a_deny() -> None:
    decision = read_answer(None, REVISION)
    assert isinstance(decision, Deny)
    assert decision.reasons[0].code == "policy_undefined"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        None,
        True,
        "permit",
        [PERMIT],
        {**PERMIT, "outcome": "allow"},
        {**PERMIT, "outcome": None},
        {**PERMIT, "extra": 1},
        {**PERMIT, "approval": APPROVAL},
        {**PERMIT, "approval": None},
        {"outcome": "permit"},
        {"outcome": "permit", "reasons": []},
        {"outcome": "permit", "obligations": []},
        {**PERMIT, "reasons": [{"code": "ok"}] * 33},
        {**PERMIT, "reasons": [{"code": "Not a code"}]},
        {**PERMIT, "reasons": [{"code": "c" * 65}]},
        {**PERMIT, "reasons": [{"code": ""}]},
        {**PERMIT, "reasons": [{"message": "no code"}]},
        {**PERMIT, "reasons": ["ok"]},
        {**PERMIT, "reasons": [{"code": "ok", "more": 1}]},
        {**PERMIT, "reasons": [{"code": "ok", "message": "x" * 257}]},
        {**PERMIT, "reasons": [{"code": "ok", "message": "€" * 86}]},
        {**PERMIT, "obligations": ["redact"]},
        {**PERMIT, "obligations": [{"type": "redact"}] * 33},
    ],
)
def test_anything_else_is_a_deny(answer: object) -> None:
    assert code(answer) == "policy_answer_invalid"


@pytest.mark.parametrize(
    "obligation", [{"type": "dance"}, {}, {"type": None}, {"type": ["redact"]}]
)
def test_an_unknown_obligation_is_a_deny(obligation: object) -> None:
    assert code({**PERMIT, "obligations": [obligation]}) == "obligation_unknown"


def alternative(**changes: object) -> dict[str, Any]:
    one = {"approve": 1, "deny": 1, "who": {"groups": ["finance"]}, **changes}
    return {**APPROVAL, "stages": [{"any_of": [one]}]}


def test_a_hold_has_no_more_ways_to_be_met_than_can_be_tried_with_every_vote() -> None:
    four = {"any_of": APPROVAL["stages"][0]["any_of"] * 4}
    most = {**HOLD, "approval": {**APPROVAL, "stages": [four] * 5}}
    assert isinstance(read(most), Hold)
    more = {**HOLD, "approval": {**APPROVAL, "stages": [four] * 6}}
    assert code(more) == "policy_answer_invalid"


@pytest.mark.parametrize(
    "approval",
    [
        None,
        {},
        {**APPROVAL, "stages": []},
        {**APPROVAL, "stages": [{"any_of": []}]},
        {**APPROVAL, "stages": [{"any_of": APPROVAL["stages"][0]["any_of"], "sod": True}]},
        {**APPROVAL, "stages": APPROVAL["stages"] * 17},
        {**APPROVAL, "stages": [{"any_of": APPROVAL["stages"][0]["any_of"] * 17}]},
        {**APPROVAL, "ttl": "0m"},
        {**APPROVAL, "ttl": "31d"},
        {**APPROVAL, "ttl": 900},
        {**APPROVAL, "ttl": "soon"},
        {**APPROVAL, "execute": "now"},
        {**APPROVAL, "escalate": {}},
        alternative(approve=0),
        alternative(approve=17),
        alternative(approve=True),
        alternative(deny=0),
        alternative(who={"groups": []}),
        alternative(who={"groups": ["two words"]}),
        alternative(who={"groups": ["finance"], "where": "x"}),
        alternative(min_assurance="Strong!"),
    ],
)
def test_a_hold_whose_conditions_cannot_be_met_as_written_is_a_deny(approval: object) -> None:
    assert code({**HOLD, "approval": approval}) == "policy_answer_invalid"


def test_a_hold_without_conditions_is_a_deny() -> None:
    assert code({**PERMIT, "outcome": "hold"}) == "policy_answer_invalid"


def test_a_message_of_exactly_256_bytes_is_kept() -> None:
    answer = {**PERMIT, "reasons": [{"code": "ok", "message": "ß" * 128}]}
    assert isinstance(read(answer), Permit)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["outcome", "reasons", "obligations", "approval", "code", "type", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)

NEARLY = st.fixed_dictionaries(
    {
        "reasons": st.lists(st.sampled_from([{"code": "ok"}, {"code": "OK"}, "ok"]), max_size=2),
        "obligations": st.lists(st.sampled_from([{"type": "redact"}, {"type": "x"}]), max_size=2),
    },
    optional={"approval": st.sampled_from([APPROVAL, {}, None]), "x": st.none()},
)


@pytest.mark.req("GW-11")
@given(JSON | NEARLY, st.sampled_from(["permit", "hold", "deny"]))
def test_no_json_value_raises_or_permits_unless_it_is_well_formed(value: Any, outcome: str) -> None:  # noqa: ANN401 - any JSON
    answer = {**value, "outcome": outcome} if isinstance(value, dict) else value
    decision = read_answer(json.dumps(answer).encode(), REVISION)
    if not isinstance(decision, Deny):
        assert set(answer) - {"approval"} == {"outcome", "reasons", "obligations"}
        assert ("approval" in answer) == isinstance(decision, Hold)
        assert len(decision.reasons) == len(answer["reasons"])
        assert len(decision.obligations) == len(answer["obligations"])


@given(st.binary(max_size=64))
def test_no_bytes_raise_or_permit(raw: bytes) -> None:
    assert isinstance(read_answer(raw, REVISION), Deny)
    nested = b"[" * 100_000
    assert isinstance(read_answer(nested, REVISION), Deny)
