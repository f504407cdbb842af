"""Rules that ask, of each rule of a package, how far its body holds.

For a rule with the statements `a`, `b`, `c` there is one that holds if `a` does, one if `a` and `b`
do, and so on. They are put beside the package in an engine of their own, never in one that decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.gate.policy_names import find_bound, find_used
from gateway.adapters.policy.policy_ast import Module
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Alternative,
    Node,
    alternatives,
    declared,
    head_of,
    indices,
    place,
    source_of,
    unwrap,
    whole_span,
)

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN: Final = "probe__shown"
"""The probes' own variable: a name that no author gives to one of theirs."""

_SHOWN_MAX: Final = 6


class Step(Struct, frozen=True):
    """One statement. `holds`: the rule that says it holds, with all before it.

    `values`: what stands in it, each with the rule that contains its values. `asks`: the rule of
    the package that it stands on, if it is nothing but that.
    """

    text: str
    row: int
    col: int
    holds: str
    values: tuple[tuple[str, str], ...]
    asks: str


class Probe(Struct, frozen=True):
    """One body of one rule. `items`: the rule that contains what it gives."""

    rule: str
    file: str
    row: int
    items: str
    steps: tuple[Step, ...]


def write_probes(source: Source, number: int) -> tuple[list[Probe], str]:
    """Return the probes of a module (the `number`-th) and the module that holds their rules."""
    package = ".".join(source.module.package)
    lines = [f"package {package}", *write_imports(source)]
    found = []
    for at, rule in enumerate(source.module.tree):
        if head_of(rule)[0] not in {"Set", "Compr"} or any(indices(head_of(rule)[1]["refr"])):
            continue
        for which, alternative in enumerate(alternatives(rule)):
            found.append(_write(source, alternative, f"probe_{number}_{at}_{which}", lines))
    return found, "\n".join(lines) + "\n"


def global_names(module: Module) -> set[str]:
    """Return the names that no statement binds, although it may look so: `f(x, limit)`."""
    return {*module.imports, *(rule.name for rule in module.rules)}


def write_imports(source: Source) -> Iterator[str]:
    """Yield a module's imports, for one that stands beside it."""
    for name, path in source.module.imports.items():
        first, *rest = path
        parts = [f".{part}" if _NAME.fullmatch(part) else f'["{part}"]' for part in rest]
        if rest:
            yield f"import {first}{''.join(parts)} as {name}"


def _write(source: Source, alternative: Alternative, name: str, lines: list[str]) -> Probe:
    text = source.text.encode()
    head = head_of(alternative.node)[1]
    before: list[str] = []
    bound = global_names(source.module)
    steps = []
    for number, whole in enumerate(in_order(list(alternative.whole), text)):
        statement, shown = whole["literal"], source_of(text, whole)
        values = []
        for each, (reference, used) in enumerate(references(statement, text, bound)):
            rule = f"{name}_{number}_{each}"
            ready = _ready(before, used)
            values.append((reference, rule))
            lines.append(f"{rule} contains {_SHOWN} if {{\n{ready}{_SHOWN} := {reference}\n}}")
        before.append(shown)
        bound |= binds(statement, text)
        holds = f"{name}_{number}"
        lines.append(f"{holds} if {{\n" + "\n".join(before) + "\n}")
        row, col = place(text, whole_span(whole))
        steps.append(
            Step(" ".join(shown.split()), row, col, holds, tuple(values), _asked(statement, source))
        )
    item = "true"
    if alternative.values:
        item = source_of(text, alternative.values[-1])
    body = "\n".join(before) or "true"
    lines.append(f"{name} contains {item} if {{\n{body}\n}}")
    row = place(text, head["span"])[0]
    return Probe(_rule_name(head["refr"]), source.path, row, name, tuple(steps))


def _ready(before: list[str], used: bool) -> str:  # noqa: FBT001
    return "".join(f"{each}\n" for each in before) if used else ""


def _rule_name(reference: Node) -> str:
    kind, body = unwrap(reference)
    name: str = body["value"] if kind == "Var" else _rule_name(body["refr"])
    return name


def in_order(statements: list[Node], text: bytes) -> Iterator[Node]:
    """Yield statements so that each stands on what those before it bind, else as written."""
    own = [binds(statement, text) for statement in statements]
    local = set().union(*own)
    bound: set[str] = set()
    waiting = list(range(len(statements)))
    while waiting:
        ready = (
            number
            for number in waiting
            if not ({n for n, _ in find_used(statements[number])} & local) - bound - own[number]
        )
        chosen = next(ready, waiting[0])
        waiting.remove(chosen)
        bound |= own[chosen]
        yield statements[chosen]


def binds(statement: Node, text: bytes) -> set[str]:
    """Return the variables that a statement gives values to."""
    return {name for name, _ in declared(statement, text)} | set(find_bound(statement, text))


def references(statement: Node, text: bytes, bound: set[str]) -> list[tuple[str, bool]]:
    """Return (text, whether it stands on a local) of what a statement reads and compares.

    `bound`: the variables that have values before it.
    """
    kind = unwrap(statement)[0]
    if kind not in {"Expr", "NotExpr", "SomeIn"}:
        return []
    own = binds(statement, text) - bound
    found: dict[str, bool] = {}
    for node in (*_compared(statement), *_read(statement)):
        shown = " ".join(source_of(text, node).split())
        names = {name for name, _ in find_used(node)}
        if not names & own and "_" not in names:
            found[shown] = bool(names - {"input", "data"})
    return list(found.items())[:_SHOWN_MAX]


def _compared(statement: Node) -> Iterator[Node]:
    """Yield the sides of a comparison that somebody has to compute to understand it."""
    kind, body = unwrap(statement)
    if kind in {"Expr", "NotExpr"}:
        kind, body = unwrap(body["expr"])
    if kind == "BoolExpr":
        yield from (side for side in (body["lhs"], body["rhs"]) if unwrap(side)[0] == "Call")


def _read(node: object) -> Iterator[Node]:
    if isinstance(node, list):
        for item in node:
            yield from _read(item)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind in REFERENCES:
                yield {kind: body}
                yield from _called({kind: body})
            elif kind == "Call":
                yield from _read(body["params"])
            elif kind not in CLOSURES and kind != "span":
                yield from _read(body)


def _called(reference: Node) -> Iterator[Node]:
    """Yield the call whose member a reference is: `decision(x)` of `decision(x).outcome`."""
    kind, body = unwrap(reference)
    if kind in {"RefDot", "RefBrack"}:
        yield from _called(body["refr"])
    elif kind == "Call":
        yield reference


def _asked(statement: Node, source: Source) -> str:
    """Return the rule of its own package that a statement is nothing but a use of."""
    kind, body = unwrap(statement)
    kind, body = unwrap(body["expr"]) if kind in {"Expr", "NotExpr"} else (kind, body)
    if kind != "Var" or body["value"] not in {rule.name for rule in source.module.rules}:
        return ""
    name: str = body["value"]
    return name
