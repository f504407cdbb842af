"""Grants: which tools a token reaches, with which arguments, and what it may hand on (DESIGN §4).

Of a list of grants exactly one speaks for a tool: the one that names it, or else the server's `*`
grant for what the tool does. A named grant shadows `*` altogether, so a limit on one tool is not
undone by a wide grant beside it. `find_ambiguity` refuses lists where two would speak.

`allowed_values` narrows further, whatever the grant says: `/to` holds for that argument of every
tool, `mail.send#/to` for that of one. Each value there, or each item of a list there, must be one
of the texts given. An argument that is absent has no value there; one that a *constraint* names
and that is absent breaks the constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.core.catalog import Tool
from gateway.core.pointer import MISSING, resolve, split
from gateway.core.token import Claims, Constraint, Grant

ANY_TOOL: Final = "*"
EFFECTS: Final = (
    "read",
    "create",
    "update",
    "delete",
    "external_send",
    "money",
    "privilege",
)
"""What a reviewed tool may do. `unreviewed` is not among them: it is never granted."""

_Scalar = str | int | float | bool


class CompiledGrants:
    """The grants of one token, ready for the call path. Keep it as long as the token is cached."""

    __slots__ = ("_allowed", "_broad", "_found", "_named")

    def __init__(self, claims: Claims) -> None:
        self._named = {(g.server, g.tool): g for g in claims.grants if g.tool != ANY_TOOL}
        self._broad = {key: g for g in claims.grants for key in _broad_keys(g)}
        self._found: dict[tuple[str, str], Grant | None] = {}
        self._allowed = [
            (*_split_key(key), frozenset(values)) for key, values in claims.allowed_values.items()
        ]

    def find(self, tool: Tool) -> Grant | None:
        """Return the grant that speaks for `tool`, one of the claims' own objects, or None."""
        key = (tool.id, tool.review.effect)
        try:
            return self._found[key]
        except KeyError:
            found = self._found[key] = self._search(tool.server, tool.name, tool.review.effect)
            return found

    def broken_constraint(
        self, grant: Grant, tool: Tool, arguments: Mapping[str, Any]
    ) -> str | None:
        """Return the pointer at which `arguments` leave what the token allows, or None.

        The value there is never told. Constraints of the grant come first, then allowed values.
        """
        broken = check_constraints(grant, arguments) if grant.constraints else None
        if broken is not None or not self._allowed:
            return broken
        for tool_id, pointer, allowed in self._allowed:
            if tool_id in ("", tool.id) and not _all_allowed(resolve(arguments, pointer), allowed):
                return pointer
        return None

    def _search(self, server: str, name: str, effect: str) -> Grant | None:
        named = self._named.get((server, name))
        if named is not None:
            return named if _covers_effect(named, effect) else None
        return self._broad.get((server, effect))


def find_grant(claims: Claims, tool: Tool) -> Grant | None:
    """Return the grant of `claims` that speaks for `tool`, or None. Slow; see `CompiledGrants`."""
    return CompiledGrants(claims).find(tool)


def check_constraints(grant: Grant, arguments: Mapping[str, Any]) -> str | None:
    """Return the pointer of the first constraint that `arguments` break, or None."""
    for pointer, constraint in grant.constraints.items():
        if not is_satisfied(constraint, resolve(arguments, pointer)):
            return pointer
    return None


def is_satisfied(constraint: Constraint, value: object) -> bool:
    """Whether `value` meets every member of `constraint`. `MISSING` meets none, not even `{}`.

    `true` and `false` are no numbers, 1 and 1.0 are one number, and `prefix` compares characters:
    it knows neither paths nor URLs, so `/srv/../etc` starts with `/srv/`.
    """
    if value is MISSING:
        return False
    if constraint.max is not None and not (_is_number(value) and value <= constraint.max):  # type: ignore[operator]
        return False
    if constraint.min is not None and not (_is_number(value) and value >= constraint.min):  # type: ignore[operator]
        return False
    if constraint.one_of is not None and not any(_same(value, one) for one in constraint.one_of):
        return False
    prefix = constraint.prefix
    return prefix is None or (isinstance(value, str) and value.startswith(prefix))


def is_implied(parent: Constraint, child: Constraint) -> bool:
    """Whether every value that meets `child` surely meets `parent`. What is not sure is False."""
    if child.one_of is not None:
        return all(is_satisfied(parent, one) for one in child.one_of if is_satisfied(child, one))
    if parent.one_of is not None:
        return False
    return (
        (parent.max is None or (child.max is not None and child.max <= parent.max))
        and (parent.min is None or (child.min is not None and child.min >= parent.min))
        and (
            parent.prefix is None
            or (child.prefix is not None and child.prefix.startswith(parent.prefix))
        )
    )


EffectOf = Callable[[str, str], str | None]
"""(server, tool) → what the reviewers say the tool does; None where they say nothing."""


def knows_nothing(_server: str, _tool: str) -> str | None:
    """Say of no tool what it does: each is then compared for every effect that it could have."""
    return None


def find_excess(
    parent: Sequence[Grant], child: Sequence[Grant], effect_of: EffectOf = knows_nothing
) -> str | None:
    """Say where `child` would allow what `parent` does not, or return None.

    Compared tool by tool: each tool that either list names, for what it does if `effect_of` knows
    and else for each effect; and any other tool of a server, for each effect. Whatever cannot be
    decided counts as excess.
    """
    for server, name, effect in _cases((*parent, *child), effect_of):
        wanted = _speaker(child, server, name, effect)
        if wanted is None:
            continue
        place = f"`{server}.{wanted.tool}` ({effect})"
        given = _speaker(parent, server, name, effect)
        if given is None:
            return f"{place} is not granted"
        if (excess := _excess_of(given, wanted)) is not None:
            return f"{place}: {excess}"
    return None


def find_ambiguity(grants: Sequence[Grant]) -> str | None:
    """Say which two grants would both speak for one tool, or return None."""
    seen: set[tuple[str, str]] = set()
    for grant in grants:
        named = grant.tool != ANY_TOOL
        keys = [(grant.server, f".{grant.tool}")] if named else _broad_keys(grant)
        for key in keys:
            if key in seen:
                return f"two grants speak for `{grant.server}.{grant.tool}`; join them"
            seen.add(key)
    return None


def find_fault(grant: Grant) -> str | None:
    """Say what about a grant has no clear meaning, or return None."""
    unknown = sorted(set(grant.effects) - set(EFFECTS))
    if unknown:
        return f"`{unknown[0][:32]}` is no effect; use {', '.join(EFFECTS)}"
    if grant.max_calls is not None and grant.max_calls < 0:
        return "`max_calls` is negative"
    for pointer, constraint in grant.constraints.items():
        if not is_pointer(pointer):
            return f"`{pointer[:64]}` is no JSON Pointer; start it with `/`"
        if any(isinstance(n, float) and n - n != 0 for n in _numbers(constraint)):
            return f"a number at `{pointer}` is not finite"
    return None


def find_value_fault(allowed_values: Mapping[str, Sequence[str]]) -> str | None:
    """Say which key of `allowed_values` leads nowhere, or return None."""
    for key in allowed_values:
        if not is_pointer(_split_key(key)[1]):
            return f"`{key[:64]}` is neither `/pointer` nor `server.tool#/pointer`"
    return None


def is_pointer(text: str) -> bool:
    """Whether `text` points into arguments (RFC 6901), not at all of them."""
    return text.startswith("/") and len(text) <= _POINTER_MAX_CHARS and bool(split(text))


_POINTER_MAX_CHARS: Final = 256


def _cases(grants: Sequence[Grant], effect_of: EffectOf) -> Iterator[tuple[str, str, str]]:
    """Every (server, tool, effect) at which two lists can differ; `*` stands for unnamed tools."""
    named = dict.fromkeys((grant.server, grant.tool) for grant in grants)
    others = dict.fromkeys((grant.server, ANY_TOOL) for grant in grants)
    for server, name in {**named, **others}:
        known = None if name == ANY_TOOL else effect_of(server, name)
        for effect in (known,) if known in EFFECTS else EFFECTS:
            yield server, name, effect


def _speaker(grants: Sequence[Grant], server: str, name: str, effect: str) -> Grant | None:
    broad: Grant | None = None
    for grant in grants:
        if grant.server != server:
            continue
        if grant.tool == name != ANY_TOOL:
            return grant if _covers_effect(grant, effect) else None
        if grant.tool == ANY_TOOL and _covers_effect(grant, effect):
            broad = broad or grant
    return broad


def _excess_of(given: Grant, wanted: Grant) -> str | None:
    limit = given.max_calls
    if limit is not None and (wanted.max_calls is None or wanted.max_calls > limit):
        return f"`max_calls` must be {limit} or less"
    for pointer, constraint in given.constraints.items():
        asked = wanted.constraints.get(pointer)
        if asked is None or not is_implied(constraint, asked):
            return f"the constraint at `{pointer}` must be at least as narrow as the launcher's"
    return None


def _broad_keys(grant: Grant) -> list[tuple[str, str]]:
    if grant.tool != ANY_TOOL:
        return []
    return [(grant.server, effect) for effect in EFFECTS if _covers_effect(grant, effect)]


def _covers_effect(grant: Grant, effect: str) -> bool:
    return effect in (grant.effects or EFFECTS)


def _split_key(key: str) -> tuple[str, str]:
    """`mail.send#/to` → (`mail.send`, `/to`); `/to` → (``, `/to`)."""
    if key.startswith("/"):
        return "", key
    tool_id, _, pointer = key.partition("#")
    return tool_id, pointer


def _all_allowed(value: object, allowed: frozenset[str]) -> bool:
    if value is MISSING:
        return True
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str) and item in allowed for item in items)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(value: object, one: _Scalar) -> bool:
    return isinstance(value, bool) == isinstance(one, bool) and value == one


def _numbers(constraint: Constraint) -> list[object]:
    return [constraint.max, constraint.min, *(constraint.one_of or ())]
