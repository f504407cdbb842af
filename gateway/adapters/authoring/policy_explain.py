"""Why an input is decided as it is: which rules fired, and at which expression others stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import regorus
from msgspec import Struct

from gateway.adapters.policy.policy_ast import Fault, parse_module
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_package import DECISION_SETS, Package, Source
from gateway.adapters.policy.policy_probes import Probe, Step, write_probes
from gateway.adapters.regorus.regorus_worker import build_engine

_DEPTH_MAX: Final = 3
_UNKNOWN: Final = "the engine cannot tell; look at the rule itself"


class Stop(Struct, frozen=True):
    """The first expression that did not hold, with the values of what stands in it.

    A value that is absent is undefined. `below`: the rule that it stands on, where it is one.
    """

    row: int
    col: int
    text: str
    values: dict[str, list[Any]]
    below: list[Traced]


class Traced(Struct, frozen=True):
    """What became of one body of a rule: the items that it gave, or where it stopped."""

    rule: str
    file: str
    row: int
    items: list[Any]
    stopped: Stop | None = None
    problem: str = ""


class Heard(Struct, frozen=True):
    """A package that concerns the input. `owns`: it may permit on the input's server."""

    package: str
    owns: bool
    rules: list[Traced]


class Explanation(Struct, frozen=True):
    """Packages that were heard, and those that the input does not concern."""

    heard: list[Heard]
    unheard: list[str]


def explain(bundle: Bundle, document: dict[str, Any]) -> Explanation:
    """Return what each rule of each heard package said to an input."""
    heard = find_heard(bundle, document)
    server = _resource(document)["server"]
    owned = json.loads(bundle.data).get("authority", {}).get("policies", {})
    found = []
    for name in heard:
        servers = owned.get(name, [])
        traced = _trace(bundle, bundle.packages[name], document)
        found.append(Heard(name, "*" in servers or server in servers, traced))
    return Explanation(found, [name for name in bundle.packages if name not in heard])


def find_heard(bundle: Bundle, document: dict[str, Any]) -> list[str]:
    """Return the packages that an input concerns, in order."""
    resource, phase = _resource(document), str(document.get("phase"))
    tool, server, effect = resource["id"], resource["server"], resource["effect"]
    return [
        name
        for name, package in bundle.packages.items()
        if package.scope is None or package.scope.matches(tool, server, effect, phase)
    ]


def _resource(document: dict[str, Any]) -> dict[str, str]:
    given = document.get("resource")
    members = given if isinstance(given, dict) else {}
    return {name: str(members.get(name) or "") for name in ("id", "server", "effect")}


def _trace(bundle: Bundle, package: Package, document: dict[str, Any]) -> list[Traced]:
    sources = dict(bundle.files)
    probes: list[Probe] = []
    modules: list[tuple[str, str]] = []
    for number, path in enumerate(package.paths):
        text = sources[path].decode()
        module = parse_module(path, text)
        if not isinstance(module, Fault):
            source = Source(path.removeprefix("policies/"), text, module)
            written, probe = write_probes(source, number)
            probes += written
            modules.append((f"probes/{number}.rego", probe))
    try:
        asking = _Asking(_engine(bundle, modules, document), package.name, probes)
        return [asking.trace(each) for each in probes if each.rule in DECISION_SETS]
    except BaseException:  # noqa: BLE001 - a Rust panic is no Exception
        # What cannot be taken apart (a name bound below its use) is named all the same.
        return [
            Traced(each.rule, each.file, each.row, [], problem=_UNKNOWN)
            for each in probes
            if each.rule in DECISION_SETS
        ]


def _engine(
    bundle: Bundle, probes: Iterable[tuple[str, str]], document: dict[str, Any]
) -> regorus.Engine:
    modules = [module for group in bundle.modules().values() for module in group]
    engine = build_engine([*modules, *probes], bundle.data)
    engine.set_input_json(json.dumps(document))
    return engine


class _Asking:
    """Asks the probes of one package."""

    def __init__(self, engine: regorus.Engine, package: str, probes: list[Probe]) -> None:
        self._engine = engine
        self._package = package
        self._probes = probes

    def trace(self, probe: Probe, depth: int = 0) -> Traced:
        """Return what a body gave, or where it stopped."""
        items = self._ask(probe.items) or []
        if items:
            return Traced(probe.rule, probe.file, probe.row, items)
        for step in probe.steps:
            if self._ask(step.holds) is not True:
                stopped = self._stop(step, depth)
                return Traced(probe.rule, probe.file, probe.row, [], stopped)
        return Traced(probe.rule, probe.file, probe.row, [])

    def _stop(self, step: Step, depth: int) -> Stop:
        values = {text: self._ask(rule) or [] for text, rule in step.values}
        below = []
        if step.asks and depth < _DEPTH_MAX:
            below = [
                self.trace(probe, depth + 1) for probe in self._probes if probe.rule == step.asks
            ]
        return Stop(step.row, step.col, step.text, values, below)

    def _ask(self, rule: str) -> Any:  # noqa: ANN401
        found = json.loads(self._engine.eval_query_as_json(f"data.policies.{self._package}.{rule}"))
        rows = found.get("result") or [{"expressions": [{"value": None}]}]
        return rows[0]["expressions"][0]["value"]
