"""What becomes of a recorded decision under other policies."""

from __future__ import annotations

from typing import Any, Final

import pytest

from gateway.core.approvals.approval import spec_digest
from gateway.core.policy.decision import (
    ApprovalSpec,
    Deny,
    Hold,
    Obligation,
    Permit,
    Phase,
    Reason,
    Stage,
)
from gateway.core.records import impact_told
from gateway.core.records.call_records import build_decision
from gateway.core.records.impact import (
    CHANGES,
    Change,
    Impact,
    Told,
    compare,
    told_by,
    told_by_record,
)

pytestmark = pytest.mark.req("POL-08")

REV: Final = "sha256:" + "a" * 64
SPEC: Final = ApprovalSpec(stages=((Stage(groups=("approver",)),),))
DIGEST: Final = spec_digest(SPEC)

PERMIT: Final = Told("permit", ("a:ok",))
DENY: Final = Told("deny", ("a:no",))
HOLD: Final = Told("hold", ("a:ask",), (), DIGEST)

CASES: Final[list[tuple[str, Told, Told, str, tuple[str, ...]]]] = [
    ("denied", PERMIT, DENY, "newly_denied", ("a:no",)),
    ("denied instead of held", HOLD, DENY, "newly_denied", ("a:no",)),
    ("held", PERMIT, HOLD, "newly_held", ("a:ask",)),
    ("held instead of denied", DENY, HOLD, "newly_held", ("a:ask",)),
    ("permitted, by what stood in the way", DENY, PERMIT, "newly_permitted", ("a:no",)),
    ("permitted without asking", HOLD, PERMIT, "newly_permitted", ("a:ask",)),
    ("the same", PERMIT, PERMIT, "unchanged", ()),
    ("other people asked", HOLD, Told("hold", ("a:ask",), (), "sha256:x"), "approval", ("a:ask",)),
    ("other duties", PERMIT, Told("permit", ("a:ok",), ("redact",)), "obligations", ("a:ok",)),
    ("other words", PERMIT, Told("permit", ("a:ok", "b:ok")), "reasons", ("b:ok",)),
    ("fewer words", Told("permit", ("a:ok", "b:ok")), PERMIT, "reasons", ("a:ok",)),
    ("the ledger said no", Told("deny", ("calls_exhausted",)), PERMIT, "gateway", ()),
    ("the ledger, and now policy", Told("deny", ("budget_exhausted",)), DENY, "gateway", ()),
    (
        "the ledger, and now people",
        Told("deny", ("limit_exhausted",)),
        HOLD,
        "newly_held",
        ("a:ask",),
    ),
    ("no answer then", Told("deny", ("policy_timeout",)), PERMIT, "unanswered", ()),
]


@pytest.mark.parametrize(("_name", "was", "now", "kind", "rules"), CASES, ids=[c[0] for c in CASES])
def test_a_decision_is_compared(
    _name: str, was: Told, now: Told, kind: str, rules: tuple[str, ...]
) -> None:
    change = compare(was, now, "call")
    assert (change.kind, change.rules) == (kind, rules)


RESUMED: Final[list[tuple[Told, Told, str | None, str]]] = [
    (Told("permit", ("a:ask",)), HOLD, DIGEST, "unchanged"),
    (Told("permit", ("a:ask",)), HOLD, "sha256:other", "newly_denied"),
    (HOLD, HOLD, DIGEST, "unchanged"),  # live, where the hold itself is compared
    (Told("hold", ("a:ask",)), PERMIT, DIGEST, "newly_permitted"),  # it was stale
]


@pytest.mark.parametrize(("was", "now", "agreed", "kind"), RESUMED)
def test_in_resume_people_have_agreed_to_the_same_hold_and_to_no_other(
    was: Told, now: Told, agreed: str | None, kind: str
) -> None:
    assert compare(was, now, "resume", agreed).kind == kind


@pytest.mark.parametrize("phase", ["call", "list", "issue", "result"])
def test_a_hold_is_a_hold_in_every_other_phase(phase: Phase) -> None:
    assert compare(PERMIT, HOLD, phase, DIGEST).kind == "newly_held"


def test_records_and_decisions_say_the_same_in_the_same_words() -> None:
    reasons = (Reason("ok", policy="a"),)
    redact = Obligation("redact", {"type": "redact"})
    decisions: list[Permit | Hold | Deny] = [
        Permit(reasons, (redact,), REV),
        Permit(reasons, (Obligation("annotate", {"type": "annotate"}),), REV),
        Deny(reasons, REV),
        Deny(reasons, REV, (limit(3), limit(2, "10m"), redact)),
        Hold(reasons, (), REV, SPEC),
    ]
    for decision in decisions:
        record = {"decision": build_decision(decision)}
        if isinstance(decision, Hold):
            record["spec"] = DIGEST  # type: ignore[assignment]
        assert told_by_record(record) == told_by(decision)


def limit(calls: int, window: str = "") -> Obligation:
    spec: dict[str, Any] = {"type": "limit", "max_calls": calls}
    return Obligation("limit", spec | ({"window": window} if window else {}))


def obliged(kind: str, **terms: Any) -> Obligation:  # noqa: ANN401 - JSON
    return Obligation(kind, {"type": kind, **terms})


def permit(*duties: Obligation) -> Permit:
    return Permit((Reason("ok", policy="a"),), duties, REV)


def refused(code: str, *duties: Obligation) -> Deny:
    return Deny((Reason(code),), REV, duties)


def on_record(decision: Permit | Deny, *without: str) -> Told:
    """Return a decision as it is read from its record; one of an earlier version lacks members."""
    fields = {name: one for name, one in build_decision(decision).items() if name not in without}
    told = told_by_record({"decision": fields})
    assert told is not None
    return told


EARLIER: Final = ("obligations_digest", "limits")


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (obliged("redact", pointers=["/iban"]), obliged("redact", pointers=["/nothing"])),
        (limit(3), limit(3_000_000)),
        (limit(3), limit(3, "1s")),
        (
            obliged("mask", pointers=["/iban"], keep_last=0),
            obliged("mask", pointers=["/iban"], keep_last=16),
        ),
    ],
)
def test_an_obligation_of_the_same_type_in_other_terms_is_a_change(
    was: Obligation, now: Obligation
) -> None:
    change = compare(on_record(permit(was)), told_by(permit(now)), "call")
    assert (change.kind, change.was) == ("obligations", was.type)
    assert change.now == f"{was.type} in other terms"
    assert compare(on_record(permit(was)), told_by(permit(was)), "call").kind == "unchanged"


def test_of_earlier_records_types_are_compared_and_how_many_is_told() -> None:
    was = on_record(permit(limit(3)), *EARLIER)
    impact = Impact()
    for duties in ((limit(3_000_000),), (limit(3),)):
        change = compare(was, told_by(permit(*duties)), "call")
        assert (change.kind, change.by_type) == ("unchanged", True)
        impact.add(change, tool="s.t", agent="a")
    assert impact_told.describe(impact, REV)["by_type"] == 2
    assert compare(was, told_by(permit()), "call").kind == "obligations"


def test_notes_that_oblige_to_nothing_are_in_no_digest() -> None:
    decision = permit(obliged("annotate", text="DE89 3704"))
    assert build_decision(decision) == {
        "outcome": "permit",
        "reasons": ["a:ok"],
        "obligations": ["annotate"],
    }


LIFTED: Final[list[tuple[tuple[Obligation, ...], tuple[Obligation, ...], str]]] = [
    ((limit(3),), (limit(3_000_000),), "newly_permitted"),
    ((limit(3),), (), "newly_permitted"),
    ((limit(3),), (limit(3, "1m"),), "newly_permitted"),
    ((limit(3), limit(2, "10m")), (limit(3),), "newly_permitted"),
    ((limit(3), limit(2, "10m")), (limit(3), limit(2, "5m")), "newly_permitted"),
    ((limit(3),), (limit(3),), "gateway"),
    ((limit(3),), (limit(2), obliged("notify", channel="ops")), "gateway"),
    ((limit(2, "10m"),), (limit(2, "20m"),), "gateway"),
    ((limit(2, "10m"),), (limit(1),), "gateway"),
]


@pytest.mark.parametrize(("was", "now", "kind"), LIFTED)
def test_a_call_that_a_limit_stopped_may_go_where_the_limit_is_lifted(
    was: tuple[Obligation, ...], now: tuple[Obligation, ...], kind: str
) -> None:
    denied = refused("limit_exhausted", *was)
    change = compare(on_record(denied), told_by(permit(*now)), "call")
    assert change.kind == kind
    assert change.rules == (("limit_exhausted",) if kind == "newly_permitted" else ())
    assert compare(told_by(denied), told_by(permit(*now)), "call") == change  # live, beside it


def test_of_earlier_records_a_limit_that_is_gone_shows_and_another_one_is_told_as_unknown() -> None:
    was = on_record(refused("limit_exhausted"))
    assert compare(was, told_by(permit()), "call").kind == "newly_permitted"
    change = compare(was, told_by(permit(limit(9))), "call")
    assert (change.kind, change.by_type) == ("gateway", True)


KEYED: Final = obliged("require_idempotency_key")


@pytest.mark.parametrize(
    ("code", "was", "now", "kind"),
    [
        ("idempotency_key_required", (KEYED,), (), "newly_permitted"),
        ("idempotency_key_required", (), (), "newly_permitted"),
        ("idempotency_key_required", (KEYED,), (KEYED,), "gateway"),
        ("obligation_unmet", (KEYED,), (limit(2),), "newly_permitted"),
        ("obligation_unmet", (KEYED,), (KEYED,), "gateway"),
        ("budget_exhausted", (limit(2),), (), "gateway"),
    ],
)
def test_a_call_that_an_obligation_stopped_may_go_without_it(
    code: str, was: tuple[Obligation, ...], now: tuple[Obligation, ...], kind: str
) -> None:
    change = compare(on_record(refused(code, *was)), told_by(permit(*now)), "call")
    assert change.kind == kind


@pytest.mark.parametrize("limits", [[1], "3", [{"max_calls": "3"}], {"max_calls": 3}])
def test_limits_that_are_not_told_as_they_should_be_are_none(limits: object) -> None:
    fields = build_decision(refused("limit_exhausted", limit(3))) | {"limits": limits}
    told = told_by_record({"decision": fields})
    assert told is not None
    assert told.limits == ()


def test_many_changes_of_one_kind_hide_none_of_another() -> None:
    impact = Impact()
    for number in range(1_500):
        noise = Change("reasons", "permit", "permit", (f"a:c{number}",))
        impact.add(noise, tool="shop.find", agent=f"agent-{number % 300}", seq=number)
        many = Change("newly_held", "permit", "hold", (f"a:c{number % 100}",))
        for agent in range(9):
            impact.add(many, tool="shop.find", agent=f"{number}-{agent}", seq=number)
    lifted = compare(
        told_by(Deny((Reason("refund_too_large", policy="refunds"),), REV)),
        told_by(permit()),
        "call",
    )
    impact.add(lifted, tool="billing.refund", agent="eve", seq=9_999)
    [row] = [row for row in impact.rows() if row.kind == "newly_permitted"]
    assert (row.tool, row.rule, row.count) == ("billing.refund", "refunds:refund_too_large", 1)
    assert row.agents == {"eve": 1}
    held = [row.agents for row in impact.rows() if row.kind == "newly_held"]
    assert sum(map(len, held)) <= 10_100
    assert sum(sum(agents.values()) for agents in held) == 13_500


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"outcome": "maybe", "reasons": []},
        {"outcome": "permit"},
        {"outcome": "permit", "reasons": [1]},
        {"outcome": "permit", "reasons": [], "obligations": "redact"},
    ],
)
def test_what_tells_of_no_decision_is_compared_with_nothing(decision: dict[str, Any]) -> None:
    assert told_by_record({"decision": decision}) is None


def test_changes_are_counted_by_kind_tool_rule_and_agent_with_a_few_examples() -> None:
    impact = Impact()
    for seq in range(5):
        change = Change("newly_denied", "permit", "deny", ("a:no", "b:no"))
        impact.add(change, tool="s.t", agent=f"agent-{seq % 2}", seq=seq, op=f"op{seq}")
    impact.add(Change("unchanged"), tool="s.t", agent="agent-0", seq=9, op="op9")
    impact.add_error("policy_error")
    assert (impact.total, impact.changed) == (7, 5)
    first, second = impact.rows()
    assert (first.rule, second.rule) == ("a:no", "b:no")
    assert first.count == 5
    assert first.agents == {"agent-0": 3, "agent-1": 2}
    assert [one.seq for one in first.examples] == [0, 1, 2]
    assert impact.by("tool") == {"newly_denied": {"s.t": 10}}
    assert impact.by("agent")["newly_denied"] == {"agent-0": 6, "agent-1": 4}


def test_memory_stays_bounded_whatever_agents_and_rules_there_are() -> None:
    impact = Impact()
    for number in range(1_500):
        change = Change("newly_denied", "permit", "deny", (f"a:r{number}",))
        impact.add(change, tool="s.t", agent="a", seq=number, op="o")
        impact.add(
            Change("newly_held", "permit", "hold", ("a:one",)), tool="s.t", agent=f"{number}"
        )
    rows = impact.rows()
    assert sum(row.count for row in rows) == 3_000
    assert len(rows) <= 1_003
    assert any(row.tool == "(others)" for row in rows)
    assert max(len(row.agents) for row in rows) <= 1_001


def test_the_kinds_that_are_changes_are_named_first() -> None:
    assert CHANGES[:3] == ("newly_denied", "newly_held", "newly_permitted")
    assert "unchanged" not in CHANGES
