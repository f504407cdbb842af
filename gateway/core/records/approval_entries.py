"""Outbox events of held calls: what the log says of a vote and of a move (DESIGN §5, §6).

INVARIANT: no human id and no comment stands in a field; both are openings under the human's key.
"""

from __future__ import annotations

from typing import Any, Literal

from gateway.core.approvals.approval import (
    ApprovalRequest,
    State,
    Vote,
    person,
    spec_digest,
    stage_of,
)
from gateway.core.entry import Opening
from gateway.core.policy.decision import Deny, Hold, Permit
from gateway.core.ports import OutboxEvent
from gateway.core.records.call_records import build_approval_event, build_decision
from gateway.core.tags import person_tag

Kind = Literal["request", "grant", "deny", "expire", "cancel", "stale", "unknown", "resolve"]


def vote_events(request: ApprovalRequest, vote: Vote, *, event_id: str) -> dict[str, OutboxEvent]:
    """Build what `ApprovalStore.vote` writes, under `VOTE`, `APPROVED` and `DENIED`.

    `approval.vote` for every counted vote; `approval.grant` or `approval.deny` where it decides.
    """
    entry = build_approval_event(
        "vote",
        request,
        event_id=event_id,
        fields={
            "decision": vote.decision,
            "stage": stage_of(request.spec, vote.groups) or 0,
            "at": vote.voted_at,
            "voter_tag": person_tag(request.nonce, person(vote.voter)),
            "assurance": vote.assurance,
        },
        openings=_said(vote.voter, vote.reason),
    )
    return {
        "VOTE": OutboxEvent(event_id=event_id, entry=entry),
        "APPROVED": state_event(request, "grant", "APPROVED", at=vote.voted_at),
        "DENIED": state_event(request, "deny", "DENIED", at=vote.voted_at),
    }


def state_event(
    request: ApprovalRequest,
    kind: Kind,
    state: State,
    *,
    by: str | None = None,
    reason: str = "",
    at: int | None = None,
    judged: tuple[Permit | Hold | Deny, bytes, str] | None = None,
) -> OutboxEvent:
    """Build `approval.<kind>`: `request` came to `state`, by the human `by` if by any.

    `judged`: what policy decided, on what, and under whose key that is kept. The event id is that
    of the request and the state, so a move is told once however often it is relayed. Use it only
    for states that a request enters once.
    """
    event_id = f"{request.id}:{state}"
    fields: dict[str, Any] = {"state": state} if at is None else {"state": state, "at": at}
    openings = () if by is None else _said(by, reason)
    if judged is not None:
        decision, document, subject = judged
        fields |= {"decision": build_decision(decision), "policy": {"rev": decision.revision}}
        openings = (*openings, Opening("policy.input", document, subject))
        if isinstance(decision, Hold):
            fields["spec"] = spec_digest(decision.approval)
    entry = build_approval_event(kind, request, event_id=event_id, fields=fields, openings=openings)
    return OutboxEvent(event_id=event_id, entry=entry)


def expiry_event(request: ApprovalRequest) -> OutboxEvent:
    """Build `approval.expire`: the time of `request` ran out unused."""
    return state_event(request, "expire", "EXPIRED")


def _said(by: str, reason: str) -> tuple[Opening, ...]:
    voter = person(by)
    openings = (Opening("voter", voter.encode(), voter),)
    return (*openings, Opening("reason", reason.encode(), voter)) if reason else openings
