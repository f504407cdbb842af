"""Why an input is decided as it is: which rules fired, and at which expression others stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import regorus
from msgspec import Struct

from gateway.adapters.policy.policy_ast import Fault, parse_module
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_package import DECISION_SETS, Package, Source
from gateway.adapters.policy.policy_probes import Probe, Step, write_probes
from gateway.adapters.regorus.regorus_worker import build_engine

_DEPTH_MAX: Final = 3
_INPUT: Final = re.compile(r"input(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_UNKNOWN: Final = "the engine cannot tell; look at the rule itself"


class Stop(Struct, frozen=True):
    """The first expression that did not hold, with the values of what stands in it.

    A value that is absent is undefined; `missing` says what of the input is not there then.
    `below`: the rule that it stands on, where it is one.
    """

    row: int
    col: int
    text: str
    values: dict[str, list[Any]]
    below: list[Traced]
    missing: dict[str, str] = {}


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
    texts = dict(bundle.files)
    found = []
    for path in package.paths:
        text = texts[path].decode()
        module = parse_module(path, text)
        if not isinstance(module, Fault):
            found.append(Source(path.removeprefix("policies/"), text, module))
    modules = [module for group in bundle.modules().values() for module in group]

    def build(probes: Iterable[tuple[str, str]]) -> regorus.Engine:
        return build_engine([*modules, *probes], bundle.data)

    return trace_rules(found, DECISION_SETS, document, build)


def trace_rules(
    sources: Iterable[Source],
    wanted: Iterable[str],
    document: dict[str, Any],
    build: Callable[[list[tuple[str, str]]], regorus.Engine],
) -> list[Traced]:
    """Return what became of the rules `wanted` of one package on an input.

    `sources`: its modules. `build` gives an engine that holds them, and these (path, text) besides.
    """
    probes: list[Probe] = []
    modules: list[tuple[str, str]] = []
    package = ""
    for number, source in enumerate(sources):
        written, probe = write_probes(source, number)
        probes += written
        modules.append((f"probes/{number}.rego", probe))
        package = ".".join(("data", *source.module.package))
    chosen = [each for each in probes if each.rule in wanted]
    if not chosen:
        return []
    try:
        engine = build(modules)
        engine.set_input_json(json.dumps(document))
        asking = _Asking(engine, package, probes, document)
        return [asking.trace(each) for each in chosen]
    except BaseException:  # noqa: BLE001 - a Rust panic is no Exception
        # What cannot be taken apart (a name bound below its use) is named all the same.
        return [Traced(each.rule, each.file, each.row, [], problem=_UNKNOWN) for each in chosen]


class _Asking:
    """Asks the probes of one package."""

    def __init__(
        self, engine: regorus.Engine, package: str, probes: list[Probe], document: dict[str, Any]
    ) -> None:
        self._engine = engine
        self._package = package
        self._probes = probes
        self._document = document

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
        missing = find_missing(values, self._document)
        return Stop(step.row, step.col, step.text, values, below, missing)

    def _ask(self, rule: str) -> Any:  # noqa: ANN401
        found = json.loads(self._engine.eval_query_as_json(f"{self._package}.{rule}"))
        rows = found.get("result") or [{"expressions": [{"value": None}]}]
        return rows[0]["expressions"][0]["value"]


def find_missing(values: Mapping[str, list[Any]], document: object) -> dict[str, str]:
    """Say of each undefined `input.a.b.c` which member is not there: `input.a` has no `b`."""
    found = {}
    for text in (text for text, known in values.items() if not known and _INPUT.fullmatch(text)):
        at, above = document, "input"
        for part in text.split(".")[1:]:
            if not isinstance(at, dict) or part not in at:
                found[text] = f"`{above}` has no `{part}`"
                break
            at, above = at[part], f"{above}.{part}"
    return found
