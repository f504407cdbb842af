"""The policy input: one JSON document, with the arguments as they were sent."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.core.caller import CallerCache, build_caller_view
from gateway.core.calls.family import Family
from gateway.core.calls.policy_input import build_caller, build_document
from gateway.core.policy.decision import Phase
from gateway.core.tokens.token import Constraint, Grant
from tests.fixed import NOW_S
from tests.unit.connectors.calls import build_tool
from tests.unit.core.test_strict_json import JSON, TEXT
from tests.unit.path.world import build_claims

SCHEMA = find_rego_root() / "schemas" / "input.v1.json"
TOOL = build_tool("refund", effect="money", sums=("/amount",))
CALL_PHASES: list[Phase] = ["call", "result", "resume"]


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "whatever anybody is called, no key stands there twice"
    return dict(pairs)


def document_of(
    phase: Phase = "call",
    *,
    arguments: bytes | None = b"{}",
    claims: Any = None,  # noqa: ANN401 - Claims
    grant: Grant | None = None,
    **more: Any,  # noqa: ANN401 - as `build_document`
) -> bytes:
    claims = claims or build_claims()
    return build_document(
        phase=phase,
        caller=build_caller(claims),
        claims=claims,
        grant=claims.grants[0] if grant is None else grant,
        tool=TOOL,
        arguments=arguments,
        now_ns=NOW_S * 1_000_000_000,
        ledger=Family("root-1").view_run(),
        **more,
    )


@pytest.mark.req("GW-11")
@given(
    st.dictionaries(TEXT, JSON, max_size=3),
    st.sampled_from(CALL_PHASES),
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
    st.sampled_from([None, 1]),
)
def test_it_is_always_json_and_the_arguments_are_byte_for_byte_as_sent(
    value: dict[str, Any], phase: Phase, name: str, claimed: dict[str, str], indent: int | None
) -> None:
    raw = json.dumps(value, indent=indent).encode()
    claims = build_claims(
        subject=name, workflow=name, roles=(name,), allowed_values={name: (name,)}
    )
    document = document_of(phase, arguments=raw, claims=claims, claimed=claimed)
    assert raw in document
    read = orjson.loads(document)
    json.loads(document, object_pairs_hook=no_key_twice)
    assert read["context"]["args"] == value
    assert read["context"]["claimed"] == claimed
    assert read["subject"]["id"] == name
    assert (read["version"], read["phase"]) == (1, phase)


def test_every_member_says_what_it_should() -> None:
    grant = Grant("srv", constraints={"/amount": Constraint(max=5)}, max_calls=2)
    claims = build_claims(grants=(grant,), depth=1, allowed_values={"/to": ("a",)})
    read = orjson.loads(
        document_of(
            claims=claims,
            grant=claims.grants[0],
            arguments=b'{"amount":1}',
            history={"recent": ["srv.refund"], "repeats": 2, "last_minute": 1},
            claimed={"confidence": 0.1},
            approval={"id": "a-1"},
        )
    )
    assert read["environment"] == "test"
    assert read["subject"]["owner"] == "otto"
    assert read["action"] == {"name": "tools/call"}
    assert read["resource"]["id"] == "srv.refund"
    context = read["context"]
    assert context["now_ns"] == NOW_S * 1_000_000_000
    assert context["token"] == {
        "scopes": ["tools:call", "tools:list"],
        "allowed_values": {"/to": ["a"]},
        "depth": 1,
        "origin": "launcher",
        "narrowed": [],
        "constraints": [{"server": "srv", "constraints": {"/amount": {"max": 5}}, "max_calls": 2}],
        "expires_in_s": 280,
    }
    assert context["run"] == {
        "id": "run-1",
        "workflow": "",
        "calls": 0,
        "counts": {},
        "sums": {},
        "labels": [],
        "step": 1,
        "egress": {"servers": {}, "classes": {}},
        "recent": ["srv.refund"],
        "repeats": 2,
    }
    assert context["family"] == {"counts": {}, "sums": {}, "last_minute": 1}
    assert (context["budget"], context["client"]) == ({}, {"id": "refund-bot"})
    assert (context["claimed"], context["approval"]) == ({"confidence": 0.1}, {"id": "a-1"})


def test_a_listing_has_no_arguments_and_a_result_has_one() -> None:
    assert "args" not in orjson.loads(document_of("list", arguments=None))["context"]
    read = orjson.loads(document_of("result", result={"is_error": False}))
    assert read["context"]["result"] == {"is_error": False}
    assert "recent" not in read["context"]["run"]


def test_without_a_grant_there_are_no_constraints() -> None:
    claims = build_claims()
    document = build_document(
        phase="issue",
        caller=build_caller(claims),
        claims=claims,
        grant=None,
        tool=TOOL,
        arguments=None,
        now_ns=0,
        ledger=Family("root-1").view(),
    )
    assert orjson.loads(document)["context"]["token"]["constraints"] == []


@pytest.mark.req("GW-11")
def test_it_fits_the_schema_that_authors_read() -> None:
    validator = jsonschema_rs.validator_for(orjson.loads(SCHEMA.read_bytes()))
    for phase in CALL_PHASES:
        result = {"is_error": False, "bytes": 2, "structured": None, "text": ["hi"]}
        document = orjson.loads(
            document_of(
                phase,
                arguments=b'{"amount":1}',
                history={"recent": ["srv.refund"], "repeats": 0, "last_minute": 0}
                if phase == "call"
                else None,
                approval={"id": "1", "state": "APPROVED", "spec_digest": "sha256:0"}
                if phase == "resume"
                else None,
                result=result if phase == "result" else None,
            )
        )
        assert [error.message for error in validator.iter_errors(document)] == []
    listing = orjson.loads(document_of("list", arguments=None))
    assert [error.message for error in validator.iter_errors(listing)] == []


def test_a_caller_is_worked_out_once_and_anew_for_other_claims() -> None:
    cache, claims = CallerCache(), build_claims()
    caller = cache.get(claims)
    assert cache.get(claims) is caller
    twin = build_claims(grants=(Grant("mail"),))  # the same token id, other claims
    other = cache.get(twin)
    assert other is not caller
    assert other.grants.find(TOOL) is None
    assert cache.get(claims) is not other
    for number in range(4_097):
        cache.get(build_claims(jti=f"jti-{number}"))
    assert build_caller_view(claims).actor["jti"] == "jti-1"
