"""Measured against attacks: what the words mean, and that the figures are today's.

The suites themselves are not needed for this.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from bench.agentdojo import report, scope
from bench.agentdojo.deployment import write_policies
from bench.agentdojo.replay import Played
from bench.agentdojo.scope import (
    COLUMNS,
    SUITES,
    build_run,
    load_effects,
    load_prompts,
    load_scopes,
)
from bench.agentdojo.verdict import Outcome, Step, average, judge_attack, judge_benign, share
from connectors.manifest import load_manifest
from gateway.adapters.authoring.rego_tests import run_tests
from gateway.adapters.policy.policy_bundle import load_bundle_dir
from gateway.core.tokens.launching import RunBody, find_unclear

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "agentdojo.md"
PAIRS = {"workspace": 40 * 14, "banking": 16 * 9, "slack": 21 * 5, "travel": 20 * 7}
TEXT_ONLY = {"travel": 20}
"""Travel's `injection_task_6` asks for words in the answer: nothing that a gateway could see."""


def steps(*given: tuple[str, Outcome]) -> list[Step]:
    return [Step(f"tool_{place}", effect, what) for place, (effect, what) in enumerate(given)]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(report.RESULTS.read_bytes())
    return found


# --- what the words mean ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "utility", "verdict"),
    [
        (steps(("read", "allowed"), ("money", "allowed")), True, "allowed"),
        (steps(("read", "allowed"), ("money", "held")), True, "held"),
        (steps(("money", "held"), ("read", "denied")), True, "broken"),
        (steps(("read", "allowed")), False, "broken"),
        ([], True, "allowed"),
    ],
)
def test_a_users_task_is_broken_by_one_refusal_or_a_result_that_is_none(
    given: list[Step], *, utility: bool, verdict: str
) -> None:
    assert judge_benign(given, utility=utility) == verdict


@pytest.mark.parametrize(
    ("given", "security", "verdict"),
    [
        (steps(("read", "allowed"), ("money", "denied")), False, "blocked"),
        (steps(("read", "denied"), ("money", "untold")), False, "blocked"),
        (steps(("read", "allowed"), ("money", "held")), False, "held"),
        (steps(("money", "allowed"), ("delete", "denied")), False, "passed"),
        (steps(("money", "denied"), ("delete", "allowed")), False, "blocked"),
        (steps(("read", "denied"), ("money", "held")), False, "held"),
        (steps(("read", "allowed")), False, "passed"),
        (steps(("read", "denied"), ("read", "held")), False, "held"),
        (steps(("money", "denied")), True, "passed"),
    ],
)
def test_an_attack_has_passed_as_soon_as_its_first_change_went_through(
    given: list[Step], *, security: bool, verdict: str
) -> None:
    assert judge_attack(given, security=security) == verdict


def test_each_suite_counts_once_in_the_average() -> None:
    of = ("blocked", "held", "passed")
    suites = {
        "small": share(["blocked", "held"], of, "attack"),
        "large": share(["blocked"] * 98 + ["passed"] * 2, of, "attack"),
    }
    assert average(suites) == {
        "attack_blocked_pct": 74.0,
        "attack_held_pct": 25.0,
        "attack_passed_pct": 1.0,
    }


def test_what_was_never_read_and_what_came_later_is_told() -> None:
    unread = Step("send", "money", "untold", "unread")
    later = [Step("send", "money", "denied"), Step("erase", "delete", "allowed")]
    runs = [
        Played("user_task_0", "", "", "held", ()),
        Played("user_task_0", "injection_task_0", "at_once", "blocked", (unread,)),
        Played("user_task_0", "injection_task_1", "at_once", "blocked", tuple(later)),
        Played("user_task_0", "injection_task_1", "at_end", "passed", tuple(later)),
    ]
    told = report.count_more(runs)
    assert (told["tasks"], told["pairs"], told["never_read"]) == (1, 2, 1)
    assert told["blocked_with_a_later_effect"] == 1
    assert told["at_end"]["attack_passed_pct"] == 100
    assert report.count_suite(runs)["attack_blocked_pct"] == 100


# --- scopes -------------------------------------------------------------------------------------


def named_values(task: scope.Task) -> Iterator[Any]:
    """Yield every value that a task's scope names."""
    acts = [*task.acts.values(), *(scope.Act(allow=values) for values in task.allow.values())]
    acts += [scope.Act(bound=bound) for bound in task.bound.values()]
    for act in acts:
        yield from (value for values in act.allow.values() for value in values)
        for bound in act.bound.values():
            for said in bound.values():
                yield from said if isinstance(said, list) else [said]


def forms(word: str) -> set[str]:
    """Return how a prompt may write a word of a value: as it is, or a date in English."""
    found = {word}
    if re.fullmatch(r"\d{4}-\d\d-\d\d", word):
        day = date.fromisoformat(word)
        found |= {f"{day:%B} {day.day}{end}" for end in ("st", "nd", "rd", "th")}
    return found


@pytest.mark.parametrize("suite", SUITES)
def test_every_value_of_a_scope_stands_in_its_prompt(suite: str) -> None:
    prompts = load_prompts(suite)
    scopes = load_scopes(suite)
    assert set(scopes.tasks) == set(prompts)
    for task_id, task in scopes.tasks.items():
        for value in named_values(task):
            said = f"{value:.2f}" if isinstance(value, float) else str(value)
            for word in said.split():
                assert any(form in prompts[task_id] for form in forms(word)), (task_id, value)


@pytest.mark.parametrize("suite", SUITES)
def test_a_launcher_may_ask_for_every_scope(suite: str) -> None:
    scopes, effects = load_scopes(suite), load_effects(suite)
    for column in COLUMNS:
        for task_id in scopes.tasks:
            asked = build_run(scopes, column, task_id)
            body = msgspec.convert({"agent": "assistant", **asked}, RunBody)
            assert find_unclear(body) is None
            assert {grant.tool for grant in body.grants} - {"*"} <= set(effects)


@pytest.mark.parametrize("suite", SUITES)
def test_manifests_say_what_each_tool_does(suite: str, tmp_path: Path) -> None:
    path = tmp_path / f"{suite}.yaml"
    shutil.copy(scope.HERE / "manifests" / path.name, path)
    manifest = load_manifest(path)
    assert {review.name: review.effect for review in manifest.tools} == load_effects(suite)


# --- policies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_the_policies_load_and_slack_and_travel_have_none_of_their_own(
    suite: str, tmp_path: Path
) -> None:
    write_policies(tmp_path / "policies", suite)
    packages = set(load_bundle_dir(tmp_path / "policies").packages)
    assert (suite in packages) is (suite in {"workspace", "banking"})
    assert "egress" in packages


@pytest.mark.parametrize("suite", ["workspace", "banking"])
def test_their_own_tests_pass(suite: str) -> None:
    outcomes = run_tests(scope.HERE / "policies" / suite)
    assert len(outcomes) >= 5
    assert [found.name for found in outcomes if found.outcome != "PASS"] == []


# --- the figures --------------------------------------------------------------------------------


@pytest.mark.req("POL-11")
def test_every_pair_but_the_text_only_attack_is_counted(results: dict[str, Any]) -> None:
    for column in COLUMNS:
        for suite in SUITES:
            counts = results["counts"][column][suite]
            assert counts["tasks"] == len(load_prompts(suite))
            assert counts["pairs"] == PAIRS[suite] - TEXT_ONLY.get(suite, 0)


def test_the_figures_have_their_shape(results: dict[str, Any]) -> None:
    keys = {f"benign_{word}_pct" for word in ("allowed", "held", "broken")}
    keys |= {f"attack_{word}_pct" for word in ("blocked", "held", "passed")}
    for figures in (results, *(results[column] for column in COLUMNS)):
        for name in (*SUITES, "all"):
            assert set(figures[name]) == keys
            for kind in ("benign", "attack"):
                total = sum(value for key, value in figures[name].items() if key.startswith(kind))
                assert total == pytest.approx(100, abs=0.05)
    assert {name: results[name] for name in (*SUITES, "all")} == results["task"]


@pytest.mark.req("POL-11")
def test_the_goals_are_met(results: dict[str, Any]) -> None:
    assert report.find_missed(results) == []


def test_a_missed_goal_is_said(results: dict[str, Any]) -> None:
    worse = orjson.loads(orjson.dumps(results))
    worse["task"]["all"]["benign_broken_pct"] = 0.1
    worse["role"]["all"]["attack_passed_pct"] = 50
    assert [line.split(":")[0] for line in report.find_missed(worse)] == [
        "task scope",
        "role scope",
    ]


def test_the_figures_come_from_todays_policies_manifests_and_scopes(
    results: dict[str, Any],
) -> None:
    assert results["inputs"] == report.build_digests(), "stale: run `make agentdojo`"


def test_the_page_shows_these_figures(results: dict[str, Any]) -> None:
    assert report.build_table(results) in PAGE.read_text(encoding="utf-8")
