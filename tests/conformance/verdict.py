"""Judges what the conformance harness found against what we expect to fail.

Pure. We judge instead of the harness because its own baseline ignores the scenarios that it does
not score, and the header scenarios are among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["SUCCESS", "FAILURE", "WARNING", "SKIPPED", "INFO"]
_GRAVITY: tuple[Status, ...] = ("INFO", "SKIPPED", "SUCCESS", "WARNING", "FAILURE")


@dataclass(frozen=True)
class Check:
    """One check of one scenario. A check that ran several times appears once per run."""

    scenario: str
    id: str
    status: Status
    message: str = ""

    @property
    def name(self) -> str:
        """`<scenario>:<check-id>`, as baselines have it."""
        return f"{self.scenario}:{self.id}"


@dataclass(frozen=True)
class Map:
    """Which part of the protocol scenarios and checks are about (scenarios.yml)."""

    part_of: Mapping[str, str]
    excusable: frozenset[str]
    unjudged: frozenset[str]
    count: Mapping[str, int]
    only: Mapping[str, str] = field(default_factory=dict)

    def part(self, name: str) -> str | None:
        """Return the part of a check by its own name or else by its scenario's."""
        return self.part_of.get(name) or self.part_of.get(name.partition(":")[0])

    def scenarios(self, revision: str) -> dict[str, str]:
        """Return the scenarios that `revision` has, each with its part, by name."""
        return {
            name: part
            for name, part in sorted(self.part_of.items())
            if ":" not in name and self.only.get(name, self.only.get(part, revision)) == revision
        }


@dataclass(frozen=True)
class Verdict:
    """What a run showed. `faults` are sentences; the run passes when there are none."""

    faults: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    expected: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def build_map(document: Mapping[str, Any]) -> Map:
    """Read scenarios.yml, already parsed."""
    part_of = {name: part for part, names in document["parts"].items() for name in names}
    return Map(
        part_of=part_of | dict(document["checks"]),
        excusable=frozenset(document["excusable"]),
        unjudged=frozenset(document["unjudged"]),
        count={str(revision): number for revision, number in document["count"].items()},
        only={name: str(key) for key, names in document["only"].items() for name in names},
    )


def judge(checks: Iterable[Check], expected: Iterable[str], revision: str, known: Map) -> Verdict:
    """Compare a run with its baseline."""
    worst = _worst(checks)
    verdict = Verdict()
    verdict.faults.extend(_coverage_faults(worst, revision, known))
    verdict.faults.extend(_baseline_faults(expected, known))
    failing = {}
    for name, check in worst.items():
        part = known.part(name)
        if part is None or part in known.unjudged:
            continue
        if check.status == "FAILURE":
            failing[name] = check
            verdict.failed[part] += 1
        elif check.status in {"SUCCESS", "WARNING"}:
            verdict.passed[part] += 1
        if check.status == "WARNING":
            verdict.warnings.append(f"{name}: {check.message}")
    excused = set(expected)
    verdict.expected.extend(sorted(excused & failing.keys()))
    verdict.faults.extend(
        f"{name} fails: {failing[name].message}" for name in sorted(failing.keys() - excused)
    )
    verdict.faults.extend(
        f"{name} is expected to fail and does not: remove it from the baseline"
        for name in sorted(excused - failing.keys())
    )
    return verdict


def _worst(checks: Iterable[Check]) -> dict[str, Check]:
    worst: dict[str, Check] = {}
    for check in checks:
        seen = worst.get(check.name)
        if seen is None or _GRAVITY.index(check.status) > _GRAVITY.index(seen.status):
            worst[check.name] = check
    return worst


def _coverage_faults(worst: Mapping[str, Check], revision: str, known: Map) -> Iterable[str]:
    scenarios = {check.scenario for check in worst.values()}
    for name in sorted(scenarios - known.part_of.keys()):
        yield f"scenario `{name}` is unknown: place it in scenarios.yml"
    if len(scenarios) != known.count[revision]:
        yield f"{len(scenarios)} scenarios ran, not {known.count[revision]}: did the harness break?"


def _baseline_faults(expected: Iterable[str], known: Map) -> Iterable[str]:
    for name in expected:
        if ":" not in name:
            yield f"baseline entry `{name}` excuses a whole scenario: write <scenario>:<check-id>"
        elif known.part(name) not in known.excusable:
            yield f"baseline entry `{name}` is about {known.part(name)}, which has to pass"
