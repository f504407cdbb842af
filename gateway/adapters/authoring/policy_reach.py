"""What names in a rule stand for: places of the input, and the texts that are written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.gate.policy_portable import below, written_name
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import Node, alternatives, head_of, parameters, unwrap

_DEPTH_MAX: Final = 8
Path = tuple[str, ...]


class Names(Struct, frozen=True):
    """What the names in one rule stand for.

    `bound`: one value; `members`: each member of a collection; `given`: a place, told by a caller.
    """

    source: Source
    bound: Mapping[str, Node]
    members: Mapping[str, Node]
    given: Mapping[str, Path] = {}


def plain_rules(sources: Iterable[Source]) -> dict[str, Node]:
    """Return the rules that are another name of one value, of the modules of one package."""
    found: dict[str, list[Node]] = {}
    for source in sources:
        for rule in source.module.tree:
            found.setdefault(written_name(head_of(rule)[1]["refr"]), []).append(rule)
    return {
        name: only[0].values[0]
        for name, rules in found.items()
        if head_of(rules[0])[0] == "Compr" and not parameters(rules[0])
        if len(only := [one for rule in rules for one in alternatives(rule)]) == 1
        if len(only[0].values) == 1 and not only[0].statements
    }


def names_in_rule(
    source: Source, rule: Node, plain: Mapping[str, Node], given: Mapping[str, Path]
) -> Names:
    """Return what the names in a rule stand for, beside those of its package."""
    bound, members = dict(plain), {}
    for kind, body in below(rule):
        if kind == "AssignExpr" and body["op"] == "ColEq" and "Var" in body["lhs"]:
            bound[body["lhs"]["Var"]["value"]] = body["rhs"]
        elif kind == "SomeIn" and "Var" in body["value"]:
            members[body["value"]["Var"]["value"]] = body["collection"]
    return Names(source, bound, members, given)


def path_of(node: Node, names: Names, depth: int = 0) -> Path:
    """Return the place that an expression names, `""` for what is known only later."""
    kind, body = unwrap(node)
    if kind == "Var":
        return _path_of_name(body["value"], names, depth)
    if kind == "RefDot":
        return (*path_of(body["refr"], names, depth), body["field"][1])
    if kind == "RefBrack":
        index, literal = unwrap(body["index"])
        known = literal["value"] if index in {"String", "RawString"} else ""
        return (*path_of(body["refr"], names, depth), known)
    return ("",)


def _path_of_name(name: str, names: Names, depth: int) -> Path:
    if name in names.given:
        return names.given[name]
    if depth < _DEPTH_MAX:
        if name in names.bound:
            return path_of(names.bound[name], names, depth + 1)
        if name in names.members:
            return (*path_of(names.members[name], names, depth + 1), "")
    return names.source.module.imports.get(name, (name,))


def texts_of(node: Node, names: Names, depth: int = 0) -> Iterator[tuple[str, Node]]:
    """Yield (text, node) of each text that an expression may be, as far as they are written."""
    kind, body = unwrap(node)
    if kind in {"String", "RawString"}:
        yield body["value"], node
    elif kind == "Var" and depth < _DEPTH_MAX:
        name = body["value"]
        if name in names.bound:
            yield from texts_of(names.bound[name], names, depth + 1)
        elif name in names.members:
            yield from member_texts(names.members[name], names, depth + 1)


def member_texts(node: Node, names: Names, depth: int = 0) -> Iterator[tuple[str, Node]]:
    """Yield (text, node) of each text in a collection that is written out."""
    kind, body = unwrap(node)
    if kind in {"Array", "Set"}:
        for item in body["items"]:
            yield from texts_of(item, names, depth)
    elif kind == "Var" and body["value"] in names.bound and depth < _DEPTH_MAX:
        yield from member_texts(names.bound[body["value"]], names, depth + 1)
