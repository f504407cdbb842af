"""What people see of a held call. Claims, nonce and claim token stay inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.core.approvals.approval import (
    APPROVER,
    ApprovalRequest,
    Vote,
    binding_words,
    is_separated,
    stage_of,
    stages_met,
)

People = Mapping[str, Sequence[str]]


def build_summary(request: ApprovalRequest) -> dict[str, Any]:
    """One line of a list. Times in seconds since the epoch."""
    return {
        "id": request.id,
        "state": request.state,
        "agent": request.agent,
        "run_id": request.run_id,
        "tool": request.tool_id,
        "reasons": msgspec.to_builtins(request.reasons),
        "created_at": request.created_at,
        "expires_at": request.expires_at,
    }


def build_view(
    request: ApprovalRequest, votes: Sequence[Vote], counting: Sequence[Vote], people: People
) -> dict[str, Any]:
    """Everything that a vote is about: the raw arguments first, then who asks and who decides.

    `counting` is what of the votes counts now; once people have decided, what they said then.
    """
    counting = counting if request.state == "PENDING" else votes
    heard = {vote.voter for vote in counting}
    return {
        "arguments": request.arguments.decode("utf-8", "backslashreplace"),
        "arguments_digest": request.arguments_digest,
        **build_summary(request),
        "version": request.version,
        "op": request.op,
        "server": request.server,
        "definition_digest": request.definition_digest,
        "actor_chain": list(request.actor_chain or (request.agent,)),
        "on_behalf_of": request.on_behalf_of,
        "launcher": request.launcher,
        "policy_revision": request.policy_revision,
        "obligations": [obligation.spec for obligation in request.obligations],
        "stages": msgspec.to_builtins(request.spec.stages),
        "stages_met": stages_met(
            request.spec, counting, request.separation, binding=request.binding
        ),
        "execute": request.spec.execute,
        "binding": request.binding,
        "binding_words": binding_words(request.binding),
        "who_may_vote": who_may_vote(request, votes, people),
        "votes": [{**_vote(vote), "counts": vote.voter in heard} for vote in votes],
        "outcome": request.outcome,
        "updated_at": request.updated_at,
    }


def who_may_vote(request: ApprovalRequest, votes: Sequence[Vote], people: People) -> list[str]:
    """Return whose vote would still count: approvers in a named group, not of the requester's side.

    Nobody once the request is decided.
    """
    if request.state != "PENDING":
        return []
    heard = [vote.voter for vote in votes]
    return sorted(
        name
        for name, roles in people.items()
        if APPROVER in roles
        and stage_of(request.spec, roles) is not None
        and not is_separated(name, request.separation)
        and not is_separated(name, heard)
    )


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "voter": vote.voter,
        "decision": vote.decision,
        "reason": vote.reason,
        "voted_at": vote.voted_at,
    }
