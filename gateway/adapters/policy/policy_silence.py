"""Packages that a bundle's data keeps silent: each of their rules begins with data it lacks.

What is off by its settings is left out of engines, and does not make calls take turns. OPA
evaluates it, with the same answer: an undefined first expression ends a rule's body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.adapters.policy.policy_ast import Module, Path, find_references

Needs = tuple[frozenset[Path], ...]
"""For each way in which a package could say something: the paths in `data` that it needs."""

_STRICT: Final = ("Expr", "SomeIn")
"""Statements that fail when something in them is undefined. `not` and `every` do not."""

_NOT_DATA: Final = ("policies", "countersign", "applies_to")


def find_needs(modules: Iterable[Module], sets: Collection[str]) -> Needs:
    """Return what a package of these modules needs to speak; `()` where that cannot be told.

    `sets` are the rules that speak. Functions do nothing by themselves; any other rule may fail,
    and then its package has something to say.
    """
    found: list[frozenset[Path]] = []
    for module in modules:
        if any(rule.name not in sets and rule.kind != "function" for rule in module.rules):
            return ()
        for rule in module.tree:
            found += [frozenset(_first(body)) for body in _bodies(rule["Spec"])]
    return tuple(found) if all(found) else ()


def is_silent(needs: Needs, data: Mapping[str, Any]) -> bool:
    """Whether a package with these needs can say nothing over this data."""
    return bool(needs) and all(any(_lacks(data, path) for path in paths) for paths in needs)


def _bodies(rule: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the statements of each body of a rule; an empty one for a rule without a body."""
    if "Func" in rule["head"]:
        return []
    return [body["query"]["stmts"] for body in rule["bodies"]] or [[]]


def _first(statements: list[dict[str, Any]]) -> Iterator[Path]:
    """Yield the documents without which a body ends at its first statement."""
    for statement in statements[:1]:
        literal = statement["literal"]
        if statement.get("with_mods") or next(iter(literal)) not in _STRICT:
            return
        for path in find_references(literal):
            if path[0] == "data" and len(path) > 1 and path[1] not in _NOT_DATA:
                yield path[1:]


def _lacks(data: object, path: Path) -> bool:
    """Whether nothing is at a path. Below an index that is known only later, something may be."""
    for part in path:
        if part == "":
            return False
        if not isinstance(data, Mapping) or part not in data:
            return True
        data = data[part]
    return False
