"""Grants: which tools a token reaches, with which arguments, and what it may hand on (DESIGN §4).

Of a list of grants exactly one speaks for a tool: the one that names it, or else the server's `*`
grant for what the tool does. A named grant shadows `*` altogether, so a limit on one tool is not
undone by a wide grant beside it. `find_ambiguity` refuses lists where two would speak.

`allowed_values` narrows further, whatever the grant says: `/to` holds for that argument of every
tool, `mail.send#/to` for that of one. Each value there, or each item of a list there, must be one
of the texts given; `*` leads to each of a list, as in a manifest. An argument that is absent has no
value there; one that a *constraint* names and that is absent breaks the constraint. A grant's
`window` says when it may be used at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.core.catalog import Tool
from gateway.core.pointer import EACH, MISSING, reach, split, walk
from gateway.core.tokens.constraints import (
    Test,
    compile_constraint,
    find_constraint_fault,
    is_implied,
)
from gateway.core.tokens.token import Claims, Grant, Window
from gateway.core.tokens.window import find_window_fault, is_open, is_within

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

WINDOW: Final = "window"
"""What is told as broken when a call comes at another time; no JSON Pointer."""

_SHARED_MAX_CHARS: Final = 1_024
"""What is written longer is compiled for each token."""


class Bounds(Struct, frozen=True):
    """What one grant asks of a call, ready to be asked."""

    window: Window | None
    checks: tuple[tuple[str, tuple[str, ...], Test], ...]

    def broken(self, arguments: Mapping[str, Any], now_s: int) -> str | None:
        """Return the first that does not hold: `window`, or a pointer."""
        if self.window is not None and not is_open(self.window, now_s):
            return WINDOW
        for pointer, parts, holds in self.checks:
            if not holds(walk(arguments, parts)):
                return pointer
        return None


class CompiledGrants:
    """The grants of one token, ready for the call path. Keep it as long as the token is cached."""

    __slots__ = ("_allowed", "_bounds", "_broad", "_found", "_named")

    def __init__(self, claims: Claims, known: dict[str, Bounds] | None = None) -> None:
        """`known`: what was compiled for other tokens, by how it is written; is added to."""
        known = {} if known is None else known
        self._named = {(g.server, g.tool): g for g in claims.grants if g.tool != ANY_TOOL}
        self._broad = {key: g for g in claims.grants for key in _broad_keys(g)}
        self._found: dict[tuple[str, str], Grant | None] = {}
        # By identity, as grants have no hash; `claims.grants` are kept alive by the two above.
        self._bounds = {id(grant): _recall(grant, known) for grant in claims.grants}
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
        self, grant: Grant, tool: Tool, arguments: Mapping[str, Any], now_s: int
    ) -> str | None:
        """Return the pointer at which `arguments` leave what the token allows, or None.

        The value there is never told. Outside the grant's window the answer is `window`; then come
        its constraints, then allowed values. `now_s`: seconds since the epoch, read once per call.
        """
        bounds = self._bounds.get(id(grant)) or _compile(grant)
        broken = bounds.broken(arguments, now_s)
        if broken is not None or not self._allowed:
            return broken
        for tool_id, pointer, allowed in self._allowed:
            if tool_id in ("", tool.id) and not _lead_to(allowed, arguments, split(pointer)):
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


def check_constraints(grant: Grant, arguments: Mapping[str, Any], now_s: int) -> str | None:
    """Return `window` or the pointer of the first constraint that a call breaks, or None."""
    return _compile(grant).broken(arguments, now_s)


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
    compared: set[tuple[int, int]] = set()  # the same two meet again for every effect
    for server, name, effect in _cases((*parent, *child), effect_of):
        wanted = _speaker(child, server, name, effect)
        if wanted is None:
            continue
        place = f"`{server}.{wanted.tool}` ({effect})"
        given = _speaker(parent, server, name, effect)
        if given is None:
            return f"{place} is not granted"
        if (id(given), id(wanted)) in compared:
            continue
        if (excess := _excess_of(given, wanted)) is not None:
            return f"{place}: {excess}"
        compared.add((id(given), id(wanted)))
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
        if (fault := find_constraint_fault(constraint)) is not None:
            return f"at `{pointer}`: {fault}"
    return None if grant.window is None else find_window_fault(grant.window)


def find_value_fault(allowed_values: Mapping[str, Sequence[str]]) -> str | None:
    """Say which key of `allowed_values` leads nowhere, or return None."""
    for key in allowed_values:
        if not is_pointer(_split_key(key)[1]):
            return f"`{key[:64]}` is neither `/pointer` nor `server.tool#/pointer`"
    return None


def is_pointer(text: str) -> bool:
    """Whether `text` points into arguments (RFC 6901), not at all of them."""
    return len(text) <= _POINTER_MAX_CHARS and _POINTER.fullmatch(text) is not None


_POINTER_MAX_CHARS: Final = 256
_POINTER: Final = re.compile(r"/[^~]*+(?:~[01][^~]*+)*")


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
    if given.window is not None and (
        wanted.window is None or not is_within(given.window, wanted.window)
    ):
        return "`window` must lie within that of the grant it comes from"
    for pointer, constraint in given.constraints.items():
        asked = wanted.constraints.get(pointer)
        if asked is None or not is_implied(constraint, asked):
            return f"the constraint at `{pointer}` must be as narrow as the one it comes from"
    return None


def _recall(grant: Grant, known: dict[str, Bounds]) -> Bounds:
    """Compile a grant, or return what another one that is written alike was compiled to.

    The runs of one launcher carry the same grants. By how they are written, because `1 == True`.
    """
    key = repr((grant.window, grant.constraints))
    bounds = known.get(key)
    if bounds is None:
        bounds = _compile(grant)
        if len(key) <= _SHARED_MAX_CHARS:
            known[key] = bounds
    return bounds


def _compile(grant: Grant) -> Bounds:
    checks = [(p, split(p), compile_constraint(c)) for p, c in grant.constraints.items()]
    return Bounds(grant.window, tuple(checks))


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


def _lead_to(allowed: frozenset[str], arguments: object, parts: tuple[str, ...]) -> bool:
    """Whether everything that `parts` lead to is allowed."""
    found = MISSING if EACH in parts else walk(arguments, parts)
    if found is not MISSING:
        return _all_allowed(found, allowed)
    return all(_all_allowed(each, allowed) for each in reach(arguments, parts))


def _all_allowed(value: object, allowed: frozenset[str]) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str) and item in allowed for item in items)
