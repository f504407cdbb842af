"""Names the cases of a parameterised test, `test_x[name] if { some name, tc in …; … }`.

In an engine a case that fails is just absent from the rule's value. So the cases are asked for by
a rule of their own, made of no more of the body than what binds their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from gateway.adapters.policy.gate.policy_names import find_bound, find_used
from gateway.adapters.policy.policy_syntax import Node, declared, source_of, unwrap

Path = tuple[str, ...]


class Case(Struct, frozen=True):
    """One case of a test, with those below it."""

    name: str
    failed: bool
    cases: tuple[Case, ...] = ()


def write_case_rule(
    name: str, tail: list[str | Node], statements: list[Node], text: bytes
) -> str | None:
    """Return the rule `name` that contains the names of all cases; None if they cannot be named.

    `tail`: the names and expressions in the test's head that name a case. `statements`: those of
    its body.
    """
    chosen = find_binding(tail, statements, text)
    if chosen is None:
        return None
    body = "\n".join(source_of(text, statements[number]) for number in chosen)
    return f"{name} contains {write_name(tail, text)} if {{\n{body or 'true'}\n}}\n"


def write_name(tail: list[str | Node], text: bytes) -> str:
    """Return the expression that names a case: `["group", name]`."""
    parts = (json.dumps(part) if isinstance(part, str) else source_of(text, part) for part in tail)
    return f"[{', '.join(parts)}]"


def find_binding(tail: list[str | Node], statements: list[Node], text: bytes) -> list[int] | None:
    """Return which statements bind what names a case, and what those stand on."""
    dynamic = [part for part in tail if isinstance(part, dict)]
    return _binding(dynamic, [statement["literal"] for statement in statements], text)


def _binding(tail: list[Node], body: list[Node], text: bytes) -> list[int] | None:
    binds = [_bound(literal, text) for literal in body]
    local = set().union(*binds)
    chosen: set[int] = set()
    needed = [name for name, _ in find_used(tail)]
    seen: set[str] = set()
    while needed:
        name = needed.pop()
        if name in seen or name == "_":
            continue
        seen.add(name)
        places = [number for number, names in enumerate(binds) if name in names]
        if not places:
            continue
        # `some name` alone declares; what gives it values comes below.
        only = [number for number in places if unwrap(body[number])[0] == "SomeVars"]
        giving = [number for number in places if number not in only][:1]
        # What binds a name and may fail besides would hide the cases for which it does.
        if not giving or not all(_only_binds(body[number]) for number in giving):
            return None
        chosen.update(only, giving)
        needed += [
            each for number in giving for each, _ in find_used(body[number]) if each in local
        ]
    return sorted(chosen)


def _bound(literal: Node, text: bytes) -> set[str]:
    kind = unwrap(literal)[0]
    if kind in {"NotExpr", "Every"}:
        return set()
    return {name for name, _ in declared(literal, text)} | set(find_bound(literal, text))


def _only_binds(literal: Node) -> bool:
    kind, body = unwrap(literal)
    if kind == "SomeIn":
        return all(_is_pattern(body[part]) for part in ("key", "value") if body[part])
    if kind != "Expr":
        return False
    kind, body = unwrap(body["expr"])
    if kind == "AssignExpr":
        return _is_pattern(body["lhs"]) or _is_pattern(body["rhs"])
    return kind == "Call" and unwrap(body["fcn"])[1].get("value") == "walk"


def _is_pattern(node: Node) -> bool:
    """Whether a node is a variable, or made of nothing but variables."""
    kind, body = unwrap(node)
    return kind == "Var" or (kind == "Array" and all(map(_is_pattern, body["items"])))


def read_cases(value: object, names: Iterable[list[Any]]) -> tuple[Case, ...]:
    """Return every case: those that the rule's value has, and those that are only named."""
    tree = _tree(value if isinstance(value, dict) else {})
    for name in names:
        _place(tree, read_name(name))
    return tuple(_cases(tree))


def read_name(name: Iterable[object]) -> list[str]:
    """Return the parts of a case's name as they are shown."""
    return [part if isinstance(part, str) else _shown(part) for part in name]


def _shown(part: object) -> str:
    return json.dumps(part, separators=(",", ":"), ensure_ascii=False)


def _tree(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _tree(item) if isinstance(item, dict) else item is True for key, item in value.items()
    }


def _place(tree: Any, path: list[str]) -> None:  # noqa: ANN401
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            return
    tree.setdefault(path[-1], False)


def _cases(tree: Mapping[str, Any]) -> Iterator[Case]:
    for name in sorted(tree):
        below = tree[name]
        cases = tuple(_cases(below)) if isinstance(below, dict) else ()
        failed = any(case.failed for case in cases) if isinstance(below, dict) else not below
        yield Case(name, failed, cases)
