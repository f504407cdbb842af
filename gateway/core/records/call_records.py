"""The call's own audit records (docs/spec/audit-log-v1.md, `call.*` and `approval.*`).

INVARIANT: no argument, result, comment or human name stands in a field. They go in as openings,
of which the chain holds only a salted commitment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.calls.call import RecordedIntent, ResolvedCall
from gateway.core.calls.family import Charge
from gateway.core.catalog import Tool
from gateway.core.entry import Entry, Opening
from gateway.core.errors import Delivery
from gateway.core.policy.decision import (
    Deny,
    Hold,
    Obligation,
    Permit,
    Reason,
    duties_digest,
    pick,
)
from gateway.core.policy.obligations import Limit
from gateway.core.refusal import Refusal
from gateway.core.tags import arguments_tag
from gateway.core.tokens.token import Claims

_OUTCOMES: Final = {Permit: "permit", Hold: "hold", Deny: "deny"}


def data_subject(claims: Claims) -> str:
    """Under whose key the values of a call are kept: the human it is for, or else the owner."""
    return claims.on_behalf_of or claims.owner or claims.subject


def build_actor(claims: Claims) -> dict[str, Any]:
    """Who acts, by identifiers that name no natural person."""
    return {
        "agent": claims.subject,
        "client": claims.client_id,
        "run": claims.run_id,
        "root": claims.root_jti,
        "jti": claims.jti,
        "depth": claims.depth,
    }


def build_tool(tool: Tool) -> dict[str, Any]:
    """Which tool, in which reviewed shape."""
    return {
        "id": tool.id,
        "server": tool.server,
        "def": tool.definition_digest,
        "effect": tool.review.effect,
    }


def codes(reasons: Sequence[Reason]) -> list[str]:
    """Reasons as they stand in records: `policy:code`, never a message."""
    return [
        f"{reason.policy}:{reason.code}" if reason.policy else reason.code for reason in reasons
    ]


def build_decision(decision: Permit | Hold | Deny) -> dict[str, Any]:
    """What was decided and why; what must be done for it, by type and digest.

    Of a denial: what could not be done, and the limits of which one was reached.
    """
    fields: dict[str, Any] = {
        "outcome": _OUTCOMES[type(decision)],
        "reasons": codes(decision.reasons),
    }
    duties = decision.unmet if isinstance(decision, Deny) else decision.obligations
    if duties:
        fields["obligations"] = [duty.type for duty in duties]
        if (found := duties_digest(duties)) is not None:
            fields["obligations_digest"] = found
    if isinstance(decision, Deny) and (limits := pick(decision.unmet, Limit)):
        fields["limits"] = [_limit(each) for each in limits]
    return fields


def _limit(limit: Limit) -> dict[str, Any]:
    fields: dict[str, Any] = {"max_calls": limit.max_calls}
    return fields if limit.window_s is None else fields | {"window_s": limit.window_s}


def _policy_openings(
    fields: dict[str, Any], revision: str, document: bytes | None, subject: str
) -> list[Opening]:
    fields["policy"] = {"rev": revision}
    return [] if document is None else [Opening("policy.input", document, subject)]


def _charge(charge: Charge) -> dict[str, Any]:
    fields: dict[str, Any] = {"family": charge.family, "tool": charge.tool, "sums": charge.sums}
    if charge.labels:
        fields["labels"] = list(charge.labels)
    if charge.also:
        fields["also"] = list(charge.also)
    if charge.payer:
        fields |= {"at": charge.at, "payer": charge.payer}
    if charge.egress is not None:
        fields["sinks"] = charge.egress
    return fields


def build_intent(  # noqa: PLR0917 - what was decided, on what, at what charge
    resolved: ResolvedCall,
    decision: Permit,
    document: bytes,
    charge: Charge,
    actor: dict[str, Any],
    approval: ApprovalRequest | None = None,
) -> Entry:
    """`call.intent`: durable before any byte goes upstream."""
    claims, raw = resolved.call.claims, resolved.call.raw
    subject = data_subject(claims)
    fields: dict[str, Any] = {
        "actor": actor,
        "tool": build_tool(resolved.tool),
        "decision": build_decision(decision),
        "charge": _charge(charge),
        "surface": raw.meta.surface,
    }
    if approval is not None:
        # of the bytes about to be sent, so that the log shows whether they are those agreed to
        fields["approval"] = approval.id
        fields["args_tag"] = arguments_tag(approval.nonce, raw.arguments.raw)
    openings = _policy_openings(fields, decision.revision, document, subject)
    openings.append(Opening("args", raw.arguments.raw, subject))
    return Entry(type="call.intent", op=raw.op, fields=fields, openings=tuple(openings))


def build_refused(
    op: str,
    refusal: Refusal,
    *,
    claims: Claims | None = None,
    actor: dict[str, Any] | None = None,
    tool: Tool | None = None,
    name: str | None = None,
    arguments: bytes | None = None,
    decision: Deny | None = None,
    document: bytes | None = None,
) -> Entry:
    """`call.refused`: the one record of a call that went nowhere.

    `name` is what the agent asked for where no tool of that name exists; it goes in as an opening,
    because a stranger chose it.
    """
    fields: dict[str, Any] = {"stage": refusal.stage, "reason": refusal.code, "count": 1}
    openings: list[Opening] = []
    if claims is None:
        return Entry(type="call.refused", op=op, fields=fields)
    subject = data_subject(claims)
    fields["actor"] = actor or build_actor(claims)
    if tool is not None:
        fields["tool"] = build_tool(tool)
    elif name:
        openings.append(Opening("asked", name.encode("utf-8", "replace"), subject))
    if decision is not None:
        fields["decision"] = build_decision(decision)
        openings += _policy_openings(fields, decision.revision, document, subject)
    if arguments is not None:
        openings.append(Opening("args", arguments, subject))
    return Entry(type="call.refused", op=op, fields=fields, openings=tuple(openings))


def build_outcome(
    recorded: RecordedIntent,
    *,
    status: str,
    delivery: Delivery,
    code: str | None,
    result: bytes | None,
    applied: Sequence[Obligation],
    latency_us: int,
    decision: Permit | Hold | Deny | None = None,
    document: bytes | None = None,
    labels: Sequence[str] = (),
) -> Entry:
    """`call.outcome`: durable before the reply leaves.

    `decision` on what `document` says, where policy saw the result; `labels`: what that adds to
    those of the family.
    """
    resolved = recorded.intent.resolved
    subject = data_subject(resolved.call.claims)
    fields: dict[str, Any] = {
        "intent": recorded.seq,
        "status": status,
        "delivery": delivery,
        "latency_us": max(0, latency_us),
    }
    if code is not None:
        fields["reason"] = code
    if applied:
        fields["obligations"] = [obligation.type for obligation in applied]
    if labels:
        fields |= {"family": resolved.call.claims.root_jti, "labels": list(labels)}
    openings: list[Opening] = []
    if result is not None:
        openings.append(Opening("result", result, subject))
    if decision is not None and document is not None:
        fields["decision"] = build_decision(decision)
        openings += _policy_openings(fields, decision.revision, document, subject)
    op = resolved.call.raw.op
    return Entry(type="call.outcome", op=op, fields=fields, openings=tuple(openings))


def build_list(op: str, claims: Claims, revision: str, catalog: str, shown: int) -> Entry:
    """`tools.list`: which revision decided what a caller may see, and how many tools it saw."""
    fields = {
        "actor": build_actor(claims),
        "policy": {"rev": revision},
        "catalog": catalog,
        "shown": shown,
    }
    return Entry(type="tools.list", op=op, fields=fields)


def build_approval_event(
    kind: str,
    request: ApprovalRequest,
    *,
    event_id: str,
    fields: Mapping[str, Any] | None = None,
    openings: Sequence[Opening] = (),
) -> Entry:
    """`approval.*`: one step in the life of a held call, bound to what was asked."""
    tool = {"id": request.tool_id, "server": request.server, "def": request.definition_digest}
    if request.effect is not None:  # one held by an earlier version says none
        tool["effect"] = request.effect
    body: dict[str, Any] = {
        "approval": request.id,
        "binding": request.binding,
        "agent": request.agent,
        "run": request.run_id,
        "tool": tool,
        **(fields or {}),
    }
    return Entry(
        type=f"approval.{kind}",
        op=request.op,
        fields=body,
        openings=tuple(openings),
        event_id=event_id,
    )


def build_orphan(op: str, intent_seq: int, approval: str | None) -> Entry:
    """`call.orphan`: an intent found without an outcome; whether it took effect is not known."""
    fields: dict[str, Any] = {"intent": intent_seq, "effect": "unknown"}
    if approval is not None:
        fields["approval"] = approval
    return Entry(type="call.orphan", op=op, fields=fields, event_id=f"orphan:{op}")
