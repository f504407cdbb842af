"""What the statements of a body establish: the types of values where they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.adapters.policy.gate.policy_kinds import CHECKS, COLLECTION, OPEN, TEXTS, TYPE_NAMES
from gateway.adapters.policy.gate.policy_made import Checks, Key, is_raw, lasts
from gateway.adapters.policy.gate.policy_uses import TRUE, Summary, word_of
from gateway.adapters.policy.gate.policy_values import Locals
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Node,
    is_literal,
    unwrap,
    written,
)

Guards = Iterator[tuple[Key, int]]
_PHASE: Final = ("input", "phase")
ELSEWHERE: Final[Key] = ("input", "phase", "!")
"""Needed by what holds in phases without arguments only."""
_WITH_ARGUMENTS: Final = frozenset({"call", "resume"})
_TEXTS: Final = ("String", "RawString")
_NO_MENTIONS: Final = frozenset({"NotExpr", "span", "fcn", "field"})


def establish(statements: list[Node], scope: Locals) -> None:
    """Read the statements of a body: bind what they bind, and add what they establish."""
    scope.read(statements)
    # What holds under a `with` says nothing of the input as it is.
    plain = [each["literal"] for each in statements if not each.get("with_mods")]
    _add(scope, (pair for each in plain for pair in _said_by(each, scope)))
    # A guard may stand on another one, and may be written below what it guards.
    while _add(scope, [pair for each in plain for pair in _guards(each, scope)]):
        pass
    if len(scope.guarded) != len(scope.outer_guarded):
        scope.read(statements)


def _add(scope: Locals, pairs: Iterable[tuple[Key, int]]) -> bool:
    """Add what is established; return whether that says more than before."""
    more, guarded = False, scope.guarded
    for key, kinds in pairs:
        before = guarded.get(key, OPEN)
        after = kinds if before == OPEN else (before & kinds or before)
        scope.never |= not _widened(before) & _widened(kinds)
        if key not in guarded or after != before:
            guarded[key] = after
            more = True
    return more


def _widened(kinds: int) -> int:
    """Return the types that something of these may turn out to have."""
    return ~0 if kinds & OPEN else kinds | (TEXTS if kinds & TEXTS else 0)


def _said_by(statement: Node, scope: Locals) -> Guards:
    """Yield what a statement establishes by being defined.

    That is what the rules and functions say that it uses, and that there is something to iterate.
    """
    kind, body = unwrap(statement)
    if kind in {"SomeIn", "Every"}:
        iterated = body["collection" if kind == "SomeIn" else "domain"]
        yield from _iterated(iterated, scope)
        yield from _mentions(iterated, scope)
    elif kind == "Expr":
        yield from _mentions(body["expr"], scope)


def _guards(statement: Node, scope: Locals) -> Guards:
    """Yield the keys whose values are of these types where this statement holds."""
    kind, body = unwrap(statement)
    if kind == "Every":
        yield from _of_every(body, scope)
    if kind != "Expr":
        return
    expression = body["expr"]
    kind, body = unwrap(expression)
    if kind == "Call":
        yield from _checked(expression, scope)
    elif kind in REFERENCES and (key := scope.key(expression)) and (said := _said(key, scope)):
        yield from said.true.items()
    elif kind == "Membership" and (key := scope.key(body["value"])):
        yield from _listed(key, body["collection"], scope)
    elif kind == "Membership" and (named := _asks_type(body["value"], scope)):
        yield from _of_types(named, body["collection"])
    elif (kind, body.get("op")) in {("BoolExpr", "Eq"), ("AssignExpr", "Eq")}:
        yield from _equal(body["lhs"], body["rhs"], scope)
        yield from _equal(body["rhs"], body["lhs"], scope)


def _of_every(body: Node, scope: Locals) -> Guards:
    """Yield what an `every` establishes of each member."""
    kind, domain = unwrap(body["domain"])
    keys = [scope.key(item) for item in domain["items"]] if kind in {"Array", "Set"} else []
    whole = scope.key(body["domain"]) if kind in REFERENCES else None
    starts = [key for key in keys if key] + ([(*whole, "[")] if whole else [])
    if not starts or "start" not in (body["value"] or {}):
        return
    inner = Locals(scope.context, scope)
    scope.give_every(body, inner)
    establish(body["query"]["stmts"], inner)
    mine = inner.key(
        {"Var": {"value": written(scope.context.text, body["value"]), "span": body["value"]}}
    )
    for each, kinds in inner.guarded.items():
        if mine is not None and each[: len(mine)] == mine:
            for start in starts:
                yield (*start, *each[len(mine) :]), kinds


def _said(key: Key, scope: Locals) -> Summary | None:
    found = scope.context.find(key) if key[0] == "data" else None
    return found[0] if found else None


def _checked(call: Node, scope: Locals) -> Guards:
    """Yield what a call establishes by being true: `is_number(x)`, or a function that says so."""
    name, given = scope.function(call), unwrap(call)[1]["params"]
    if name in CHECKS and len(given) == 1 and (key := scope.key(given[0])):
        yield key, CHECKS[name]
    said = _said(name, scope)
    if said is not None:
        yield from _translated(said.true, given, scope)


def _mentions(node: object, scope: Locals) -> Guards:
    """Yield what is established because a rule or function that is used here is defined."""
    if isinstance(node, list):
        for item in node:
            yield from _mentions(item, scope)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind in CLOSURES or kind in _NO_MENTIONS or not body:
                continue
            if kind == "RefBrack" and not is_literal(body["index"]):
                yield from _iterated(body["refr"], scope)
            if kind in REFERENCES and (key := scope.key({kind: body})):
                said = _said(key, scope)
                yield from (each for each in said.shown.items() if lasts(each[0])) if said else ()
            elif kind == "Call" and (said := _said(scope.function({kind: body}), scope)):
                yield from _translated(said.shown, body["params"], scope)
            yield from _mentions(body, scope)


def _iterated(node: Node, scope: Locals) -> Guards:
    """Yield that what is iterated is a list, an object or a set: there is no member else."""
    key = scope.key(node)
    if key is not None and not scope.is_collection(key):
        yield key, COLLECTION


def _translated(keys: Checks, given: list[Node], scope: Locals) -> Guards:
    """Yield keys of a function in terms of what it was given."""
    for key, kinds in keys.items():
        if not key[0].startswith("%"):
            yield key, kinds
        elif int(key[0][1:]) < len(given) and (base := scope.key(given[int(key[0][1:])])):
            yield (*base, *key[1:]), kinds


def _equal(one: Node, other: Node, scope: Locals) -> Guards:
    """Yield what `one == other` says of `one`."""
    if unwrap(one)[0] == "Call":
        if key := _asks_type(one, scope):
            yield from _of_types(key, {"Set": {"items": [other]}})
        elif word_of(other) == TRUE:
            yield from _checked(one, scope)
        return
    key = scope.key(one)
    if key is None:
        return
    if key == _PHASE and unwrap(other)[1].get("value") not in _WITH_ARGUMENTS and is_literal(other):
        yield ELSEWHERE, OPEN
    value = scope.value(other)
    # A trusted value of any type: what equals it is one, too.
    trusted = value.kinds and (not value.kinds & OPEN or (scope.key(other) or "?")[0] == "data")
    if trusted and not any(map(is_raw, value.own)):
        yield key, value.kinds


def _asks_type(node: Node, scope: Locals) -> Key | None:
    """Return of what this is the `type_name`."""
    if unwrap(node)[0] != "Call" or scope.function(node) != ("type_name",):
        return None
    return scope.key(unwrap(node)[1]["params"][0])


def _of_types(key: Key, listed: Node) -> Guards:
    """Yield what it establishes that a `type_name` is one of those written out."""
    kind, body = unwrap(listed)
    items = [unwrap(each) for each in body["items"]] if kind in {"Array", "Set"} else []
    if items and all(kind in _TEXTS for kind, _ in items):
        kinds = 0
        for _, text in items:
            kinds |= TYPE_NAMES.get(text["value"], OPEN)
        yield key, kinds


def _listed(key: Key, node: Node, scope: Locals) -> Guards:
    """Yield what `key in node` establishes, if somebody who is trusted has listed it."""
    kind, body = unwrap(node)
    if kind in {"Array", "Set"} and all(map(is_literal, body["items"])):
        kinds = 0
        for item in body["items"]:
            kinds |= scope.value(item).kinds
        yield key, kinds or OPEN
        texts = {unwrap(item)[1].get("value") for item in body["items"]}
        if key == _PHASE and not texts & _WITH_ARGUMENTS:
            yield ELSEWHERE, OPEN
    elif kind in REFERENCES and (scope.key(node) or ("",))[0] == "data":
        value = scope.value(node)
        if value.members and not any(map(is_raw, value.own | value.inner)):
            yield key, value.members
