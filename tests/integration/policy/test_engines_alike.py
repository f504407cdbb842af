"""The same policies on regorus and on a real OPA: every test, and thousands of generated inputs.

One class of difference is accepted, `engine_error`: the embedded engine fails, which denies, where
OPA decides. It is counted and printed. COUNTERSIGN_FAULT_FACTOR multiplies the inputs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters.authoring.rego_tests import run_tests
from gateway.adapters.opa.opa_bundle import ROOT, name_root
from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    find_rego_root,
    load_bundle_dir,
    read_folder,
)
from tests.effort import share
from tests.integration.policy.embedded import FAILED, Embedded
from tests.integration.policy.opa_engines import pushing
from tests.integration.policy.random_inputs import Questioner
from tests.integration.policy.test_stock_opa import AUTHORITY, RULES, SCOPED
from tests.opa_server import NO_OPA, OPA

pytestmark = [
    pytest.mark.network,
    pytest.mark.req("POL-05", "POL-13"),
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "acme" / "policies"
FACTOR = int(os.environ.get("COUNTERSIGN_FAULT_FACTOR", "1"))
EACH = share(1_260) * FACTOR
BATCH = 100
SETTINGS = {
    "egress": {"internal_domains": ["acme.example"], "unknown": "hold", "untrusted": "deny"},
    "money_limits": {"per_call": {"hold": 100, "deny": 1000}},
    "pace": {"calls_per_run": 50, "calls_per_minute": 10},
}


BUNDLES = ("own", "default pack", "default pack, set", "examples")


@cache
def bundles() -> dict[str, Bundle]:
    faults: list[Any] = []
    pack, data = read_folder(default_pack(), faults)
    assert not faults
    return {
        "own": build_bundle({"rules.rego": RULES, "scoped.rego": SCOPED}, AUTHORITY),
        "default pack": load_bundle_dir(default_pack()),
        "default pack, set": build_bundle(pack, {**data, "settings": SETTINGS}),
        "examples": load_bundle_dir(EXAMPLES),
    }


def outcomes_of_opa(folder: Path) -> dict[str, str]:
    assert OPA is not None
    done = subprocess.run(
        [OPA, "test", "--format=json", "--ignore", "authority.json", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        f"{each['package']}.{each['name']}": "FAIL" if each.get("fail") else "PASS"
        for each in json.loads(done.stdout)
    }


@pytest.mark.parametrize("folder", [find_rego_root() / "policies", EXAMPLES])
def test_every_policy_test_has_the_same_outcome(folder: Path) -> None:
    ours = {each.name: each.outcome for each in run_tests(folder)}
    root = find_rego_root() if folder != EXAMPLES else None
    opa = outcomes_of_opa(root or folder)
    assert ours
    assert ours == {name: opa[name] for name in ours}
    assert set(ours.values()) == {"PASS"}


@pytest.mark.parametrize("name", BUNDLES)
async def test_generated_inputs_are_decided_alike(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundles()[name]
    embedded = Embedded(bundle)
    counted: Counter[str] = Counter()
    documents = Questioner(7, bundle).documents(EACH)
    async with pushing(bundle) as engine, httpx.AsyncClient() as http:
        place = f"{ROOT}/{name_root(bundle.revision)}/countersign/answers"
        url = f"{engine.endpoint.replace('opa:', 'http:')}/v1/data/{place}"
        for at in range(0, len(documents), BATCH):
            asked = documents[at : at + BATCH]
            found = await http.post(url, json={"input": {"many": asked}})
            decisions = found.json()["result"]["decisions"]
            for number, document in enumerate(asked):
                opa = decisions[str(number)]
                answers = [embedded.ask(document)]
                if number % 10 == 0:  # what index and engine do to each other: test_policy_index
                    answers.append(embedded.ask_whole(document))
                for answer in answers:
                    counted[compare(answer, opa)] += 1
                counted[_outcome(opa)] += 1
    with capsys.disabled():
        print(f"\n{name}: {len(documents)} inputs, {dict(counted)}")  # noqa: T201 - the count is wanted
    assert counted["equal"] > 0.9 * len(documents)
    assert counted["permit"] * counted["deny"] > 0


def compare(answer: Any, opa: Any) -> str:  # noqa: ANN401 - JSON
    """Return the class of what two engines answer; fail where there is none."""
    if answer == FAILED:
        return "engine_error"
    assert answer == opa
    return "equal"


def _outcome(decision: Any) -> str:  # noqa: ANN401 - JSON
    return str(decision["outcome"])
