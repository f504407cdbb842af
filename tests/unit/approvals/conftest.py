"""A held call, a clock that stands still, and the people around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.approvals.approval import ApprovalRequest, Vote, build_binding, spec_digest
from gateway.core.canonical import digest
from gateway.core.policy.decision import ApprovalSpec, Obligation, Reason, Stage
from tests.fixed import NOW_S, CountingIds, FixedClock

MakeRequest = Callable[..., ApprovalRequest]


def build_request(**changes: Any) -> ApprovalRequest:  # noqa: ANN401 - any field
    """Build a PENDING refund of 120 by a bot that Olga owns and Lars launched."""
    spec = ApprovalSpec(stages=((Stage(groups=("finance",)),),))
    arguments = b'{"order": "A-7", "amount": 120}'
    request = ApprovalRequest(
        id="0" * 31 + "1",
        op="op-1",
        state="PENDING",
        version=1,
        agent="refund-bot",
        run_id="run-1",
        root_jti="root-1",
        on_behalf_of="olga",
        launcher="lars",
        server="billing",
        tool="refund",
        tool_id="billing.refund",
        wire_name="billing__refund",
        definition_digest="sha256:" + "d" * 64,
        endpoint_digest="sha256:" + "e" * 64,
        arguments=arguments,
        arguments_digest=digest(arguments),
        join_digest="sha256:" + "a" * 64,
        obligations=(Obligation("redact", {"type": "redact", "paths": ["/iban"]}),),
        reasons=(Reason("large_refund", "more than 100", "refunds"),),
        spec=spec,
        spec_digest=spec_digest(spec),
        policy_revision="sha256:" + "b" * 64,
        binding="",
        nonce="n" * 43,
        separation=("refund-bot", "lars", "olga"),
        created_at=NOW_S,
        expires_at=NOW_S + 900,
        claims={"sub": "refund-bot"},
        meta={},
        updated_at=NOW_S,
    )
    request = replace(request, **changes)
    if request.binding:
        return request
    binding = build_binding(
        request, issuer="https://gw.test", environment="test", log_origin="test/log"
    )
    return replace(request, binding=binding)


def build_vote(request: ApprovalRequest, voter: str, decision: str, *groups: str) -> Vote:
    """Build a vote on exactly this request's binding."""
    return Vote(
        request_id=request.id,
        voter=voter,
        decision="approve" if decision == "approve" else "deny",
        binding=request.binding,
        groups=("approver", *(groups or ("finance",))),
        reason="because",
        voted_at=NOW_S,
    )


@pytest.fixture
def make_request() -> MakeRequest:
    return build_request


@pytest.fixture
def make_vote() -> Callable[..., Vote]:
    return build_vote


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def ids() -> CountingIds:
    return CountingIds()
