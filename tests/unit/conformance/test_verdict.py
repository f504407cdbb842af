"""How a run of the conformance harness is judged."""

from __future__ import annotations

import pytest

from tests.conformance.verdict import Check, Map, Status, build_map, judge

pytestmark = pytest.mark.req("GW-17")

KNOWN = Map(
    part_of={"call": "tools", "read": "resources", "job": "tasks", "call:odd": "resources"},
    excusable=frozenset({"resources", "tasks"}),
    unjudged=frozenset({"tasks"}),
    count={"r1": 3},
)


def run(**statuses: Status) -> list[Check]:
    """Return one check per scenario, `call`, `read` and `job`, passing unless said otherwise."""
    found: dict[str, Status] = {"call": "SUCCESS", "read": "SUCCESS", "job": "SUCCESS", **statuses}
    return [Check(scenario, "ok", status, "why") for scenario, status in found.items()]


def faults(checks: list[Check], *expected: str) -> list[str]:
    return judge(checks, expected, "r1", KNOWN).faults


def test_a_run_without_failures_has_no_faults() -> None:
    verdict = judge(run(), [], "r1", KNOWN)
    assert verdict.faults == []
    assert verdict.passed == {"tools": 1, "resources": 1}


def test_a_failure_outside_the_baseline_is_a_fault() -> None:
    assert faults(run(call="FAILURE")) == ["call:ok fails: why"]


def test_a_failure_in_the_baseline_is_expected() -> None:
    verdict = judge(run(read="FAILURE"), ["read:ok"], "r1", KNOWN)
    assert (verdict.faults, verdict.expected, verdict.failed.total()) == ([], ["read:ok"], 1)


@pytest.mark.parametrize("status", ["SUCCESS", "WARNING", "SKIPPED", "INFO"])
def test_a_baseline_entry_that_does_not_fail_is_stale(status: Status) -> None:
    (fault,) = faults(run(read=status), "read:ok")
    assert "remove it" in fault


def test_what_has_to_pass_cannot_be_excused() -> None:
    (fault,) = faults(run(call="FAILURE"), "call:ok")
    assert "tools, which has to pass" in fault


def test_a_single_check_can_be_about_another_part_than_its_scenario() -> None:
    assert faults([*run(), Check("call", "odd", "FAILURE")], "call:odd") == []


def test_a_whole_scenario_cannot_be_excused() -> None:
    assert any("whole scenario" in fault for fault in faults(run(read="FAILURE"), "read"))


def test_the_gravest_run_of_a_repeated_check_counts() -> None:
    repeated = [*run(), Check("call", "ok", "FAILURE", "the second time"), *run()]
    assert faults(repeated) == ["call:ok fails: the second time"]


def test_extension_scenarios_are_not_judged() -> None:
    assert faults(run(job="FAILURE")) == []


def test_a_warning_is_told_and_is_no_fault() -> None:
    verdict = judge(run(call="WARNING"), [], "r1", KNOWN)
    assert (verdict.faults, verdict.warnings) == ([], ["call:ok: why"])


def test_an_unknown_scenario_is_a_fault() -> None:
    assert any("`new` is unknown" in fault for fault in faults([*run(), Check("new", "x", "INFO")]))


def test_a_run_with_too_few_scenarios_is_a_fault() -> None:
    (fault,) = faults(run()[:2])
    assert "2 scenarios ran, not 3" in fault


def test_a_scenario_belongs_to_the_revision_that_lists_its_name_or_its_part() -> None:
    known = build_map(
        {
            "excusable": [],
            "unjudged": [],
            "count": {},
            "parts": {"a": ["one", "two"], "b": ["three"]},
            "checks": {"one:odd": "b"},
            "only": {"r1": ["one"], "r2": ["b"]},
        }
    )
    assert known.scenarios("r1") == {"one": "a", "two": "a"}
    assert known.scenarios("r2") == {"three": "b", "two": "a"}
