"""The example's Rego: each `test_*` rule beside the policies holds in the embedded engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import regorus
from ruamel.yaml import YAML

pytestmark = pytest.mark.req("GW-15")

ACME = Path(__file__).parents[2] / "examples" / "acme"
POLICIES = ACME / "policies"
CASES = [
    (path.stem, name)
    for path in sorted(POLICIES.glob("*_test.rego"))
    for name in re.findall(r"^(test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.fixture(scope="module")
def engine() -> regorus.Engine:
    engine = regorus.Engine()
    for path in sorted(POLICIES.glob("*.rego")):
        engine.add_policy(path.name, path.read_text(encoding="utf-8"))
    return engine


@pytest.mark.parametrize(("package", "rule"), CASES)
def test_a_policy_test_holds(engine: regorus.Engine, package: str, rule: str) -> None:
    engine.set_input_json("{}")
    answer = json.loads(engine.eval_query_as_json(f"data.policies.{package}.{rule}"))
    assert [e["value"] for r in answer["result"] for e in r["expressions"]] == [True]


def test_every_package_has_tests_and_authority_over_known_servers() -> None:
    packages = {path.stem for path in POLICIES.glob("*.rego") if not path.stem.endswith("_test")}
    tested = {package.removesuffix("_test") for package, _ in CASES}
    authority = json.loads((POLICIES / "authority.json").read_text(encoding="utf-8"))["policies"]
    servers = {YAML(typ="safe").load(path)["id"] for path in (ACME / "manifests").glob("*.yaml")}
    assert packages == tested == authority.keys()
    assert set().union(*authority.values()) - {"*"} == servers


@pytest.fixture(scope="module")
def decider() -> regorus.Engine:
    """The whole bundle: Countersign's entry point over Acme's packages."""
    engine = regorus.Engine()
    sources = [*(ACME.parents[1] / "rego" / "countersign").glob("*.rego"), *POLICIES.glob("*.rego")]
    for path in sorted(path for path in sources if not path.stem.endswith("_test")):
        engine.add_policy(path.name, path.read_text(encoding="utf-8"))
    authority = json.loads((POLICIES / "authority.json").read_text(encoding="utf-8"))
    engine.add_data({"authority": authority})
    return engine


def decided(engine: regorus.Engine, phase: str, tool: str, **args: object) -> tuple[str, list[str]]:
    """Return outcome and reason codes for a call of `tool` as its manifest describes it."""
    server, _, name = tool.partition(".")
    manifest = YAML(typ="safe").load(ACME / "manifests" / f"{server}.yaml")
    effects = {review["name"]: review["effect"] for review in manifest["tools"]}
    context: dict[str, object] = {
        "token": {
            "scopes": [],
            "allowed_values": {"acme.email_send#/to": ["maria.keller@keller-optik.example"]},
        },
        "family": {"counts": {}, "sums": {}},
    }
    if phase != "list":
        context["args"] = args
    effect = effects.get(name, "unreviewed")
    resource = {"type": "tool", "id": tool, "server": server, "effect": effect}
    document = {"version": 1, "phase": phase, "resource": resource, "context": context}
    engine.set_input_json(json.dumps(document))
    answer = json.loads(engine.eval_query_as_json("data.countersign.decision"))
    decision = answer["result"][0]["expressions"][0]["value"]
    return decision["outcome"], sorted(reason["code"] for reason in decision["reasons"])


@pytest.mark.parametrize(
    ("cents", "outcome", "code"),
    [
        (8990, "permit", "refund_within_limit"),
        (42000, "hold", "refund_needs_approval"),
        (96000, "deny", "refund_over_limit"),
    ],
)
def test_a_refund_is_decided_by_its_amount(
    decider: regorus.Engine, cents: int, outcome: str, code: str
) -> None:
    for phase in ("call", "resume"):
        found = decided(decider, phase, "acme.refunds_create", amount_cents=cents)
        assert found == (outcome, [code])


@pytest.mark.parametrize(
    ("to", "outcome", "code"),
    [
        ("maria.keller@keller-optik.example", "permit", "recipient_allowed"),
        ("team@acme.example", "permit", "recipient_allowed"),
        ("archive@collector.example", "deny", "recipient_outside"),
    ],
)
def test_a_mail_is_decided_by_its_recipient(
    decider: regorus.Engine, to: str, outcome: str, code: str
) -> None:
    assert decided(decider, "call", "acme.email_send", to=to) == (outcome, [code])


@pytest.mark.parametrize(
    ("tool", "outcome", "code"),
    [
        ("acme.orders_get", "permit", "read_only"),
        ("acme.notes_add", "permit", "own_records"),
        ("git.git_log", "permit", "read_only"),
        ("git.git_commit", "permit", "commit_allowed"),
        ("git.git_reset", "deny", "git_reset_denied"),
        ("git.git_checkout", "deny", "no_policy_permits"),
    ],
)
def test_other_calls_are_decided_by_the_tool(
    decider: regorus.Engine, tool: str, outcome: str, code: str
) -> None:
    assert decided(decider, "call", tool) == (outcome, [code])


@pytest.mark.parametrize("server", ["acme", "git"])
def test_every_reviewed_tool_is_listed_and_no_other(decider: regorus.Engine, server: str) -> None:
    manifest = YAML(typ="safe").load(ACME / "manifests" / f"{server}.yaml")
    for review in manifest["tools"]:
        assert decided(decider, "list", f"{server}.{review['name']}")[0] == "permit"
    assert decided(decider, "list", f"{server}.drop_everything")[0] == "deny"
