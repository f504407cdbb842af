"""Replay: whether a recorded decision is what its input and policies say again (DESIGN §3).

What the gateway itself decided, after policy or for want of its answer, is told apart: a token with
no calls left, a sum out of range, an engine that did not answer. People's agreement too: a held
call that they let through is recorded as a permit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.core.approvals.approval import spec_digest
from gateway.core.policy.decision import Decision, Deny, Hold, Permit, Phase, duties_digest
from gateway.core.records.call_records import codes

Kind = Literal["agreed", "gateway", "differs", "altered", "erased", "lost", "unreplayable"]

FAILURES: Final[frozenset[Kind]] = frozenset({"differs", "altered"})
"""What a log of an honest gateway never has."""

SPENT: Final = frozenset(
    {
        "arguments_invalid",
        "budget_exhausted",
        "calls_exhausted",
        "idempotency_key_required",
        "limit_exhausted",
        "obligation_unmet",
    }
)
"""Denials by the ledger, of calls that policy permits."""

UNANSWERED: Final = frozenset(
    {
        "policy_error",
        "policy_overloaded",
        "policy_suspended",
        "policy_timeout",
        "policy_unavailable",
        "policy_worker_died",
    }
)
"""Denials for want of an answer from policy."""

STOPPED: Final = frozenset({"identity_suspended", "killed", "token_revoked", "tool_killed"})
"""Denials of what policy permits, because authority ended before its time."""

EVALUATION: Final = "policy.evaluate"

_PHASES: Final[dict[str, Phase]] = {
    "call.intent": "call",
    "call.outcome": "result",
    "approval.stale": "resume",
    "call.refused": "call",
    "approval.request": "call",
    "run.create": "issue",
    "run.refused": "issue",
    "token.issue": "issue",
    "token.refused": "issue",
}


class Verdict(Struct, frozen=True):
    """What replay says of one decision: `what` in plain words, empty where all agrees."""

    kind: Kind
    what: str = ""


class Question(Struct, frozen=True):
    """The part of a recorded policy input that replay itself reads."""

    phase: Phase
    tool_id: str = ""
    approval: str | None = None
    spec_digest: str | None = None


class _Resource(Struct, frozen=True):
    id: str = ""


class _Approval(Struct, frozen=True):
    id: str | None = None
    spec_digest: str | None = None


class _Context(Struct, frozen=True):
    approval: _Approval | None = None


class _Document(Struct, frozen=True):
    phase: Phase
    resource: _Resource | None = None
    context: _Context = _Context()


_decode: Final = msgspec.json.Decoder(_Document).decode


def read_question(document: bytes) -> Question:
    """Return what a policy input (JSON) asks. Raises `ValueError` for what is none."""
    found = _decode(document)
    approval = found.context.approval or _Approval()
    tool_id = found.resource.id if found.resource and found.phase != "issue" else ""
    return Question(found.phase, tool_id, approval.id, approval.spec_digest)


def is_decided(record: Mapping[str, Any]) -> bool:
    """Whether a record tells of a decision, or of answers to questions."""
    if record.get("type") == EVALUATION:
        return isinstance(record.get("inputs"), dict) and isinstance(record.get("policy"), dict)
    return isinstance(record.get("decision"), dict) and isinstance(record.get("policy"), dict)


def find_evaluations(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what a `policy.evaluate` says of each question that was put to policy.

    (place, item): the input of it is at `inputs.<place>`. What was not denied must have one, and
    with an input that has no item nothing agrees.
    """
    listed, inputs = record.get("evaluations"), record["inputs"]
    items = [item if isinstance(item, dict) else {} for item in _list(listed)]
    places = {f"q{at}": item for at, item in enumerate(items)}
    asked: list[tuple[str, Mapping[str, Any]]] = [
        (place, item)
        for place, item in places.items()
        if place in inputs or item.get("outcome") != "deny"
    ]
    return asked + [(place, {}) for place in inputs if place not in places]


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def compare_evaluation(
    item: Mapping[str, Any], question: Question, again: Decision | str
) -> Verdict:
    """Compare an answer to a question (`find_evaluations`) with what policy says `again`."""
    outcome, code = item.get("outcome"), item.get("code", "")
    if question.phase != "call":
        return _differs("phase", "call", question.phase)
    if isinstance(again, str):
        if (outcome, code) == ("deny", again):
            return Verdict("gateway", f"policy gave no answer, then as now: `{again}`")
        return Verdict("unreplayable", f"policy gives no answer now: `{again}`")
    told = outcome_of(again)
    if outcome == "deny" and code in UNANSWERED:
        return Verdict("gateway", f"policy had not answered: `{code}`")
    if outcome == "deny" and not isinstance(again, Deny) and code in SPENT | STOPPED:
        text = f"policy did not deny; the gateway refused: `{code}`"
        return _find_other_digest(item, again) or Verdict("gateway", text)
    if outcome != told:
        return _differs("outcome", outcome, told)
    expected = "" if isinstance(again, Permit) else _first_code(again)
    if code != expected:
        return _differs("code", code, expected)
    return _find_other_digest(item, again) or Verdict("agreed")


def _first_code(decision: Decision) -> str:
    if decision.reasons:
        return decision.reasons[0].code
    return "approval_needed" if isinstance(decision, Hold) else "no_policy_permits"


def compare(record: Mapping[str, Any], question: Question, again: Decision | str) -> Verdict:
    """Compare a recorded decision with what policy says `again`, or why it says nothing."""
    expected = expected_phase(record)
    if expected is not None and question.phase != expected:
        return _differs("phase", expected, question.phase)
    recorded = record["decision"]
    reasons = recorded.get("reasons")
    if isinstance(again, str):
        if reasons == [again] and recorded.get("outcome") == "deny":
            return Verdict("gateway", f"policy gave no answer, then as now: `{again}`")
        return Verdict("unreplayable", f"policy gives no answer now: `{again}`")
    told = _find_difference(record, question, again)
    if told is None:
        return Verdict("agreed")
    if recorded.get("outcome") == "deny" and isinstance(reasons, list) and len(reasons) == 1:
        if reasons[0] in UNANSWERED:
            return Verdict("gateway", f"policy had not answered: `{reasons[0]}`")
        let_go = isinstance(again, Permit) or question.phase == "resume"
        if reasons[0] in SPENT and let_go and not isinstance(again, Deny):
            other = _find_other_duties(recorded, again) if "obligations" in recorded else None
            return other or Verdict(
                "gateway", f"policy permits; the gateway refused: `{reasons[0]}`"
            )
    return told


def expected_phase(record: Mapping[str, Any]) -> Phase | None:
    """Return the phase in which a record's decision was made; None for an unknown type."""
    if record.get("type") == "call.intent" and "approval" in record:
        return "resume"
    return _PHASES.get(str(record.get("type")))


def outcome_of(decision: Decision) -> str:
    """Return a decision's outcome in the words of records."""
    return {Permit: "permit", Hold: "hold", Deny: "deny"}[type(decision)]


def _find_difference(
    record: Mapping[str, Any], question: Question, again: Decision
) -> Verdict | None:
    recorded, outcome = record["decision"], outcome_of(again)
    resumed = record["type"] == "call.intent" and question.phase == "resume" and outcome == "hold"
    expected = "permit" if resumed else outcome  # people agreed to what policy still holds
    if recorded.get("outcome") != expected:
        return _differs("outcome", recorded.get("outcome"), outcome)
    if recorded.get("reasons") != codes(again.reasons):
        return _differs("reasons", recorded.get("reasons"), codes(again.reasons))
    other = _find_other_duties(recorded, again)
    if other is not None or not isinstance(again, Hold):
        return other
    return _find_other_approval(record, question, again)


def _find_other_duties(recorded: Mapping[str, Any], again: Decision) -> Verdict | None:
    """Compare what must be done: by type, and in full where its digest is on record."""
    duties = () if isinstance(again, Deny) else again.obligations
    types, told = [each.type for each in duties], recorded.get("obligations", [])
    if told != types:
        return _differs("obligations", told, types)
    return _find_other_digest(recorded, again)


def _find_other_digest(recorded: Mapping[str, Any], again: Decision) -> Verdict | None:
    """Compare what must be done in full, where its digest is on record."""
    duties = () if isinstance(again, Deny) else again.obligations
    digest = recorded.get("obligations_digest")  # earlier versions recorded none
    if digest is None or digest == duties_digest(duties):
        return None
    return _differs("obligations digest", digest, duties_digest(duties))


def _find_other_approval(
    record: Mapping[str, Any], question: Question, again: Hold
) -> Verdict | None:
    """Compare who had to agree, and in phase `resume` to what people had agreed."""
    asked = spec_digest(again.approval)
    if question.phase == "resume":
        if question.approval != record.get("approval"):
            return _differs("approval", record.get("approval"), question.approval)
        if record["type"] == "call.intent":
            return (
                None
                if question.spec_digest == asked
                else _differs("approval spec", question.spec_digest, asked)
            )
    spec = record.get("spec", asked)
    return None if spec == asked else _differs("approval spec", spec, asked)


def _differs(what: str, recorded: object, again: object) -> Verdict:
    return Verdict("differs", f"{what}: recorded {_shown(recorded)}, recomputed {_shown(again)}")


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{value}`"
