from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import orjson
import pytest

from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.policy.policy_scope import EFFECTS, PHASES
from gateway.core.calls.ledger import Ledger
from gateway.core.calls.policy_input import build_caller, build_document
from gateway.core.catalog import Review, Tool
from gateway.core.policy.decision import Phase
from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.issuing import ask_about_run, ask_about_token
from gateway.core.tokens.token import Claims, Constraint, Grant, Run

pytestmark = pytest.mark.req("GW-11")
SCHEMA = json.loads((find_rego_root() / "schemas" / "input.v1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
GRANT = Grant(server="shop", constraints={"/n": Constraint(max=5)}, max_calls=3)
CLAIMS = Claims(
    issuer="https://gw.example",
    audience="https://gw.example",
    subject="agent-1",
    client_id="launcher-1",
    jti="j",
    issued_at=1,
    expires_at=300,
    scopes=frozenset({"tools:call"}),
    grants=(GRANT,),
    environment="test",
    run_id="r",
    root_jti="r",
    sid="r",
    allowed_values={"domains": ("a.example",)},
)
RUN = Run(
    id="r",
    agent="agent-1",
    launcher="launcher-1",
    grants=(GRANT,),
    allowed_values={},
    created_at=1,
    deadline=300,
    credential_hash="",
)


class AnySchema:
    def failure(self, _arguments: object) -> str | None:
        return None


TOOL = Tool(
    id="shop.act",
    server="shop",
    name="act",
    wire_name="shop__act",
    review=Review(name="act", effect="update"),
    definition=b"{}",
    definition_digest="sha256:" + "0" * 64,
    schema=AnySchema(),
    resource=orjson.loads(build_sample("call"))["resource"],
)


def check(document: bytes) -> None:
    found = [
        f"{error.instance_path}: {error.message}"
        for error in VALIDATOR.iter_errors(orjson.loads(document))
    ]
    assert found == []


@pytest.mark.parametrize("phase", PHASES)
def test_the_samples_that_bundles_are_tried_on_are_inputs(phase: str) -> None:
    check(build_sample(phase))


@pytest.mark.parametrize("phase", ["list", "call", "result", "resume"])
def test_what_the_gateway_asks_about_tools_is_documented(phase: Phase) -> None:
    result = {"is_error": False, "bytes": 2, "structured": None, "text": ["x"]}
    check(
        build_document(
            phase=phase,
            caller=build_caller(CLAIMS),
            claims=CLAIMS,
            grant=GRANT,
            tool=TOOL,
            arguments=None if phase == "list" else b'{"n": 1}',
            now_ns=1,
            ledger=Ledger().family("r").view_run(),
            day=Ledger().day("launcher-1 agent-1", 1).view(),
            history={"recent": ["shop.act"], "repeats": 1, "last_minute": 2},
            provenance={"/to": "unseen"},
            claimed={"confidence": 0.5},
            approval={"id": "a"} if phase == "resume" else None,
            result=result if phase == "result" else None,
        )
    )


def test_what_the_gateway_asks_about_runs_is_documented() -> None:
    launcher = Launcher(id="launcher-1", secret_hash="", owner="")
    check(ask_about_run(RUN, launcher, "test", 1).document)
    check(ask_about_token(CLAIMS, 1).document)


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, inner in schema.get("properties", {}).items():
        found += walk(inner, f"{path}/{name}")
    return found


UNDESCRIBED = {"/resource/type", "/action", "/context", "/context/run/id", "/context/client/id"}
NAMES_SAY_IT = {
    "/context/family/counts",
    "/context/family/sums",
    "/context/family/last_24h/counts",
    "/context/family/last_24h/sums",
    "/context/run/egress/classes",
    "/context/run/egress/servers",
    "/context/result/is_error",
}


def test_every_field_is_described_for_authors() -> None:
    silent = {path for path, schema in walk(SCHEMA) if "description" not in schema}
    assert silent - UNDESCRIBED - NAMES_SAY_IT == {"/context/token/scopes"}


def test_phases_and_effects_are_those_of_the_gateway() -> None:
    assert tuple(SCHEMA["properties"]["phase"]["enum"]) == PHASES
    assert tuple(SCHEMA["properties"]["resource"]["properties"]["effect"]["enum"]) == EFFECTS


def test_agents_are_registered_with_what_the_subject_shows() -> None:
    assert {"owner", "roles"} <= set(Agent.__struct_fields__)
