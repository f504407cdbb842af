"""Held calls: states, transitions, binding (DESIGN §5). Filled in by the approvals slice."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from gateway.core.decision import ApprovalSpec, Obligation, Reason

State = Literal[
    "PENDING",
    "APPROVED",
    "CLAIMED",
    "DISPATCHED",
    "EXECUTED",
    "FAILED",
    "DENIED",
    "EXPIRED",
    "CANCELLED",
    "STALE",
    "UNKNOWN",
]


class ApprovalRequest(Struct, frozen=True, kw_only=True):
    """A held call as stored. Times in seconds since the epoch; `arguments` are the exact bytes.

    `binding` is what approvers vote on: SHA-256 over everything in DESIGN §5 (`build_binding`).
    `separation` are the people and agents who may not vote. `caller` is what a resumed call is
    checked against: agent, run, token family.
    """

    id: str
    op: str
    state: State
    version: int
    agent: str
    run_id: str
    root_jti: str
    on_behalf_of: str | None
    launcher: str
    server: str
    tool: str
    tool_id: str
    wire_name: str
    definition_digest: str
    endpoint_digest: str
    arguments: bytes
    arguments_digest: str
    join_digest: str
    obligations: tuple[Obligation, ...]
    reasons: tuple[Reason, ...]
    spec: ApprovalSpec
    spec_digest: str
    policy_revision: str
    binding: str
    nonce: str
    separation: tuple[str, ...]
    created_at: int
    expires_at: int
    claims: dict[str, Any]
    meta: dict[str, Any]
    claim_token: str | None = None
    lease_until: int | None = None
    outcome: str | None = None
    result: bytes | None = None
    updated_at: int = 0


class Vote(Struct, frozen=True, kw_only=True):
    """One human's word on one binding. `groups` are the voter's at the time of the vote."""

    request_id: str
    voter: str
    decision: Literal["approve", "deny"]
    binding: str
    groups: tuple[str, ...]
    reason: str
    voted_at: int
