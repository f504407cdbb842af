"""Limits that are looked up by what an agent says: for a word that nobody listed there is none.

`deny … if amount > data.caps[args.kind]` is undefined, and so silent, for an unknown kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.gate.policy_kinds import CHECKS
from gateway.adapters.policy.gate.policy_portable import below, mistake_at, written_name
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    REFERENCES,
    Node,
    alternatives,
    head_of,
    is_literal,
    parameters,
    source_of,
    unwrap,
)

_SAID: Final = {("input", "context", part) for part in ("args", "result", "claimed")}
_ORDERS: Final = frozenset({"Lt", "Le", "Gt", "Ge"})
_DEPTH_MAX: Final = 8


class _Names(Struct, frozen=True):
    """What names in a body stand for: what it binds, and rules that are nothing but a value."""

    source: Source
    bound: Mapping[str, Node]


def find_looked_up_limits(source: Source) -> Iterator[Mistake]:
    """Yield a warning for each limit of a deny or hold that an unlisted word undoes."""
    rules: dict[str, list[Node]] = {}
    for rule in source.module.tree:
        rules.setdefault(written_name(head_of(rule)[1]["refr"]), []).append(rule)
    plain = dict(_plain(rules))
    answered = set(_answered(source, rules))
    for rule in _limiting(rules):
        names = _Names(source, plain | dict(_bound(rule)))
        for kind, body in below(rule):
            if kind != "BoolExpr" or body["op"] not in _ORDERS:
                continue
            for side in (body["lhs"], body["rhs"]):
                found = _looked_up(side, names, 0)
                if found and not answered & {_text(each, source) for each in (side, *found)}:
                    yield _warning(source, side, *found)


def _warning(source: Source, side: Node, whole: Node, index: Node) -> Mistake:
    shown, said = _text(whole, source), _text(index, source)
    told = mistake_at(
        source,
        side,
        "limit_looked_up",
        f"`{shown}` is no limit where `{said}` is not listed: the comparison is silent then",
        f"add `cap := {shown}` and a deny with `not cap`, or take a default by `object.get`",
    )
    return Mistake(told.file, told.row, told.col, told.code, told.message, told.hint, "warning")


def _plain(rules: Mapping[str, list[Node]]) -> Iterator[tuple[str, Node]]:
    """Yield rules that are another name of one value."""
    for name, found in rules.items():
        each = [one for rule in found for one in alternatives(rule)]
        value = head_of(found[0])[0] == "Compr" and not parameters(found[0])
        if value and len(each) == len(each[0].values) == 1 and not each[0].statements:
            yield name, each[0].values[0]


def _bound(rule: Node) -> Iterator[tuple[str, Node]]:
    for kind, body in below(rule):
        if kind == "AssignExpr" and body["op"] == "ColEq" and "Var" in body["lhs"]:
            yield body["lhs"]["Var"]["value"], body["rhs"]


def _limiting(rules: Mapping[str, list[Node]]) -> list[Node]:
    """Return denies and holds, and the rules that they need to be true."""
    waiting, seen = ["deny", "hold"], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in rules:
            seen.add(name)
            waiting += [
                body["value"]
                for rule in rules[name]
                for each in alternatives(rule)
                for statement in each.statements
                if "NotExpr" not in statement
                for kind, body in below(statement)
                if kind == "Var"
            ]
    return [rule for name in sorted(seen) for rule in rules[name]]


def _answered(source: Source, rules: Mapping[str, list[Node]]) -> Iterator[str]:
    """Yield what permits need, and what somebody says of its absence, with what that stands on."""
    negated = [
        body["expr"]
        for kind, body in below(source.module.tree)
        if kind == "NotExpr" and not _is_check(body["expr"])
    ]
    waiting, seen = [*negated, *rules.get("permit", ())], set[str]()
    while waiting:
        for kind, body in below(waiting.pop()):
            if kind not in REFERENCES:
                continue
            text = _text({kind: body}, source)
            yield text
            if text not in seen:
                seen.add(text)
                waiting += rules.get(text, ())


def _is_check(expression: Node) -> bool:
    kind, body = unwrap(expression)
    return kind == "Call" and (written_name(body["fcn"]),) in CHECKS


def _looked_up(node: Node, names: _Names, depth: int) -> tuple[Node, Node] | None:
    """Return (reference, index) of what in an operand is looked up by what somebody says."""
    kind, body = unwrap(node)
    if kind == "Var":
        other = names.bound.get(body["value"])
        return _looked_up(other, names, depth + 1) if other and depth < _DEPTH_MAX else None
    if kind == "ArithExpr":
        return _looked_up(body["lhs"], names, depth) or _looked_up(body["rhs"], names, depth)
    reference = node
    while kind in {"RefDot", "RefBrack"}:
        if kind == "RefBrack" and not is_literal(body["index"]):
            base, index = _path(body["refr"], names, 0), _path(body["index"], names, 0)
            if base[:1] == ("data",) and index[:3] in _SAID:
                return reference, body["index"]
        kind, body = unwrap(body["refr"])
    return None


def _path(node: Node, names: _Names, depth: int) -> tuple[str, ...]:
    kind, body = unwrap(node)
    if kind == "Var":
        name = body["value"]
        if name in names.bound and depth < _DEPTH_MAX:
            return _path(names.bound[name], names, depth + 1)
        return names.source.module.imports.get(name, (name,))
    if kind == "RefDot":
        return (*_path(body["refr"], names, depth), body["field"][1])
    return (*_path(body["refr"], names, depth), "") if kind == "RefBrack" else ("",)


def _text(node: Node, source: Source) -> str:
    return " ".join(source_of(source.text.encode(), node).split())
