"""The index: which packages an input concerns, and which engine holds exactly these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_package import Package
from gateway.adapters.policy.policy_scope import PHASES
from gateway.adapters.regorus.regorus_fleet import Fleet
from gateway.adapters.regorus.regorus_plain import MIRRORED

_EVERYTHING: Final = 0
_STEADY: Final = (
    *((name,) for name in ("version", "phase", "environment", "subject", "action", "resource")),
    ("context", "client"),
    *(("context", "token", name) for name in ("scopes", "constraints", "origin")),
    *(("context", "run", name) for name in ("workflow", "labels")),
)
"""Parts of the input that many calls have in common. What is listed decides about speed alone."""

_PREPARED_MAX: Final = 8
_INDEX_MAX: Final = 16_384
"""Answers that are remembered: one for each tool and phase that is asked about."""


class _Asked(Struct):
    id: str
    server: str = ""
    effect: str = ""


class _Subject(Struct, frozen=True):
    id: str = ""


class _Question(Struct):
    """The part of an input that says which packages it concerns, and who is asked about."""

    phase: str
    resource: _Asked
    subject: _Subject = _Subject()


_decode_question: Final = msgspec.json.Decoder(_Question).decode


class Index:
    """The index of one fleet's bundle. It has the fleet build an engine for what it finds.

    INVARIANT: it stands on nothing but the input, so a catalog that is older or newer than a
    question changes no decision, and what is computed again is computed by the same engine.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.packages = [
            package
            for name, package in fleet.bundle.packages.items()
            if name not in fleet.bundle.silent
        ]
        self._sources = {
            name: sum(len(source) for _, source in modules)
            for name, modules in fleet.bundle.modules().items()
        }
        self._subsets: dict[frozenset[str], int] = {}
        self._found: dict[tuple[str, str, str, str], int] = {}

    def find(self, document: bytes) -> int:
        """Return the number of the engine that hears exactly what concerns this input."""
        return self.read(document)[0]

    def read(self, document: bytes) -> tuple[int, str]:
        """Return the number of that engine, and the subject; "" for none.

        An input that does not say what it concerns is left to the engine that holds everything.
        """
        try:
            question = _decode_question(document)
        except (msgspec.MsgspecError, RecursionError):
            return _EVERYTHING, ""
        asked = question.resource
        key = (asked.id, asked.server, asked.effect, question.phase)
        found = self._found.get(key)
        return self._add(key) if found is None else found, question.subject.id

    def prepare(self, other: Index) -> None:
        """Have those engines defined that the index of another bundle was asked for last."""
        asked = {number: key for key, number in other._found.items() if number != _EVERYTHING}
        for key in list(asked.values())[-_PREPARED_MAX:]:
            if key not in self._found:
                self._add(key)

    def heard(self, tool_id: str, server: str, effect: str, phase: str) -> list[str]:
        """Return the packages that a call concerns: `heard` of main.rego."""
        return [
            package.name
            for package in self.packages
            if package.scope is None or package.scope.matches(tool_id, server, effect, phase)
        ]

    def _add(self, key: tuple[str, str, str, str]) -> int:
        if key[-1] not in PHASES:
            return _EVERYTHING
        if len(self._found) >= _INDEX_MAX:
            self._found.clear()
        found = self._found[key] = self._subset(frozenset(self.heard(*key)))
        return found

    def _subset(self, heard: frozenset[str]) -> int:
        if heard not in self._subsets:
            subset = describe_subset(self._fleet.bundle, heard)
            size = self._measure(subset["packages"])
            if "steady" in subset:
                size += self._measure(subset["steady"]["others"]["packages"])
            self._subsets[heard] = self._fleet.define_subset(subset, size)
        return self._subsets[heard]

    def _measure(self, packages: list[str]) -> int:
        return self._sources[""] + sum(self._sources[name] for name in packages)


def describe_subset(bundle: Bundle, heard: frozenset[str]) -> dict[str, Any]:
    """Return what a worker builds an engine of, in which only `heard` speak.

    A package that is only read by another one is loaded, but muted. `voices` (decision sets by
    package) and `paths` (what of the input all of them read; None is everything) are there where
    answers may be put together by the worker, `steady` where some read only what differs seldom;
    they change no answer.
    """
    packages = {**bundle.packages, **bundle.library}
    spoken = _describe_voices(packages, heard)
    muted = [name for name in spoken["packages"] if name not in heard and name in bundle.packages]
    applies_to: dict[str, Any] = {"applies_to": {name: {"phases": []} for name in muted}}
    if not is_mirrored(source for _, source in bundle.modules()[""]):
        return {"packages": spoken["packages"], **applies_to}
    steady = frozenset(name for name in heard if _is_steady(packages, name))
    if not steady:
        return spoken | applies_to
    alone, others = (_describe_voices(packages, names) for names in (steady, heard - steady))
    kept = {"packages": sorted(steady), "paths": alone["paths"], "others": others}
    return spoken | applies_to | {"steady": kept}


def _describe_voices(packages: Mapping[str, Package], heard: frozenset[str]) -> dict[str, Any]:
    loaded = heard.union(*(packages[name].requires for name in heard))
    paths = {path for name in loaded for path in packages[name].inputs}
    return {
        "packages": sorted(loaded),
        "voices": {name: sorted(packages[name].sets) for name in heard},
        "paths": None if () in paths else sorted(paths),
    }


def _is_steady(packages: Mapping[str, Package], name: str) -> bool:
    return all(
        any(path[: len(steady)] == steady for steady in _STEADY)
        for each in (name, *packages[name].requires)
        for path in packages[each].inputs
    )


def is_mirrored(entry_point: Iterable[str]) -> bool:
    """Whether workers may answer instead of this entry point, given as its modules' sources."""
    return [sha256(source.encode()).hexdigest() for source in entry_point] == [MIRRORED]
