"""Why a test failed: the first expression that does not hold, its values, and the rules it asks.

For a test with the statements `a`, `b`, `c` there is a rule that holds if `a` does, one if `a` and
`b` do, and so on. Each contains the names of the cases that came so far. They are put beside the
test in an engine of their own, once it has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import regorus
from msgspec import Struct

from gateway.adapters.authoring.policy_explain import Stop, Traced, find_missing, trace_rules
from gateway.adapters.authoring.rego_cases import find_binding, read_name, write_name
from gateway.adapters.authoring.rego_suite import Suite
from gateway.adapters.policy.policy_ast import Module
from gateway.adapters.policy.policy_probes import (
    binds,
    global_names,
    in_order,
    references,
    write_imports,
)
from gateway.adapters.policy.policy_syntax import (
    Node,
    alternatives,
    is_literal,
    pattern_names,
    place,
    source_of,
    unwrap,
    whole_span,
)

_SHOWN: Final = "shown__value"
"""The probes' own variable: a name that no author gives to one of theirs."""

_OURS: Final = (("data", "countersign"), ("data", "policies"))
"""What tests put in the place of rules is not traced."""


_DECISION: Final = ("data", "countersign", "decision")
_REASONS: Final = (
    '[concat(":", [object.get(reason, "policy", "nobody"), reason.code]) | '
    "some reason in data.countersign.decision.reasons]"
)
"""Which packages say what: that of a decision which authors look for first."""


class Failure(Struct, frozen=True):
    """Where a test, or one case of it, stopped. An empty `case` is the test itself.

    `asked`: what became of the rules of policies that the expression asks.
    """

    case: tuple[str, ...]
    file: str
    stopped: Stop
    asked: list[Traced]


class FailedTest(Struct, frozen=True):
    """A test that failed. `rule`: as the parser gives it. `tail`: what names its cases."""

    file: str
    rule: Node
    tail: list[str | Node]
    cases: Sequence[tuple[str, ...]]


class _Step(Struct, frozen=True):
    """One statement. `holds`, and the values of mappings, are names of rules: see the module.

    `given`: what `with` puts in the place of something. `uses`: (package, rule) of policies.
    `every`: of `every x in …`, the rules with all elements, and with those for which it holds.
    """

    row: int
    col: int
    text: str
    holds: str
    values: Mapping[str, str]
    given: Mapping[tuple[str, ...], str]
    uses: frozenset[tuple[str, str]]
    every: tuple[str, str, str] | None


def find_failures(suite: Suite, test: FailedTest) -> list[Failure]:
    """Return where each case stopped. What cannot be taken apart is left out."""
    found: list[Failure] = []
    try:
        writer = _Writer(suite, test)
        bodies = [writer.write(list(body.whole)) for body in alternatives(test.rule)]
        asking = _Asking(writer.build_engine(), suite, writer.package)
        for case in test.cases:
            for steps in bodies:
                step = asking.find_step(steps, case)
                if step is not None:
                    found.append(Failure(case, test.file, *asking.tell(step, case)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - a Rust panic is no Exception; the verdict stands without it
        return found
    return found


class _Writer:
    """Writes the rules that ask how far the bodies of one test hold."""

    def __init__(self, suite: Suite, test: FailedTest) -> None:
        self._suite = suite
        self._module = suite.modules[test.file]
        self._text = suite.sources[test.file].encode()
        self._tail = test.tail
        self._key = write_name(test.tail, self._text)
        package = ".".join(self._module.package)
        self._lines = [f"package {package}", *write_imports(suite.source(test.file))]
        self._rules = 0
        self.package = f"data.{package}"

    def build_engine(self) -> regorus.Engine:
        """Return an engine with all that was written."""
        text = "\n".join(self._lines) + "\n"
        engine = self._suite.build_engine([*self._suite.sources.items(), ("failures.rego", text)])
        engine.set_input_json("{}")
        return engine

    def write(self, statements: list[Node]) -> list[_Step]:
        """Return the statements of a body in an order in which each can be asked."""
        first = find_binding(self._tail, statements, self._text) or []
        rest = [each for number, each in enumerate(statements) if number not in first]
        before: list[str] = []
        bound = global_names(self._module)
        steps = []
        for whole in (*(statements[at] for at in first), *in_order(rest, self._text)):
            steps.append(self._step(whole, before, bound))
            before.append(source_of(self._text, whole))
            bound |= binds(whole["literal"], self._text)
        return steps

    def _step(self, whole: Node, before: list[str], bound: set[str]) -> _Step:
        text, literal = self._text, whole["literal"]
        shown = source_of(text, whole)
        changed = shown[len(source_of(text, literal)) :]
        values = {
            name: self._ask(before, name, changed) for name, _ in references(literal, text, bound)
        }
        given = {}
        for mod in whole.get("with_mods") or ():
            put = source_of(text, mod["as"])
            given[_path(mod["refr"])] = rule = self._ask(before, put)
            if not is_literal(mod["as"]) and unwrap(mod["as"])[0] != "Object":
                values[" ".join(put.split())] = rule
        reads = set(_reads(literal, self._module))
        if any(path[:3] == _DECISION for path in reads):
            values["reasons"] = self._ask(before, _REASONS, changed)
        return _Step(
            *place(text, whole_span(whole)),
            " ".join(shown.split()),
            self._add(f"contains {self._key}", [*before, shown]),
            values,
            given,
            frozenset((path[2], path[3]) for path in reads if _is_rule(path)),
            self._every(literal, changed, before),
        )

    def _every(self, literal: Node, changed: str, before: list[str]) -> tuple[str, str, str] | None:
        kind, body = unwrap(literal)
        if kind != "Every":
            return None
        names = [
            name for part in ("key", "value") for name, _ in pattern_names(body[part], self._text)
        ]
        if "_" in names:
            return None
        some = f"some {', '.join(names)} in {source_of(self._text, body['domain'])}"
        inner = [source_of(self._text, each) + changed for each in body["query"]["stmts"]]
        head = f"contains [{self._key}, [{', '.join(names)}]]"
        held = self._add(head, [*before, some, *inner])
        return ", ".join(names), self._add(head, [*before, some]), held

    def _ask(self, before: list[str], what: str, changed: str = "") -> str:
        return self._add(
            f"contains [{self._key}, {_SHOWN}]", [*before, f"{_SHOWN} := {what}{changed}"]
        )

    def _add(self, head: str, body: list[str]) -> str:
        self._rules += 1
        name = f"failure_{self._rules}"
        self._lines.append(f"{name} {head} if {{\n" + "\n".join(body) + "\n}")
        return name


def _path(reference: Node) -> tuple[str, ...]:
    """Return the names that a reference is made of, empty where they are not written out."""
    kind, body = unwrap(reference)
    if kind == "Var":
        return (body["value"],)
    if kind not in {"RefDot", "RefBrack"}:
        return ()
    front = _path(body["refr"])
    if kind == "RefDot":
        return (*front, body["field"][1]) if front else ()
    kind, body = unwrap(body["index"])
    return (*front, body["value"]) if front and kind == "String" else ()


def _reads(node: object, module: Module) -> Iterator[tuple[str, ...]]:
    """Yield the paths of names that a statement reads, imports told in full."""
    if isinstance(node, list):
        for item in node:
            yield from _reads(item, module)
    elif isinstance(node, dict):
        for kind, body in node.items():
            path = _path({kind: body}) if kind in {"RefDot", "RefBrack"} else ()
            if path:
                yield (*module.imports.get(path[0], path[:1]), *path[1:])
            elif kind != "span":
                yield from _reads(body, module)


def _is_rule(path: tuple[str, ...]) -> bool:
    return path[:2] == ("data", "policies") and len(path) > 3  # noqa: PLR2004


class _Asking:
    """Asks what a writer wrote, of one case at a time."""

    def __init__(self, engine: regorus.Engine, suite: Suite, package: str) -> None:
        self._engine = engine
        self._suite = suite
        self._package = package

    def find_step(self, steps: Sequence[_Step], case: tuple[str, ...]) -> _Step | None:
        """Return the first statement that does not hold for a case."""
        held = (step for step in steps if case not in map(_named, self._ask(step.holds)))
        return next(held, None)

    def tell(self, step: _Step, case: tuple[str, ...]) -> tuple[Stop, list[Traced]]:
        """Return the values at a statement, and what became of the rules that it asks."""
        values = {text: self._values(rule, case) for text, rule in step.values.items()}
        if step.every is not None:
            names, everything, held = step.every
            holding = self._values(held, case)
            left = [each for each in self._values(everything, case) if each not in holding]
            values[names] = [each[0] if len(each) == 1 else each for each in left]
        given = {path: self._values(rule, case) for path, rule in step.given.items()}
        document, data = _replaced({"input": {}, "data": dict(self._suite.data)}, given)
        stop = Stop(step.row, step.col, step.text, values, [], find_missing(values, document))
        return stop, [
            each for use in sorted(step.uses) for each in self._trace(*use, document, data)
        ]

    def _trace(
        self,
        package: str,
        rule: str,
        document: dict[str, Any],
        data: Mapping[str, Any],
    ) -> list[Traced]:
        suite = self._suite
        sources = [
            suite.source(file)
            for file, module in suite.modules.items()
            if module.package == ("policies", package)
        ]

        def build(probes: list[tuple[str, str]]) -> regorus.Engine:
            return suite.build_engine([*suite.sources.items(), *probes], data)

        return trace_rules(sources, {rule}, document, build)

    def _values(self, rule: str, case: tuple[str, ...]) -> list[Any]:
        return [value for name, value in self._ask(rule) if _named(name) == case]

    def _ask(self, rule: str) -> list[Any]:
        found = json.loads(self._engine.eval_query_as_json(f"{self._package}.{rule}"))
        rows = found.get("result") or [{"expressions": [{"value": []}]}]
        value: list[Any] = rows[0]["expressions"][0]["value"]
        return value


def _named(name: list[Any]) -> tuple[str, ...]:
    return tuple(read_name(name))


def _replaced(
    world: dict[str, Any], given: Mapping[tuple[str, ...], list[Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (input, data) with what `with` puts there, as far as it is data."""
    for path, values in given.items():
        if not path or len(values) != 1 or path[:2] in _OURS:
            continue
        *above, last = path
        at = world
        for name in above:
            below = at.get(name)
            at[name] = at = dict(below) if isinstance(below, dict) else {}
        at[last] = values[0]
    asked = world["input"]
    return asked if isinstance(asked, dict) else {}, world["data"]
