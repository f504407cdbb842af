"""What the embedded engine and OPA read, or decide, differently, and both in silence.

Found by running random policies on both (`tests/integration/policy/test_random_policies.py`); the
cases are in docs/opa.md. Two more stand in `policy_ast` (`negated`, `fallible`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    Node,
    head_of,
    is_literal,
    place,
    start_of,
    unwrap,
)

_OPERATIONS = ("BoolExpr", "ArithExpr", "BinExpr", "AssignExpr", "Membership")


def find_unportable(source: Source) -> Iterator[Mistake]:
    """Yield what would mean one thing here and another on a stock OPA."""
    text = source.text.encode()
    for each in source.module.rules:
        if each.name == "internal":
            column = each.start - text.rfind(b"\n", 0, each.start)
            message = "a rule named `internal` hides functions that OPA calls itself"
            hint = "use another name"
            yield Mistake(source.path, each.line, column, "rule_internal", message, hint)
    for rule in source.module.tree:
        for node in _leading_unions(rule):
            yield mistake_at(
                source,
                node,
                "union_first",
                "a rule body that begins with a union is a set comprehension to OPA, and holds "
                "always",
                "bind the union first: `both := a | b`",
            )
        for node in _mixed_collections(rule):
            yield mistake_at(
                source,
                node,
                "in_mixed",
                "OPA's rule index overlooks references in a list of values after `in`",
                'bind the list first: `known := ["a", x]`, then `y in known`',
            )
        for node in _iterations(_partial_head(rule)):
            yield mistake_at(
                source,
                node,
                "iteration_in_head",
                "where `[_]` in the head of a set or object finds nothing, the engines differ: it "
                "is empty on OPA, undefined here",
                "iterate in the body: `some x in …`",
            )
        for node in _negated(rule):
            for found in _iterations(node):
                yield mistake_at(
                    source,
                    found,
                    "iteration_below_not",
                    "OPA does not read `[_]` below `not`",
                    "iterate in a rule of its own and negate that",
                )


def mistake_at(source: Source, node: Node, code: str, message: str, hint: str) -> Mistake:
    """Return a mistake where an expression begins."""
    row, column = place(source.text.encode(), start_of(node))
    return Mistake(source.path, row, column, code, message, hint)


def _leading_unions(rule: Node) -> Iterator[Node]:
    """Yield unions that begin a body: OPA reads `{a | b == c}`, a set, which is always defined."""
    for body in rule.get("Spec", {"bodies": []})["bodies"]:
        statements = body["query"]["stmts"]
        kind, first = unwrap(statements[0]["literal"]) if statements else ("", {})
        if kind == "Expr" and _has_union(first["expr"]):
            yield first["expr"]


def _has_union(expression: Node) -> bool:
    kind, body = unwrap(expression)
    if kind not in _OPERATIONS or (kind, body.get("op")) == ("AssignExpr", "ColEq"):
        return False
    if (kind, body.get("op")) == ("BinExpr", "Union"):
        return True
    parts = ("key", "value", "collection") if kind == "Membership" else ("lhs", "rhs")
    return any(_has_union(body[part]) for part in parts if body[part])


def _mixed_collections(node: object) -> Iterator[Node]:
    for kind, body in below(node):
        if kind == "Membership":
            values = _members(body["collection"])
            if 0 < sum(map(is_literal, values)) < len(values):
                yield {kind: body}


def _members(collection: Node) -> list[Node]:
    kind, body = unwrap(collection)
    if kind in {"Array", "Set"}:
        return list(body["items"])
    return [field[-1] for field in body["fields"]] if kind == "Object" else []


def _partial_head(rule: Node) -> list[Node]:
    """Return what the head of a rule that makes a set or an object member by member is made of."""
    kind, head = head_of(rule)
    if kind == "Set":
        return [head["key"]] if head["key"] else []
    if kind != "Compr" or "RefBrack" not in head["refr"]:
        return []
    value = [head["assign"]["value"]] if head["assign"] else []
    return [head["refr"]["RefBrack"]["index"], *value]


def _iterations(node: object) -> Iterator[Node]:
    """Yield references with `[_]`, but those in comprehensions."""
    for kind, body in below(node, closures=False):
        if kind == "RefBrack" and "Var" in body["index"] and body["index"]["Var"]["value"] == "_":
            yield {kind: body}


def written_name(reference: Node) -> str:
    """Return a plain reference as it is written; empty for any other."""
    kind, body = unwrap(reference)
    if kind == "Var":
        return str(body["value"])
    return f"{written_name(body['refr'])}.{body['field'][1]}" if kind == "RefDot" else ""


def _negated(node: object) -> Iterator[Node]:
    for kind, body in below(node):
        if kind == "NotExpr":
            yield body["expr"]


def above_queries(node: object) -> Iterator[tuple[str, Any]]:
    """Yield (kind, body) of every node below one, but of those in comprehensions and `every`."""
    if isinstance(node, list):
        for item in node:
            yield from above_queries(item)
    elif isinstance(node, dict):
        for kind, body in node.items():
            yield kind, body
            if kind == "Every":
                yield from above_queries(body["domain"])
            elif kind not in {*CLOSURES, "span"}:
                yield from above_queries(body)


def below(node: object, *, closures: bool = True) -> Iterator[tuple[str, Node]]:
    """Return every tagged node below, in order; without `closures`, none in comprehensions."""
    found: list[tuple[str, Node]] = []
    _collect(node, found, () if closures else CLOSURES)
    return iter(found)


def _collect(node: object, found: list[tuple[str, Node]], skipped: Collection[str]) -> None:
    """Add what is below a node. A list takes a tenth of the time that nested generators take."""
    if isinstance(node, dict):
        for kind, body in node.items():
            if kind == "span" or kind in skipped:
                continue
            if isinstance(body, dict):
                found.append((kind, body))
                _collect(body, found, skipped)
            elif isinstance(body, list):
                _collect(body, found, skipped)
    elif isinstance(node, list):
        for item in node:
            _collect(item, found, skipped)
