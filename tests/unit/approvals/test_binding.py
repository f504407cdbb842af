from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from msgspec.structs import replace

from gateway.core.approvals.approval import ApprovalRequest, binding_words, build_binding
from gateway.core.policy.decision import ApprovalSpec, Obligation, Reason, Stage

MakeRequest = Callable[..., ApprovalRequest]
GATEWAY = {"issuer": "https://gw.test", "environment": "test", "log_origin": "test/log"}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.req("GW-12")
def test_the_binding_is_the_digest_of_the_members_that_the_design_lists(
    make_request: MakeRequest,
) -> None:
    request = make_request()
    signed: dict[str, Any] = {
        "domain": "countersign.approval/v1",
        "issuer": "https://gw.test",
        "environment": "test",
        "log_origin": "test/log",
        "request": request.id,
        "actor_chain": ["refund-bot"],
        "on_behalf_of": "olga",
        "run": "run-1",
        "server": "billing",
        "endpoint_digest": request.endpoint_digest,
        "tool": "billing.refund",
        "definition_digest": request.definition_digest,
        "arguments_digest": sha256(b'{"order": "A-7", "amount": 120}'),
        "obligations_digest": sha256(b'[{"paths":["/iban"],"type":"redact"}]'),
        "policy_revision": request.policy_revision,
        "spec_digest": sha256(
            b'{"execute":"on_approval","stages":[[{"approve":1,"deny":1,"groups":["finance"],'
            b'"min_assurance":"session"}]],"ttl_s":900}'
        ),
        "display_digest": sha256(
            rfc8785.dumps(
                {
                    "agent": "refund-bot",
                    "arguments": sha256(request.arguments),
                    "launcher": "lars",
                    "reasons": [["large_refund", "more than 100", "refunds"]],
                    "tool": "billing__refund",
                }
            )
        ),
        "nonce": "n" * 43,
        "expires_at": request.expires_at,
    }
    assert build_binding(request, **GATEWAY) == sha256(rfc8785.dumps(signed))


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "another"),
        ("agent", "other-bot"),
        ("actor_chain", ("refund-bot", "planner")),
        ("on_behalf_of", None),
        ("run_id", "run-2"),
        ("launcher", "mallory"),
        ("server", "ledger"),
        ("tool_id", "billing.payout"),
        ("endpoint_digest", "sha256:00"),
        ("definition_digest", "sha256:00"),
        ("arguments", b'{"order": "A-7", "amount": 1200}'),
        ("arguments", b'{"order":"A-7","amount":120}'),
        ("obligations", ()),
        ("obligations", (Obligation("redact", {"type": "redact", "paths": []}),)),
        ("reasons", (Reason("harmless"),)),
        ("spec", ApprovalSpec(stages=((Stage(groups=("everybody",)),),))),
        ("policy_revision", "sha256:00"),
        ("nonce", "m" * 43),
        ("expires_at", 2_000_000_000),
    ],
)
def test_a_change_of_anything_that_was_signed_changes_the_binding(
    field: str, value: object, make_request: MakeRequest
) -> None:
    request = make_request()
    changes: dict[str, Any] = {field: value}
    assert build_binding(replace(request, **changes), **GATEWAY) != request.binding


@pytest.mark.parametrize("field", ["issuer", "environment", "log_origin"])
def test_a_binding_is_worth_nothing_at_another_gateway(
    field: str, make_request: MakeRequest
) -> None:
    request = make_request()
    assert build_binding(request, **{**GATEWAY, field: "other"}) != request.binding


@pytest.mark.req("GW-12")
def test_digests_stored_beside_the_bytes_are_not_believed(make_request: MakeRequest) -> None:
    request = make_request()
    same = replace(request, arguments_digest="sha256:00", spec_digest="sha256:00")
    assert build_binding(same, **GATEWAY) == request.binding


def test_what_changes_over_the_life_of_a_request_is_not_signed(make_request: MakeRequest) -> None:
    request = make_request()
    later = replace(
        request, state="CLAIMED", version=7, claim_token="t", lease_until=1, outcome="x"
    )
    assert build_binding(later, **GATEWAY) == request.binding


def test_binding_words_are_the_proquints_of_its_first_64_bits() -> None:
    # The examples of arXiv:0901.4016: 127.0.0.1 and 63.84.220.193.
    assert binding_words("sha256:7f0000013f54dcc1" + "0" * 48) == "lusab-babad-gutih-tugad"
