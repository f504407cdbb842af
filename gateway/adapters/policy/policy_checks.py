"""What the statements of a body establish: the values that are of one type where they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.adapters.policy.policy_syntax import CLOSURES, REFERENCES, Node, is_literal, unwrap
from gateway.adapters.policy.policy_values import NOTHING, Key, Locals, Summary

_CHECKS: Final = {("is_number",), ("is_string",), ("is_boolean",), ("is_array",), ("is_object",)}


def establish(statements: list[Node], scope: Locals) -> None:
    """Read the statements of a body: bind what they bind, and add what they establish."""
    scope.read(statements)
    # A guard may stand on another one, and may be written below what it guards.
    before = -1
    while before != len(scope.guarded):
        before = len(scope.guarded)
        for statement in statements:
            scope.guarded |= _guards(statement, scope)
    scope.read(statements)


def lasts(key: Key) -> bool:
    """Whether a key means the same outside its body: input, data, a parameter."""
    return key[0] in {"input", "data"} or key[0][1:].isdigit()


def _guards(statement: Node, scope: Locals) -> set[Key]:
    """Return the keys whose values are of one type where this statement holds."""
    kind, body = unwrap(statement)
    if kind in {"NotExpr", "SomeVars"}:
        return set()
    if kind in {"SomeIn", "Every"}:
        return set(_mentions(body["collection" if kind == "SomeIn" else "domain"], scope))
    expression = body["expr"]
    found = set(_mentions(expression, scope))
    kind, body = unwrap(expression)
    if kind == "Call":
        found |= set(_checked(expression, scope))
    elif kind in REFERENCES and (key := scope.key(expression)) and (said := _said(key, scope)):
        found |= said.true
    elif kind == "Membership" and _is_written_out(body["collection"], scope):
        found |= _keys(scope, body["value"])
    elif (kind, body.get("op")) in {("BoolExpr", "Eq"), ("AssignExpr", "Eq")}:
        for one, other in ((body["lhs"], body["rhs"]), (body["rhs"], body["lhs"])):
            if _is_typed(other, scope):
                found |= _keys(scope, _named_type(one, scope) or one)
    return found


def _keys(scope: Locals, node: Node) -> set[Key]:
    key = scope.key(node)
    return set() if key is None else {key}


def _said(key: Key, scope: Locals) -> Summary | None:
    return scope.context.find(key) if key[0] == "data" else None


def _checked(call: Node, scope: Locals) -> Iterator[Key]:
    """Yield what a call establishes by being true: `is_number(x)`, or a function that says so."""
    name, given = scope.function(call), unwrap(call)[1]["params"]
    if name in _CHECKS and len(given) == 1:
        yield from _keys(scope, given[0])
    said = _said(name, scope)
    if said is not None:
        yield from _translated(said.true, given, scope)


def _mentions(node: object, scope: Locals) -> Iterator[Key]:
    """Yield what is established because a rule or function that is used here is defined."""
    if isinstance(node, list):
        for item in node:
            yield from _mentions(item, scope)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind in CLOSURES or kind in {"NotExpr", "span"} or not body:
                continue
            if kind in REFERENCES and (key := scope.key({kind: body})):
                said = _said(key, scope)
                yield from (each for each in said.shown if lasts(each)) if said else ()
            elif kind == "Call" and (said := _said(scope.function({kind: body}), scope)):
                yield from _translated(said.shown, body["params"], scope)
            yield from _mentions(body, scope)


def _translated(keys: frozenset[Key], given: list[Node], scope: Locals) -> Iterator[Key]:
    """Yield keys of a function in terms of what it was given."""
    for key in keys:
        if not key[0].startswith("%"):
            yield key
        elif int(key[0][1:]) < len(given) and (base := scope.key(given[int(key[0][1:])])):
            yield (*base, *key[1:])


def _named_type(node: Node, scope: Locals) -> Node | None:
    """Return `x` of `type_name(x)`."""
    if unwrap(node)[0] == "Call" and scope.function(node) == ("type_name",):
        found: Node = unwrap(node)[1]["params"][0]
        return found
    return None


def _is_typed(node: Node, scope: Locals) -> bool:
    """Whether an expression has one type, whatever the input is: what equals it has it too."""
    kind = unwrap(node)[0]
    return (
        (is_literal(node) and kind != "Null")
        or kind == "ArithExpr"
        or (kind == "Call" and scope.sources(node) == NOTHING and scope.function(node)[0] != "data")
    )


def _is_written_out(node: Node, scope: Locals) -> bool:
    kind, body = unwrap(node)
    if kind in {"Array", "Set"}:
        return all(is_literal(item) for item in body["items"])
    return (
        kind in REFERENCES and (scope.key(node) or ("",))[0] == "data" and not scope.sources(node)
    )
