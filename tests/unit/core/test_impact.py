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
    decisions: list[tuple[Permit | Hold | Deny, dict[str, Any]]] = [
        (Permit(reasons, (redact,), REV), {"outcome": "permit", "obligations": ["redact"]}),
        (Deny(reasons, REV), {"outcome": "deny"}),
        (Hold(reasons, (), REV, SPEC), {"outcome": "hold"}),
    ]
    for decision, told in decisions:
        record = {"decision": {**told, "reasons": ["a:ok"]}}
        if isinstance(decision, Hold):
            record["spec"] = DIGEST  # type: ignore[assignment]
        assert told_by_record(record) == told_by(decision)


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
