"""The same policies on a stock OPA. Needs `opa` (1.x) in COUNTERSIGN_OPA or on PATH."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import regorus
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.bundle_store import save_bundle
from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    find_rego_root,
    load_bundle_dir,
)
from gateway.adapters.regorus.regorus_index import describe_subset
from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, Evaluator, build_engine
from tests.effort import share

OPA = os.environ.get("COUNTERSIGN_OPA") or shutil.which("opa")
pytestmark = [
    pytest.mark.req("GW-11"),
    pytest.mark.skipif(OPA is None, reason="no opa: set COUNTERSIGN_OPA or install it on PATH"),
]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "acme" / "policies"


def opa(*arguments: str | Path, document: object = None) -> str:
    assert OPA is not None
    done = subprocess.run(
        [OPA, *map(str, arguments)],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", [find_rego_root(), EXAMPLES])
def test_policies_pass_opa_check_strict(folder: Path) -> None:
    opa("check", "--strict", "--ignore", "authority.json", folder)


@pytest.mark.parametrize("folder", [find_rego_root(), EXAMPLES])
def test_policies_pass_opa_test(folder: Path) -> None:
    assert "PASS" in opa("test", "--ignore", "authority.json", folder)


RULES = """package policies.rules

n := input.context.args.n if is_number(input.context.args.n)

permit contains {"code": "ok", "message": input.context.args.note} if n < 10

permit contains {"code": "small"} if n < 5

deny contains {"code": "no", "message": sprintf("%v", [input.context.args])} if {
	n > 8
}

hold contains {"code": "wait", "approval": {"ttl": input.context.args.ttl}} if {
	input.context.args.n == 3
}

hold contains {"code": "wait_too", "approval": input.context.args.approval} if {
	input.context.args.n == 4
}

obligation contains {"type": "redact", "at": input.context.args.note} if input.context.args.n == 2
"""
SCOPED = """# METADATA
# custom:
#   applies_to: {tools: ["shop.*"], phases: [call, list, result]}
package policies.scoped

hold contains {"code": "scoped"} if input.resource.effect == "money"

deny contains "not an object" if input.resource.effect == "delete"
"""
AUTHORITY = {"authority": {"policies": {"rules": ["shop"]}}}


def bundles() -> list[Bundle]:
    own = build_bundle({"rules.rego": RULES, "scoped.rego": SCOPED}, AUTHORITY)
    return [own, load_bundle_dir(default_pack()), load_bundle_dir(EXAMPLES)]


approvals: st.SearchStrategy[Any] = st.sampled_from([
    None, {}, {"stages": []}, {"ttl": "5m"}, {"execute": "on_redeem"}, {"sod": 1}, [],
    {"stages": [{"any_of": [{"who": {"groups": ["a"]}}]}, {"any_of": []}], "ttl": "2h"},
])  # fmt: skip
arguments = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(0, 12),
        "note": st.sampled_from(["", "short", "ü" * 300, 7, None]),
        "ttl": st.sampled_from(["1m", "90s", "1d", "0s", "x", 5, None]),
        "approval": approvals,
    },
)
resources = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["shop.pay", "bank.pay"]),
        "server": st.sampled_from(["shop", "bank", None]),
        "effect": st.sampled_from(["read", "money", "delete", "unreviewed", "update", None]),
    },
)
documents = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 2]),
        "phase": st.sampled_from(["issue", "list", "call", "result", "resume", "other"]),
        "resource": resources,
        "context": st.fixed_dictionaries(
            {"args": arguments, "token": st.just({"scopes": ["tools:call", "tools:list"]})}
        ),
    }
)
QUERY = "[d | some i in input.all; d := data.countersign.decision with input as i]"


def build_embedded(bundle: Bundle) -> regorus.Engine:
    modules = [module for modules in bundle.modules().values() for module in modules]
    return build_engine(modules, bundle.data)


def ask_workers(
    bundle: Bundle, workers: Evaluator, known: dict[frozenset[str], int], document: dict[str, Any]
) -> object:
    """Ask as the gateway does: the engine of the packages that this tool and phase concern."""
    tool, server, effect = (document["resource"].get(n) or "" for n in ("id", "server", "effect"))
    heard = frozenset(
        package.name
        for package in bundle.packages.values()
        if package.scope is None or package.scope.matches(tool, server, effect, document["phase"])
    )
    if heard not in known:
        known[heard] = len(known) + 1
        subset = describe_subset(bundle, heard)
        command = {"do": "subset", "index": known[heard], **subset}
        assert workers.answer(0, CONTROL, json.dumps(command).encode()) == (ANSWER, b"{}")
    kind, payload = workers.answer(1, known[heard], json.dumps(document).encode())
    assert kind == ANSWER, payload
    return json.loads(payload)


def start_worker(bundle: Bundle) -> Evaluator:
    worker = Evaluator()
    load = {"do": "load", "tag": 1, "modules": bundle.modules(), "data": bundle.data, "samples": []}
    assert worker.answer(0, CONTROL, json.dumps(load).encode()) == (ANSWER, b'{"faults": []}')
    return worker


BUNDLES = bundles()
WORKERS = [start_worker(bundle) for bundle in BUNDLES]
KNOWN: list[dict[frozenset[str], int]] = [{} for _ in BUNDLES]
ENGINES = [build_embedded(bundle) for bundle in BUNDLES]


@settings(max_examples=share(6))
@given(st.lists(documents, min_size=40, max_size=60), st.sampled_from(range(len(BUNDLES))))
def test_both_engines_answer_alike(
    tmp_path_factory: pytest.TempPathFactory, asked: list[dict[str, Any]], which: int
) -> None:
    folder = save_bundle(tmp_path_factory.getbasetemp() / "bundles", BUNDLES[which])
    arguments = ("eval", "--format=raw", "--bundle", folder, "--stdin-input", QUERY)
    answers = json.loads(opa(*arguments, document={"all": asked}))
    for document, answer in zip(asked, answers, strict=True):
        ENGINES[which].set_input_json(json.dumps(document))
        found = ENGINES[which].eval_rule_as_json("data.countersign.decision")
        assert json.loads(found) == answer
        assert ask_workers(BUNDLES[which], WORKERS[which], KNOWN[which], document) == answer
