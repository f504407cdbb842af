"""The rules of all packages together: who stands on whom, and which cannot stand together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.adapters.policy.policy_ast import Path
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    HEADS,
    REFERENCES,
    Node,
    alternatives,
    declared,
    head_of,
    indices,
    is_literal,
    parameters,
    place,
    unwrap,
)

Name = tuple[Path, str]
"""A package and the first part of a rule's head."""
_KINDS: Final = {"set": "a set (`contains`)", "function": "a function", "value": "a value"}


class Definitions:
    """Every rule of these modules by its name, in the order in which they are given."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.rules: dict[Name, list[tuple[Source, Node]]] = {}
        self._packages: dict[Path, set[str]] = {}
        self._needed: dict[Name, list[Name]] = {}
        for source in sources:
            names = self._packages.setdefault(source.module.package, set())
            for rule in source.module.tree:
                name = _first(head_of(rule)[1]["refr"])
                names.add(name)
                self.rules.setdefault((source.module.package, name), []).append((source, rule))

    def names_in(self, package: Path) -> frozenset[str]:
        """Return the names of a package's rules and functions."""
        return frozenset(self._packages.get(package, ()))

    def packages(self) -> Iterable[Path]:
        """Return every package."""
        return self._packages.keys()

    def find(self, path: Path) -> Name | None:
        """Return the rule that a path below `data` leads to; None where there is none."""
        for length in (3, 4):
            if path[1:length] in self._packages and len(path) > length:
                name = (path[1:length], path[length])
                return name if name in self.rules else None
        return None

    def in_order(self, paths: Iterable[str]) -> list[Name]:
        """Return the rules in these modules and all on which they stand, those first."""
        return self._walk(self._in(paths))[0]

    def _in(self, paths: Iterable[str]) -> list[Name]:
        told = frozenset(paths)
        return [
            name
            for name, found in self.rules.items()
            if any(source.path in told for source, _ in found)
        ]

    def find_recursion(self, paths: Iterable[str]) -> Iterator[Mistake]:
        """Yield each circle that rules in these modules stand on, once."""
        for circle in self._walk(self._in(paths))[1]:
            source, rule = self.rules[circle[0]][0]
            row, col = place(source.text.encode(), head_of(rule)[1]["span"])
            shown = " → ".join(f"`{name}`" for _, name in (*circle, circle[0]))
            yield Mistake(
                source.path,
                row,
                col,
                "recursion",
                f"recursion: `{circle[0][1]}` stands on itself, {shown}",
                "a rule cannot need its own answer; take one of these out of the other",
            )

    def _walk(self, roots: list[Name]) -> tuple[list[Name], list[list[Name]]]:
        """Return (names in order, circles). Iterative: a chain of rules may be long."""
        order: list[Name] = []
        circles: list[list[Name]] = []
        done: set[Name] = set()
        for root in roots:
            waiting = [(root, iter(self._needs(root)))] if root not in done else []
            trail = [root] * len(waiting)
            while waiting:
                name, rest = waiting[-1]
                following = next(rest, None)
                if following is None:
                    waiting.pop()
                    trail.pop()
                    done.add(name)
                    order.append(name)
                elif following in trail:
                    circles.append(trail[trail.index(following) :])
                elif following not in done:
                    trail.append(following)
                    waiting.append((following, iter(self._needs(following))))
        return order, circles

    def _needs(self, name: Name) -> list[Name]:
        if name not in self._needed:
            self._needed[name] = self._find_needs(name)
        return self._needed[name]

    def _find_needs(self, name: Name) -> list[Name]:
        found: dict[Name, None] = {}
        for source, rule in self.rules[name]:
            own = {each for each, _ in declared(rule, source.text.encode())}
            for path in _paths(rule, source, own, self._packages[name[0]]):
                if (one := self.find(path)) is not None:
                    found[one] = None
                elif path[1:] in self._packages:
                    found |= {(path[1:], each): None for each in sorted(self._packages[path[1:]])}
        return list(found)

    # --- rules of one name ----------------------------------------------------------------------

    def find_conflicts(self, paths: Iterable[str]) -> Iterator[Mistake]:
        """Yield rules of one name that can never stand beside each other, in these modules."""
        for each in self._in(paths):
            name, found = each[1], self.rules[each]
            first = _kind(found[0][1])
            for source, rule in found[1:]:
                text = _against(name, first, _kind(rule), found[0][1], rule)
                if text:
                    yield _conflict(source, rule, *text)
            yield from _constants(name, found)


def _conflict(source: Source, rule: Node, message: str, hint: str) -> Mistake:
    row, col = place(source.text.encode(), head_of(rule)[1]["span"])
    return Mistake(source.path, row, col, "rule_conflict", message, hint)


def _against(name: str, first: str, kind: str, one: Node, other: Node) -> tuple[str, str] | None:
    if {first, kind} <= {"set", "function", "value"} and first != kind:
        text = f"`{name}` is {_KINDS[kind]} here and {_KINDS[first]} elsewhere"
        return text, "give one of them another name"
    takes = len(parameters(one)), len(parameters(other))
    if first == kind == "function" and takes[0] != takes[1]:
        text = f"`{name}` takes {takes[1]} arguments here and {takes[0]} elsewhere"
        return text, "give one of them another name"
    return None


def _constants(name: str, found: list[tuple[Source, Node]]) -> Iterator[Mistake]:
    """Yield a second default, and a value that differs from one that the rule always has."""
    defaults = [each for each in found if "Default" in each[1]]
    for source, rule in defaults[1:]:
        yield _conflict(source, rule, f"`{name}` has a second default", "keep one")
    if any(_kind(rule) not in {"value", "default"} for _, rule in found):
        return
    given = [
        (source, rule, alternative)
        for source, rule in found
        for alternative in alternatives(rule)
        if not alternative.default and not any(indices(head_of(rule)[1]["refr"]))
    ]
    always = [_constant(each[2].values) for each in given if not each[1]["Spec"]["bodies"]]
    for source, rule, alternative in given:
        value = _constant(alternative.values)
        if always and value is not None and always[0] is not None and value != always[0]:
            message = f"`{name}` always is {always[0]}, so it conflicts with {value}"
            yield _conflict(source, rule, message, f"write `default {name} := {always[0]}`")


def _constant(values: tuple[Node, ...]) -> str | None:
    """Return a value that is written out, None for any other."""
    if not values:
        return "true"
    kind, body = unwrap(values[-1])
    return f"{body['value']}" if is_literal(values[-1]) and kind != "Null" else None


def _kind(rule: Node) -> str:
    kind, head = head_of(rule)
    if kind == "Default":
        return "function" if head["args"] else "default"
    if kind == "Compr":
        # `m.a := 1` and `m[x] := y` are parts of one object.
        return "value" if unwrap(head["refr"])[0] == "Var" else "object"
    return {"Set": "set", "Func": "function"}[kind]


def _first(reference: Node) -> str:
    kind, body = unwrap(reference)
    name: str = body["value"] if kind == "Var" else _first(body["refr"])
    return name


def _paths(node: object, source: Source, own: set[str], rules: set[str]) -> Iterator[Path]:
    """Yield every path below `data` that a rule reads, as far as it is static."""
    if isinstance(node, list):
        for item in node:
            yield from _paths(item, source, own, rules)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind in REFERENCES and (path := _static({kind: body})):
                yield from _resolved(path, source, own, rules)
                yield from _paths(list(indices({kind: body})), source, own, rules)
            elif kind in HEADS and "refr" in body:
                # A head's own name is no reference; what indexes it may be one.
                rest = {key: item for key, item in body.items() if key != "refr"}
                yield from _paths([rest, *indices(body["refr"])], source, own, rules)
            elif kind != "span":
                yield from _paths(body, source, own, rules)


def _resolved(path: Path, source: Source, own: set[str], rules: set[str]) -> Iterator[Path]:
    if not path or path[0] in own:
        return
    if path[0] in source.module.imports:
        yield (*source.module.imports[path[0]], *path[1:])
    elif path[0] == "data":
        yield path
    elif path[0] in rules:
        yield ("data", *source.module.package, *path)


def _static(node: Node) -> Path:
    kind, body = unwrap(node)
    if kind == "Var":
        return (body["value"],)
    if kind not in REFERENCES or not (base := _static(body["refr"])):
        return ()
    if base[-1] == "":
        return base
    if kind == "RefDot":
        return (*base, body["field"][1])
    index = body["index"].get("String")
    return (*base, index["value"]) if index else (*base, "")
