"""Finds comparisons that a value of the wrong type would pass.

Rego orders values of every type: null, then booleans, then numbers, texts, lists and objects. So
`input.context.args.amount <= 100` is true where the amount is null, and what was to be a limit lets
it through. A comparison is accepted where the rule itself establishes the types: `is_number(x)` in
the same body, a rule or function that says so, or a value that can be of one type only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from gateway.adapters.policy.input_types import InputTypes
from gateway.adapters.policy.policy_checks import establish, lasts
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_rules import Definitions, Name
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Alternative,
    Node,
    alternatives,
    head_of,
    indices,
    parameters,
    place,
    source_of,
    start_of,
    unwrap,
)
from gateway.adapters.policy.policy_values import ANY, NOTHING, Context, Key, Locals, Summary

_WHY: Final = "null is below every number, a text above"
_TEXTS: Final = ("String", "RawString")
_ORDERS: Final = {"Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}


def find_unguarded(
    definitions: Definitions, types: InputTypes, told: Iterable[str]
) -> list[Mistake]:
    """Return the unguarded comparisons in modules whose paths are `told`."""
    reader = _Reader(definitions, types, frozenset(told))
    for name in definitions.in_order(reader.told):
        reader.summarise(name)
    return sorted(reader.found, key=lambda each: (each.file, each.row, each.col))


class _Reader:
    """Reads rules, those first on which others stand."""

    def __init__(self, definitions: Definitions, types: InputTypes, told: frozenset[str]) -> None:
        self.found: list[Mistake] = []
        self._definitions = definitions
        self._types = types
        self.told = told
        self._summaries: dict[Name, Summary] = {}
        self._contexts: dict[str, Context] = {}

    def summarise(self, name: Name) -> None:
        """Read every alternative of a rule; keep what the rule is to those who use it."""
        sources: frozenset[int] = NOTHING
        compared: set[int] = set()
        shown: list[frozenset[Key]] = []
        true: list[frozenset[Key]] = []
        partial = False
        for source, rule in self._definitions.rules[name]:
            partial |= head_of(rule)[0] == "Set" or any(indices(head_of(rule)[1]["refr"]))
            for alternative in alternatives(rule):
                body = _Body(self._context(source), rule, alternative)
                sources |= body.sources()
                compared |= body.compared()
                shown.append(body.lasting())
                if not body.is_false():
                    true.append(shown[-1])
                if source.path in self.told:
                    self.found += body.mistakes(source.path)
        self._summaries[name] = Summary(
            sources=sources,
            compared=frozenset(compared),
            shown=frozenset() if partial else _common(shown),
            true=frozenset() if partial else _common(true),
        )

    def _context(self, source: Source) -> Context:
        if source.path not in self._contexts:
            self._contexts[source.path] = Context(
                text=source.text.encode(),
                package=source.module.package,
                imports=source.module.imports,
                rules=self._definitions.names_in(source.module.package),
                types=self._types,
                find=self._find,
                establish=establish,
            )
        return self._contexts[source.path]

    def _find(self, key: Key) -> Summary | None:
        name = self._definitions.find(key)
        return self._summaries.get(name) if name else None


def _common(sets: list[frozenset[Key]]) -> frozenset[Key]:
    return frozenset.intersection(*sets) if sets else frozenset()


class _Body:
    """One body of a rule."""

    def __init__(self, context: Context, rule: Node, alternative: Alternative) -> None:
        self._context = context
        self._alternative = alternative
        self._locals = Locals(context)
        self._locals.take(parameters(rule))
        self._open: list[tuple[Node, Node]] = []
        self._passed: list[tuple[Node, Node]] = []
        self._compared: set[int] = set()
        self._read(list(alternative.statements), self._locals)
        for value in alternative.values:
            self._visit(value, self._locals)

    def sources(self) -> frozenset[int]:
        """Return what the values in the head are made of."""
        return NOTHING.union(*map(self._locals.sources, self._alternative.values))

    def compared(self) -> set[int]:
        """Return the parameters that are compared without a type."""
        return self._compared

    def is_false(self) -> bool:
        """Whether this gives the rule the value false, written out."""
        values = self._alternative.values
        kind, body = unwrap(values[-1]) if values else ("", {})
        return kind == "Bool" and not body["value"]

    def lasting(self) -> frozenset[Key]:
        """Return what it establishes that means something to others: input, data, parameters."""
        return frozenset(key for key in self._locals.guarded if lasts(key))

    def mistakes(self, path: str) -> Iterator[Mistake]:
        for node, operand in self._open:
            yield self._mistake(path, node, operand)
        for node, operand in self._passed:
            yield self._handed_on(path, node, operand)

    # --- reading --------------------------------------------------------------------------------

    def _read(self, statements: list[Node], scope: Locals) -> None:
        establish(statements, scope)
        for statement in statements:
            self._visit_statement(*unwrap(statement), scope)

    def _visit_statement(self, kind: str, body: Any, scope: Locals) -> None:  # noqa: ANN401
        if kind == "Every":
            self._visit(body["domain"], scope)
            inner = Locals(self._context, scope)
            scope.give_every(body, inner)
            self._read([item["literal"] for item in body["query"]["stmts"]], inner)
        elif kind == "SomeIn":
            self._visit(body["collection"], scope)
        else:
            self._visit(body, scope)

    def _visit(self, node: object, scope: Locals) -> None:
        """Look at every expression below a node; what a comprehension binds is its own."""
        if isinstance(node, list):
            for item in node:
                self._visit(item, scope)
        elif isinstance(node, dict):
            for kind, body in node.items():
                if kind in CLOSURES:
                    self._visit_closure(body, scope)
                    continue
                if kind == "BoolExpr" and body["op"] in _ORDERS:
                    self._compare({kind: body}, scope)
                elif kind == "Call":
                    self._call({kind: body}, scope)
                if kind != "span":
                    self._visit(body, scope)

    def _visit_closure(self, body: Node, scope: Locals) -> None:
        inner = Locals(self._context, scope)
        self._read([item["literal"] for item in body["query"]["stmts"]], inner)
        for part in ("term", "key", "value"):
            if part in body:
                self._visit(body[part], inner)

    def _compare(self, node: Node, scope: Locals) -> None:
        body = unwrap(node)[1]
        for operand in (body["lhs"], body["rhs"]):
            sources = scope.sources(operand)
            self._compared |= sources - {ANY}
            if ANY in sources:
                self._open.append((node, operand))

    def _call(self, node: Node, scope: Locals) -> None:
        name, given = scope.function(node), unwrap(node)[1]["params"]
        found = self._context.find(name) if name[0] == "data" else None
        for number in found.compared if found else ():
            if number >= len(given):
                continue
            sources = scope.sources(given[number])
            self._compared |= sources - {ANY}
            if ANY in sources:
                self._passed.append((node, given[number]))

    # --- telling --------------------------------------------------------------------------------

    def _mistake(self, path: str, node: Node, operand: Node) -> Mistake:
        body = unwrap(node)[1]
        text, sign = self._written(operand), _ORDERS[body["op"]]
        first = operand is body["lhs"]
        check = "is_string" if unwrap(body["rhs" if first else "lhs"])[0] in _TEXTS else "is_number"
        shown = f"{text} {sign} …" if first else f"… {sign} {text}"
        return Mistake(
            path,
            *place(self._context.text, start_of(node)),
            "unguarded_comparison",
            f"`{shown}` compares what may be of any type: {_WHY}",
            f"write `{check}({text})` in the same body"
            if _can_stand_alone(operand)
            else f"bind it first: `x := {text}`, then `{check}(x)`, and compare `x`",
        )

    def _handed_on(self, path: str, node: Node, operand: Node) -> Mistake:
        text, function = self._written(operand), self._written(unwrap(node)[1]["fcn"])
        return Mistake(
            path,
            *place(self._context.text, start_of(operand)),
            "unguarded_comparison",
            f"`{function}` compares `{text}`, which may be of any type: {_WHY}",
            f"write `is_number({text})` in the same body, or check its type in `{function}`",
        )

    def _written(self, node: Node) -> str:
        return " ".join(source_of(self._context.text, node).split())


def _can_stand_alone(node: Node) -> bool:
    """Whether a check of the same words is about the same value."""
    kind, body = unwrap(node)
    if kind not in REFERENCES:
        return False
    wild = any(unwrap(index)[1].get("value") == "_" for index in indices(node))
    return not wild and (kind == "Var" or _can_stand_alone(body["refr"]))
