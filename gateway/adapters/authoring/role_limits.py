"""Denies and holds that need a role of the caller: handing work on loses them.

An agent that receives authority has those roles that the giver and it both have. So a limit for
`contractor` is void for a helper that is none, and roles may permit, but never limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from gateway.adapters.authoring.policy_reach import (
    Names,
    Path,
    names_in_rule,
    path_of,
    plain_rules,
)
from gateway.adapters.policy.gate.policy_portable import mistake_at, written_name
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Package, Source
from gateway.adapters.policy.policy_syntax import (
    Alternative,
    Node,
    alternatives,
    head_of,
    parameters,
    pattern_names,
    unwrap,
)

ROLES: Final = ("input", "subject", "roles")
_LIMITS: Final = {"deny": "deny", "hold": "hold", "obligation": "obligation"}
_HINT: Final = (
    "limit everybody but those who have a role: `not staff`, where "
    '`staff if "staff" in input.subject.roles`'
)


class _Asked(Struct, frozen=True):
    """A rule that a limit asks. `holds`: it must be true. `passed`: which arguments are roles."""

    path: Path
    holds: bool
    passed: frozenset[int]
    limit: str


class _Written(Struct, frozen=True):
    source: Source
    rule: Node
    plain: Mapping[str, Node]


def find_role_limits(sources: Iterable[Source], packages: Mapping[str, Package]) -> list[Mistake]:
    """Return a warning for each role of the caller that a deny, hold or obligation needs.

    Phase `issue` is left out: who launches a run hands nothing on there.
    """
    rules = _rules(sources)
    waiting = [
        _Asked(path, holds=True, passed=frozenset(), limit=path[-1])
        for path in sorted(rules)
        if path[-1] in _LIMITS and not _is_of_launchers(packages.get(".".join(path[2:-1])))
    ]
    seen: set[_Asked] = set()
    told: dict[tuple[str, int, int], Mistake] = {}
    while waiting:
        asked = waiting.pop(0)
        if asked in seen:
            continue
        seen.add(asked)
        for written in rules.get(asked.path, ()):
            for found in _asks(written, asked):
                if isinstance(found, _Asked):
                    waiting.append(found)
                else:
                    told.setdefault((found.file, found.row, found.col), found)
    return [told[place] for place in sorted(told)]


def _rules(sources: Iterable[Source]) -> dict[Path, list[_Written]]:
    packages: dict[Path, list[Source]] = {}
    for source in sources:
        packages.setdefault(source.module.package, []).append(source)
    rules: dict[Path, list[_Written]] = {}
    for name, modules in packages.items():
        plain = plain_rules(modules)
        for source in modules:
            for rule in source.module.tree:
                path = ("data", *name, *written_name(head_of(rule)[1]["refr"]).split("."))
                rules.setdefault(path, []).append(_Written(source, rule, plain))
    return rules


def _is_of_launchers(package: Package | None) -> bool:
    return bool(package and package.scope and package.scope.phases == ("issue",))


def _asks(written: _Written, asked: _Asked) -> Iterator[_Asked | Mistake]:
    source, rule = written.source, written.rule
    text = source.text.encode()
    given = {
        name: ROLES
        for number, pattern in enumerate(parameters(rule))
        if number in asked.passed
        for name, _ in pattern_names(pattern, text)
    }
    names = names_in_rule(source, rule, written.plain, given)
    for each in alternatives(rule):
        if each.default or _is_false(each, asked) or _is_issue(each, names):
            continue
        for statement in each.statements:
            kind, body = unwrap(statement)
            holds = asked.holds != (kind == "NotExpr")
            expression = body["expr"] if kind in {"Expr", "NotExpr"} else statement
            roles = _roles_asked(expression, names)
            if holds and roles is not None:
                yield _warning(source, roles, asked.limit)
            called = _called(expression, names)
            if called is not None:
                yield _Asked(called[0], holds, called[1], asked.limit)


def _is_false(each: Alternative, asked: _Asked) -> bool:
    """Whether a helper says something else than yes there; what a set contains is no answer."""
    if asked.path[-1] in _LIMITS or not each.values:
        return False
    kind, body = unwrap(each.values[-1])
    return not (kind == "True" or (kind == "Bool" and body.get("value") is True))


def _is_issue(each: Alternative, names: Names) -> bool:
    for statement in each.statements:
        expression = statement.get("Expr", {}).get("expr", {})
        sides = _equal(expression)
        if any(path_of(side, names) == ("input", "phase") for side in sides) and any(
            unwrap(side)[1].get("value") == "issue" for side in sides
        ):
            return True
    return False


def _roles_asked(expression: Node, names: Names) -> Node | None:
    """Return where a statement asks for a role, if it does."""
    kind, body = unwrap(expression)
    if kind in {"Membership", "SomeIn"} and path_of(body["collection"], names) == ROLES:
        return expression if kind == "Membership" else body["collection"]
    for side in _equal(expression):
        if path_of(side, names) == (*ROLES, ""):
            return expression
    return None


def _equal(expression: Node) -> tuple[Node, ...]:
    kind, body = unwrap(expression) if expression else ("", {})
    equal = (kind == "BoolExpr" and body["op"] == "Eq") or (
        kind == "AssignExpr" and body["op"] == "Eq"
    )
    return (body["lhs"], body["rhs"]) if equal else ()


def _called(expression: Node, names: Names) -> tuple[Path, frozenset[int]] | None:
    """Return the rule that a statement is, and which of its arguments are the caller's roles."""
    kind, body = unwrap(expression)
    if kind == "Call":
        passed = (n for n, each in enumerate(body["params"]) if path_of(each, names) == ROLES)
        return _absolute(path_of(body["fcn"], names), names), frozenset(passed)
    if kind in {"Var", "RefDot"}:
        return _absolute(path_of(expression, names), names), frozenset()
    return None


def _absolute(path: Path, names: Names) -> Path:
    return path if path[0] in {"data", "input"} else ("data", *names.source.module.package, *path)


def _warning(source: Source, node: Node, limit: str) -> Mistake:
    text = (
        f"this {limit} needs a role of the caller, and an agent without it, to which the caller "
        "hands its authority on, is not limited"
    )
    told = mistake_at(source, node, "limit_by_role", text, _HINT)
    return Mistake(told.file, told.row, told.col, told.code, told.message, told.hint, "warning")
