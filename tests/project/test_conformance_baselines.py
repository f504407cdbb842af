"""What the conformance baselines may excuse, and that the map of the scenarios is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conformance.run import REVISIONS, load_expected, load_map
from tests.conformance.verdict import Check, judge

pytestmark = pytest.mark.req("GW-17")

FOLDER = Path(__file__).parents[1] / "conformance"
HAS_TO_PASS = {"lifecycle", "tools", "logging", "headers", "origin", "streams", "caching"}
MAY_FAIL = {
    "completion",
    "elicitation",
    "prompts",
    "resources",
    "rounds",
    "sampling",
    "subscriptions",
    "tasks",
}
KNOWN = load_map()


def test_every_part_either_has_to_pass_or_is_left_to_a_later_issue() -> None:
    parts = {part for name, part in KNOWN.part_of.items() if ":" not in name}
    assert parts == HAS_TO_PASS | MAY_FAIL
    assert KNOWN.excusable == MAY_FAIL


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_baseline_names_single_checks_of_parts_that_may_fail(revision: str) -> None:
    expected = load_expected(revision)
    assert expected, "nothing fails any more: have this test say so"
    for name in expected:
        scenario, colon, check = name.partition(":")
        assert (colon, bool(check)) == (":", True), name
        assert KNOWN.part(name) in MAY_FAIL, name
        assert scenario in KNOWN.scenarios(revision), name


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_baseline_names_no_check_twice(revision: str) -> None:
    expected = load_expected(revision)
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_map_knows_every_scenario_that_a_revision_has(revision: str) -> None:
    assert len(KNOWN.scenarios(revision)) == KNOWN.count[revision]


def test_no_scenario_is_about_two_parts() -> None:
    parts = YAML(typ="safe", pure=True).load(FOLDER / "scenarios.yml")["parts"]
    names = [name for scenarios in parts.values() for name in scenarios]
    assert sorted(set(names)) == sorted(names)


def test_single_checks_about_another_part_are_of_known_scenarios() -> None:
    singled = [name for name in KNOWN.part_of if ":" in name]
    assert singled
    assert {name.partition(":")[0] for name in singled} <= KNOWN.part_of.keys()
    assert {KNOWN.part(name) for name in singled} <= MAY_FAIL


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_baseline_entry_that_passes_fails_the_run(revision: str) -> None:
    passing = [Check(name, "any", "SUCCESS") for name in KNOWN.scenarios(revision)]
    expected = load_expected(revision)
    faults = judge(passing, expected, revision, KNOWN).faults
    assert len(faults) == len(expected)
    assert all("remove it from the baseline" in fault for fault in faults)
