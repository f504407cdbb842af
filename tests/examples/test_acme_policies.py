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
    assert set().union(*authority.values()) == servers
