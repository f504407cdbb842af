"""What the log keeps of authority handed out: `run.*` and `token.*` (docs/spec/audit-log-v1.md).

INVARIANT: no secret stands in a record; grants are there as a digest, and the human that a run is
for only inside openings, under that human's key.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.core.canonical import digest_of
from gateway.core.entry import Entry, Opening
from gateway.core.policy.decision import Decision, Deny, Hold, Permit
from gateway.core.records.call_records import build_decision
from gateway.core.tokens.issuing import Question
from gateway.core.tokens.token import Claims, Run

_ALLOW_MAX_CHARS: Final = 8_192


def is_permitted(decision: Decision) -> bool:
    """Whether authority may be handed out.

    Nobody is asked and nothing can be filtered here: a hold or an obligation is a deny.
    """
    return isinstance(decision, Permit) and not decision.obligations


def refusal_code(decision: Decision) -> str:
    """Return the code that says why a decision is no permit."""
    if isinstance(decision, Deny):
        return decision.reasons[0].code if decision.reasons else "no_policy_permits"
    return "issue_held" if isinstance(decision, Hold) else "issue_obliged"


def build_run_created(run: Run, op: str, question: Question, decision: Decision) -> Entry:
    """`run.create`: durable before the run exists. Idempotent by the run's id."""
    fields = {
        **run_actor(run),
        "deadline": run.deadline,
        "origin": run.origin,
        **({"labels": list(run.labels)} if run.labels else {}),
        "grants": digest_of(msgspec.to_builtins(run.grants)),
    }
    return _judged("run.create", op, fields, question, decision, event_id=f"run:{run.id}")


def build_run_ended(run: Run, op: str, outcome: str, *, by: str = "", reason: str = "") -> Entry:
    """`run.end`: no more tokens, and nothing held in it is dispatched. Idempotent as above."""
    fields = {**run_actor(run), "outcome": outcome}
    said = (("by", by), ("reason", reason))
    openings = tuple(Opening(path, text.encode(), by) for path, text in said if by and text)
    event_id = f"run-end:{run.id}"
    return Entry(type="run.end", op=op, fields=fields, openings=openings, event_id=event_id)


def build_token_issued(claims: Claims, op: str, question: Question, decision: Decision) -> Entry:
    """`token.issue`: durable before the token leaves. The token itself is nowhere in it."""
    fields = {
        **token_actor(claims),
        "jti": claims.jti,
        "scopes": sorted(claims.scopes),
        "grants": digest_of(msgspec.to_builtins(claims.grants)),
        "exp": claims.expires_at,
        "depth": claims.depth,
        **_parent(claims),
        **_allow(claims),
    }
    return _judged("token.issue", op, fields, question, decision)


def _parent(claims: Claims) -> dict[str, Any]:
    """Whose authority was handed on, and to whom in turn."""
    if not claims.parent_jti:
        return {}
    return {"parent": claims.parent_jti, "actors": list(claims.actors)}


def _allow(claims: Claims) -> dict[str, Any]:
    """What the token is good for, so that the log shows whether a call was in its scope."""
    allow: list[dict[str, Any]] = []
    for grant in claims.grants:
        one: dict[str, Any] = {"server": grant.server, "tool": grant.tool}
        if grant.effects:
            one["effects"] = list(grant.effects)
        allow.append(one)
    fits = sum(len(str(one)) for one in allow) <= _ALLOW_MAX_CHARS
    return {"allow": allow} if fits else {}


def build_issue_denied(
    kind: str, op: str, actor: dict[str, Any], question: Question, decision: Decision
) -> Entry:
    """`run.refused` or `token.refused`, because policy does not permit it."""
    fields = {**actor, "reason": refusal_code(decision)}
    return _judged(kind, op, fields, question, decision)


def build_issue_refused(kind: str, op: str, actor: dict[str, Any], reason: str) -> Entry:
    """`run.refused` or `token.refused`: a known client asked for what it cannot have."""
    return Entry(type=kind, op=op, fields={**actor, "reason": reason})


def run_actor(run: Run) -> dict[str, Any]:
    """Whom a run concerns, by identifiers that name no natural person."""
    return {"agent": run.agent, "client": run.launcher, "run": run.id, "root": run.id}


def token_actor(claims: Claims) -> dict[str, Any]:
    """Whom a token concerns, by identifiers that name no natural person."""
    return {
        "agent": claims.subject,
        "client": claims.client_id,
        "run": claims.run_id,
        "root": claims.root_jti,
    }


def _judged(
    kind: str,
    op: str,
    fields: dict[str, Any],
    question: Question,
    decision: Decision,
    *,
    event_id: str | None = None,
) -> Entry:
    judged = {
        **fields,
        "decision": build_decision(decision),
        "policy": {"rev": decision.revision},
    }
    opening = Opening("policy.input", question.document, question.data_subject)
    return Entry(type=kind, op=op, fields=judged, openings=(opening,), event_id=event_id)
