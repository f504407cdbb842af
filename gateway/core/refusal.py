"""Every reason for which a call is turned away: one table of code, status and fixed text.

Agents get the code and the fixed text and nothing else; details are for the log and for
approvers. `docs/errors.md` lists the same table.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from gateway.core.errors import Delivery

Stage = Literal["read", "authenticate", "resolve", "decide", "hold", "record", "call", "filter"]


class Kind(Struct, frozen=True):
    """How a refusal is told: HTTP status, JSON-RPC error code (None: a tool result), fixed text."""

    status: int
    rpc: int | None
    text: str


class Refusal(Struct, frozen=True):
    """A call turned away at `stage`. `detail` names a place, never a value, and is safe to tell.

    `delivery`: how far a call got that was let through.
    """

    stage: Stage
    code: str
    detail: str = ""
    delivery: Delivery | None = None

    @property
    def told(self) -> str:
        """What is told beside the fixed text; empty for nothing."""
        return DELIVERED[self.delivery] if self.delivery else self.detail


DELIVERED: Final[dict[Delivery, str]] = {
    "not_sent": "the call was not sent",
    "unknown": "the call may have run; do not repeat it before somebody has looked",
    "sent": "the tool got the call",
}
"""Whoever wants to repeat a call has to know whether that could be the second time."""


_UNAVAILABLE: Final = 503
POLICY: Final = Kind(403, None, "policy does not allow this call")

KINDS: Final[dict[str, Kind]] = {
    # read
    "body_invalid": Kind(400, -32700, "the request is not well-formed JSON of the strict kind"),
    "body_too_large": Kind(413, -32600, "the request is larger than the gateway accepts"),
    "request_invalid": Kind(400, -32600, "the request is not a valid message"),
    "params_invalid": Kind(400, -32602, "the parameters are missing or of the wrong type"),
    "header_mismatch": Kind(400, -32020, "headers and body do not name the same thing"),
    "version_unsupported": Kind(400, -32022, "this protocol version is not supported"),
    "method_unknown": Kind(404, -32601, "this method is not supported"),
    "session_unknown": Kind(404, -32600, "no such session; initialize again"),
    "session_missing": Kind(400, -32600, "send the session id that initialize returned"),
    "origin_forbidden": Kind(403, -32600, "this origin may not call the gateway"),
    "key_reused": Kind(422, None, "this Idempotency-Key was used for another request"),
    "key_running": Kind(409, None, "the first request with this Idempotency-Key has not ended"),
    # authenticate
    "token_missing": Kind(401, -32600, "send an access token as Authorization: Bearer"),
    "token_invalid": Kind(401, -32600, "the access token is not valid; get a new one"),
    "token_expired": Kind(401, -32600, "the access token has expired; get a new one"),
    "token_audience": Kind(401, -32600, "the access token is meant for another service"),
    "token_revoked": Kind(401, -32600, "the access token has been revoked"),
    "identity_suspended": Kind(403, -32600, "the agent, or whoever it acts for, is suspended"),
    "killed": Kind(403, -32600, "an operator has stopped this; nothing goes on until it is lifted"),
    "proof_missing": Kind(401, -32600, "send the token as Authorization: DPoP, with a DPoP proof"),
    "proof_invalid": Kind(401, -32600, "the DPoP proof does not fit; make a new one"),
    "proof_replayed": Kind(
        401, -32600, "the DPoP proof was used before; make one for each request"
    ),
    "proof_nonce": Kind(401, -32600, "make the DPoP proof with the nonce in DPoP-Nonce"),
    "proof_overloaded": Kind(503, -32603, "too many DPoP proofs are in use; try again later"),
    "token_unbound": Kind(401, -32600, "the access token is bound to no key; send it as Bearer"),
    "scope_insufficient": Kind(403, -32600, "the access token lacks the scope for this"),
    # resolve
    "tool_unknown": Kind(404, -32602, "no such tool"),
    "arguments_invalid": Kind(400, None, "the arguments do not fit the tool's schema"),
    "arguments_too_large": Kind(413, None, "the arguments are larger than the gateway accepts"),
    "constraint_broken": Kind(403, None, "the token does not allow these arguments"),
    "calls_exhausted": Kind(403, None, "the token allows no more calls of this tool"),
    "budget_exhausted": Kind(403, None, "the run's budget does not allow this call"),
    "limit_exhausted": Kind(403, None, "policy allows no more calls of this tool for now"),
    "idempotency_key_required": Kind(403, None, "policy asks for an idempotency key on this call"),
    "obligation_unmet": Kind(403, None, "policy asks for something that this call cannot have"),
    "call_unknown": Kind(404, None, "no such call"),
    # decide
    "policy_unavailable": Kind(503, -32603, "no policy decision could be reached; try again later"),
    "policy_timeout": Kind(503, -32603, "no policy decision came in time; try again later"),
    "policy_suspended": Kind(
        503, -32603, "policy ran out of time on calls of this agent several times; try again later"
    ),
    "policy_worker_died": Kind(503, -32603, "no policy decision was reached; try again later"),
    "policy_overloaded": Kind(503, -32603, "too many policy decisions are asked for; try again"),
    "policy_revision_foreign": Kind(
        503, -32603, "no policy decision could be reached; try again later"
    ),
    "policy_error": Kind(500, -32603, "the policies could not be evaluated for this call"),
    # hold
    "state_unavailable": Kind(503, -32603, "the gateway's own state cannot be used; try again"),
    "too_many_pending": Kind(429, None, "too many calls of this agent wait for approval"),
    "approval_unavailable": Kind(503, None, "the call could not be held; try again later"),
    "no_eligible_approver": Kind(403, None, "nobody may approve this call"),
    "approval_not_found": Kind(404, None, "no such approval"),
    # record
    "audit_unavailable": Kind(503, -32603, "the audit log cannot be written; nothing was executed"),
    "audit_overloaded": Kind(503, -32603, "the audit log is busy; nothing was executed; try again"),
    "audit_record_invalid": Kind(413, None, "the call does not fit into one audit record"),
    # call
    "tool_killed": Kind(403, None, "an operator has stopped this tool; nothing was executed"),
    "kill_feed_stale": Kind(
        503, -32603, "what is stopped is not known now; nothing was executed; try again"
    ),
    "upstream_unavailable": Kind(502, None, "the tool gave no usable answer"),
    "upstream_timeout": Kind(504, None, "the tool did not answer in time"),
    "upstream_protocol": Kind(502, None, "the tool's answer could not be understood"),
    "upstream_credential_unavailable": Kind(502, None, "no credential for the tool could be had"),
    "upstream_credential_refused": Kind(502, None, "the tool refused the gateway's credential"),
    "result_too_large": Kind(502, None, "the tool's answer is larger than the gateway accepts"),
    "unsupported_result": Kind(502, None, "the tool asked for something the gateway cannot relay"),
    # filter
    "result_withheld": Kind(403, None, "policy does not allow this result to be seen"),
    "outcome_unrecorded": Kind(503, -32603, "the call ran, but its outcome could not be recorded"),
    "internal_error": Kind(500, -32603, "the gateway failed; nothing more is known"),
}


_DECIDED: Final = frozenset(
    {
        "arguments_invalid",
        "budget_exhausted",
        "calls_exhausted",
        "idempotency_key_required",
        "internal_error",
        "limit_exhausted",
        "obligation_unmet",
        "policy_unavailable",
        "policy_timeout",
        "policy_suspended",
        "policy_worker_died",
        "policy_overloaded",
        "policy_revision_foreign",
        "policy_error",
    }
)
"""Codes of the gateway's own at stage `decide`. Any other there is a policy author's."""


def is_unavailable(refusal: Refusal) -> bool:
    """Whether nothing was decided: the same call may fare otherwise later."""
    return kind_of(refusal.code, refusal.stage).status == _UNAVAILABLE


def kind_of(code: str, stage: Stage | None = None) -> Kind:
    """How to tell `code`; a code that policy authors chose is told as a policy refusal.

    Authors choose freely, so at stage `decide` a code means what it means elsewhere only where the
    gateway itself gives it there: a policy does not send callers off to get a new token.
    """
    if stage == "decide" and code not in _DECIDED:
        return POLICY
    return KINDS.get(code, POLICY)
