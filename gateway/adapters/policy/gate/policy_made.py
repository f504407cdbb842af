"""What a value of a policy is made of, as far as that matters to a limit.

A value is followed from where it enters (`input`, or a parameter) to where it is compared. What it
is made of is a set of tokens: `ANY` is what may be of any type, `MIXED` what a function, a default
or a filter has made of it (so that checking the outcome tells nothing), a number above stands for
a parameter, and a key for what was of any type until a check of that key stood beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.gate.policy_kinds import OPEN, SCALARS, TEXT, TEXTS, only

Key = tuple[str, ...]
"""Names a value within a body: a path below `input` or `data`, a local (`%x`), a parameter."""
Token = int | Key
ANY: Final = -1
MIXED: Final = -2
NOTHING: Final[frozenset[Token]] = frozenset()
Checks = Mapping[Key, int]
"""Types by key: those that a check lets through, and of no others."""
UNNAMED: Final[Key] = ("%call",)
"""Stands for the key of what has no name outside of its body."""
SHIPPED: Final[Key] = ("%library",)
"""The same in the library: what it then does is tested and told with it."""
_WAYS: Final = 4
"""A parameter is four numbers: itself, its members, and either of them mixed."""


def lasts(key: Key) -> bool:
    """Whether a key means the same outside its body: input, data, a parameter."""
    return key[0] in {"input", "data"} or key[0][1:].isdigit()


def plain(key: Key) -> Key:
    """Return a key with `[` for any index."""
    return tuple("[" if part[:1] == "[" else part for part in key)


def wild(key: Key) -> Key:
    """Return the path below the input of a key, with `""` for any index."""
    return tuple("" if part[:1] == "[" else part for part in key[1:])


class Value(Struct, frozen=True):
    """What a value may be made of (`own`), and what its members may be (`inner`); their types."""

    own: frozenset[Token] = NOTHING
    inner: frozenset[Token] = NOTHING
    kinds: int = OPEN
    members: int = OPEN


TRUSTED: Final = Value()
UNKNOWN: Final = Value(frozenset({ANY}), frozenset({ANY}))


def parameter(number: int) -> Value:
    """Return the value of a parameter. It adds no type of its own to what it is part of."""
    first = number * _WAYS
    return Value(frozenset({first}), frozenset({first + 1}), 0, 0)


def parts(token: int) -> tuple[int, bool, bool]:
    """Return of which parameter a number is, whether of its members, and whether mixed."""
    number, way = divmod(token, _WAYS)
    return number, bool(way & 1), bool(way & 2)


def is_raw(token: Token) -> bool:
    """Whether this may still be of any type."""
    return isinstance(token, int) and (token == ANY or (token >= 0 and not token & 2))


def raw_of(values: Iterable[Value]) -> frozenset[Token]:
    """Return what in these values and in their members may still be of any type."""
    return NOTHING.union(*(filter(is_raw, value.own | value.inner) for value in values))


def is_mixed(token: Token) -> bool:
    """Whether types can no longer be told from this."""
    return isinstance(token, int) and not is_raw(token)


def mixed(tokens: Iterable[Token]) -> frozenset[Token]:
    """Return what becomes of these in a function that takes several types."""
    return frozenset(_mixed(token) if is_raw(token) else token for token in tokens)


def _mixed(token: Token) -> Token:
    return MIXED if token == ANY or not isinstance(token, int) else token | 2


def settled(tokens: frozenset[Token]) -> frozenset[Token]:
    """Return what is left of these where any other type would have failed."""
    return frozenset(token for token in tokens if not is_raw(token)) if tokens else tokens


def member(value: Value) -> Value:
    """Return what a member of this is."""
    return Value(value.inner, value.inner, value.members, value.members)


def within(value: Value, around: frozenset[Key]) -> Value:
    """Return a value that is there only where what is called `around` has members."""
    return Value(value.own | around, value.inner, value.kinds, value.members) if around else value


def join(one: Value, other: Value) -> Value:
    """Return what is one or the other."""
    return Value(
        one.own | other.own,
        one.inner | other.inner,
        one.kinds | other.kinds,
        only(one.members | other.members),
    )


def hold(kind: int, values: Iterable[Value]) -> Value:
    """Return a list, object or set of these."""
    inner: frozenset[Token] = NOTHING
    kinds = 0
    for value in values:
        inner |= value.own | value.inner
        kinds |= value.kinds
    return Value(NOTHING, inner, kind, only(kinds))


def names(value: Value, key: Key | None) -> frozenset[Key]:
    """Return by which keys others know what is of any type in a value, called `key` outside."""
    raw = [token for token in value.own if isinstance(token, int) and is_raw(token)]
    if key is not None or not raw:
        return frozenset({key} if key is not None and raw else ())
    found = set()
    for token in raw:
        number, below, _ = parts(token) if token >= 0 else (ANY, False, False)
        here: Key = (f"%{number}", "[") if below else (f"%{number}",)
        found.add(UNNAMED if token == ANY else here)
    return frozenset(found)


def checked(value: Value, kinds: int, key: Key | None) -> Value:
    """Return a value that is of these types, because a check of `key` says so."""
    known = kinds | (TEXTS if kinds & TEXT else 0)
    own = settled(value.own) | names(value, key)
    if value.kinds and not value.kinds & (OPEN | known):
        # It never holds, so what stands here is always left out.
        own |= {MIXED}
    found = value.kinds & known if value.kinds & known and not value.kinds & OPEN else kinds
    if kinds & ~SCALARS:
        return Value(own, value.inner, found, value.members)
    return Value(own, NOTHING, found, 0)


def mixed_of(keys: Iterable[Token]) -> frozenset[Token]:
    """Return what values at these keys are where something else may stand in their place."""
    found: set[Token] = set()
    for key in keys:
        if isinstance(key, tuple) and key[0][1:].isdigit():
            first = int(key[0][1:]) * _WAYS
            found.add(first + (3 if len(key) > 1 else 2))
        else:
            found.add(MIXED)
    return frozenset(found)


def widened(found: Iterable[Checks]) -> dict[Key, int]:
    """Return every key with all types that one of these lets through."""
    every: dict[Key, int] = {}
    for each in found:
        for key, kinds in each.items():
            every[key] = every.get(key, 0) | kinds
    return every


def narrowed(found: Iterable[Checks]) -> dict[Key, int]:
    """Return every key with the types that all of these let through."""
    every: dict[Key, int] = {}
    for each in found:
        for key, kinds in each.items():
            every[key] = every.get(key, kinds) & kinds
    return every


def common(found: list[Checks]) -> dict[Key, int]:
    """Return the keys that all of these check, with all types that one lets through."""
    every = widened(found)
    return {key: kinds for key, kinds in every.items() if all(key in each for each in found)}


def covers(checks: Checks, key: Key, kinds: int) -> bool:
    """Whether a key is checked here, and nothing passes that is not of these types."""
    return key in checks and not checks[key] & ~(kinds | OPEN)
