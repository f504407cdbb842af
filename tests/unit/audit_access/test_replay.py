"""What replay says of a recorded decision when policy is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.approvals.approval import spec_digest
from gateway.core.policy.decision import (
    ApprovalSpec,
    Decision,
    Deny,
    Hold,
    Obligation,
    Permit,
    Phase,
    Reason,
    Stage,
)
from gateway.core.records.call_records import build_decision
from gateway.core.records.replay import (
    Question,
    compare,
    compare_evaluation,
    find_evaluations,
    is_decided,
    read_question,
)

pytestmark = pytest.mark.req("AUD-05")

OK = (Reason("ok", "words", "shop"),)
SPEC = ApprovalSpec(stages=((Stage(groups=("approver",)),),))
PERMIT = Permit(OK, (), "r")
OBLIGED = Permit(OK, (Obligation("redact", {}),), "r")
HOLD = Hold(OK, (), "r", SPEC)
DENY = Deny((Reason("no_policy_permits"),), "r")
CALL = Question("call", "shop.pay")
RESUME = Question("resume", "shop.pay", "a1", spec_digest(SPEC))


def record(
    outcome: str,
    *reasons: str,
    obligations: list[str] | None = None,
    **fields: Any,  # noqa: ANN401 - JSON
) -> dict[str, Any]:
    decision: dict[str, Any] = {"outcome": outcome, "reasons": list(reasons)}
    if obligations is not None:
        decision["obligations"] = obligations
    return {"type": "call.intent", "decision": decision, "policy": {"rev": "r"}, **fields}


def refused(*reasons: str) -> dict[str, Any]:
    return record("deny", *reasons, type="call.refused")


def held(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return record("hold", "shop:ok", type="approval.request", **fields)


OTHER_SPEC = Question("resume", "shop.pay", "a1", "sha256:00")
RESUMED_INPUT = (
    b'{"phase":"resume","resource":{"id":"t"},"context":{"args":{"a":[1]},'
    b'"approval":{"id":"a1","spec_digest":"d","state":"APPROVED"}}}'
)


@pytest.mark.parametrize(
    ("said", "question", "again", "kind"),
    [
        (record("permit", "shop:ok"), CALL, PERMIT, "agreed"),
        (record("permit", "shop:ok", obligations=["redact"]), CALL, OBLIGED, "agreed"),
        (refused("no_policy_permits"), CALL, DENY, "agreed"),
        (held(), CALL, HOLD, "agreed"),
        (record("permit", "shop:ok", approval="a1"), RESUME, HOLD, "agreed"),
        (record("permit", "shop:ok", approval="a1"), RESUME, PERMIT, "agreed"),
        (record("permit", "shop:ok", type="token.issue"), Question("issue"), PERMIT, "agreed"),
        (record("permit", "shop:ok", type="new.type"), Question("list"), PERMIT, "agreed"),
        # the gateway's own
        (refused("calls_exhausted"), CALL, PERMIT, "gateway"),
        (refused("arguments_invalid"), CALL, PERMIT, "gateway"),
        (refused("policy_timeout"), CALL, PERMIT, "gateway"),
        (refused("policy_timeout"), CALL, DENY, "gateway"),
        (refused("policy_error"), CALL, "policy_error", "gateway"),
        # differences
        (refused("calls_exhausted"), CALL, DENY, "differs"),
        (refused("calls_exhausted"), CALL, HOLD, "differs"),
        (refused("calls_exhausted", "x"), CALL, PERMIT, "differs"),
        (record("permit", "policy_timeout"), CALL, DENY, "differs"),
        (record("permit", "shop:ok"), CALL, HOLD, "differs"),
        (record("permit", "shop:ok"), CALL, OBLIGED, "differs"),
        (record("permit", "shop:ok", obligations=["redact"]), CALL, PERMIT, "differs"),
        (record("permit", "ok"), CALL, PERMIT, "differs"),
        (record("permit"), CALL, PERMIT, "differs"),
        (record("permit", "shop:ok"), RESUME, PERMIT, "differs"),
        (record("permit", "shop:ok", approval="a1"), CALL, PERMIT, "differs"),
        (record("permit", "shop:ok", approval="a2"), RESUME, HOLD, "differs"),
        (record("hold", "shop:ok", approval="a1"), RESUME, HOLD, "differs"),
        (record("permit", "shop:ok", approval="a1"), OTHER_SPEC, HOLD, "differs"),
        (held(spec="sha256:00"), CALL, HOLD, "differs"),
        # no answer
        (record("permit", "shop:ok"), CALL, "policy_timeout", "unreplayable"),
        (record("permit", "policy_error"), CALL, "policy_error", "unreplayable"),
    ],
)  # fmt: skip
def test_a_decision_is_compared_with_what_policy_says_again(
    said: dict[str, Any], question: Question, again: Decision | str, kind: str
) -> None:
    verdict = compare(said, question, again)
    assert verdict.kind == kind
    assert bool(verdict.what) == (kind != "agreed")


LIMIT = Obligation("limit", {"type": "limit", "max_calls": 3})
WIDER = Obligation("limit", {"type": "limit", "max_calls": 3_000_000})


@pytest.mark.parametrize(
    ("decided", "again", "kind"),
    [
        (Permit(OK, (LIMIT,), "r"), Permit(OK, (LIMIT,), "r"), "agreed"),
        (Permit(OK, (LIMIT,), "r"), Permit(OK, (WIDER,), "r"), "differs"),
        (Permit(OK, (), "r"), Permit(OK, (WIDER,), "r"), "differs"),
        (Deny((Reason("limit_exhausted"),), "r", (LIMIT,)), Permit(OK, (LIMIT,), "r"), "gateway"),
        (Deny((Reason("limit_exhausted"),), "r", (LIMIT,)), Permit(OK, (WIDER,), "r"), "differs"),
        (Deny((Reason("limit_exhausted"),), "r", (LIMIT,)), PERMIT, "differs"),
    ],
)
def test_what_must_be_done_is_compared_in_full_where_its_digest_is_on_record(
    decided: Permit | Deny, again: Decision, kind: str
) -> None:
    fields = build_decision(decided)
    type_ = "call.refused" if isinstance(decided, Deny) else "call.intent"
    said = {"type": type_, "decision": fields, "policy": {"rev": "r"}}
    verdict = compare(said, CALL, again)
    assert verdict.kind == kind
    if kind == "differs":
        assert "obligations" in verdict.what
    if fields.get("obligations") == ["limit"] and again != PERMIT:  # an earlier version's record
        if isinstance(decided, Deny):
            del fields["obligations"]
        fields.pop("obligations_digest")
        assert compare(said, CALL, again).kind in {"agreed", "gateway"}


def test_a_difference_is_told_with_both_sides() -> None:
    assert compare(record("permit", "shop:ok"), CALL, DENY).what == (
        "outcome: recorded `permit`, recomputed `deny`"
    )
    assert compare(record("permit"), CALL, PERMIT).what == (
        "reasons: recorded none, recomputed `shop:ok`"
    )


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (b'{"phase":"call","resource":{"id":"shop.pay"},"context":{"approval":null}}', CALL),
        (b'{"phase":"issue","resource":{"id":"x"},"now":99999999999999999999}', Question("issue")),
        (RESUMED_INPUT, Question("resume", "t", "a1", "d")),
        (b'{"phase":"list"}', Question("list")),
    ],
)
def test_a_recorded_input_says_what_was_asked(text: bytes, question: Question) -> None:
    assert read_question(text) == question


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"phase":"later"}', b'{"phase":"call"'])
def test_what_asks_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder's words
        read_question(text)


def test_only_records_with_a_decision_of_policy_are_replayed() -> None:
    assert is_decided(record("permit"))
    assert not is_decided({"decision": "approve", "policy": {}})
    assert not is_decided({"decision": {}})


def test_a_phase_is_one_that_policies_know() -> None:
    phases: tuple[Phase, ...] = ("issue", "list", "call", "result", "resume")
    for phase in phases:
        assert read_question(b'{"phase":"%b"}' % phase.encode()).phase == phase


def answered(outcome: str, code: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "tool": "shop.pay"} | ({"code": code} if code else {})


@pytest.mark.req("POL-10")
@pytest.mark.parametrize(
    ("item", "again", "kind"),
    [
        (answered("permit"), PERMIT, "agreed"),
        (answered("deny", "no_policy_permits"), DENY, "agreed"),
        (answered("deny", "no_policy_permits"), Deny((), "r"), "agreed"),
        (answered("hold", "ok"), HOLD, "agreed"),
        (answered("hold", "approval_needed"), Hold((), (), "r", SPEC), "agreed"),
        (answered("deny", "budget_exhausted"), PERMIT, "gateway"),
        (answered("deny", "obligation_unmet"), HOLD, "gateway"),
        (answered("deny", "tool_killed"), PERMIT, "gateway"),
        (answered("deny", "policy_timeout"), PERMIT, "gateway"),
        (answered("deny", "policy_error"), "policy_error", "gateway"),
        (answered("permit"), "policy_error", "unreplayable"),
        (answered("permit"), DENY, "differs"),
        (answered("permit", "code"), PERMIT, "differs"),
        (answered("deny", "budget_exhausted"), DENY, "differs"),
        (answered("deny", "made_up"), PERMIT, "differs"),
        (answered("hold", "other"), HOLD, "differs"),
        (answered("hold", "ok"), PERMIT, "differs"),
        ({}, PERMIT, "differs"),
    ],
)
def test_an_answer_to_a_question_is_compared_with_what_policy_says(
    item: dict[str, Any], again: Decision | str, kind: str
) -> None:
    assert compare_evaluation(item, CALL, again).kind == kind


def test_a_question_is_about_a_call() -> None:
    assert compare_evaluation(answered("permit"), RESUME, PERMIT).kind == "differs"


def test_each_answer_has_its_input_and_what_lacks_its_part_is_not_passed_over() -> None:
    record = {
        "type": "policy.evaluate",
        "policy": {"rev": "r"},
        "evaluations": [answered("permit"), answered("deny", "tool_unknown"), answered("hold"), 7],
        "inputs": {"q0": {}, "q9": {}},
    }
    assert is_decided(record)
    found = find_evaluations(record)
    assert [place for place, _ in found] == ["q0", "q2", "q3", "q9"]
    assert [item.get("outcome") for _, item in found] == ["permit", "hold", None, None]
    assert find_evaluations(record | {"evaluations": 7}) == [("q0", {}), ("q9", {})]
    assert not is_decided({"type": "policy.evaluate", "evaluations": [answered("deny", "x")]})
