"""What built-in functions make of what they are given."""

from __future__ import annotations

from typing import Final

from gateway.adapters.policy.gate.policy_kinds import (
    ANSWERS,
    BOOLEAN,
    COUNTING,
    HANDING_ON,
    MEMBERS,
    MIXING,
    NUMBER,
    OPEN,
    SET,
    TEXT,
    UNPACKING,
    only,
)
from gateway.adapters.policy.gate.policy_made import (
    NOTHING,
    TRUSTED,
    UNKNOWN,
    Token,
    Value,
    is_raw,
    mixed,
    settled,
)

_OF_LISTS: Final = frozenset({"union", "intersection", "object.union_n", "graph.reachable_paths"})
"""Functions whose members are those of members."""


def answer(name: str, given: list[Value]) -> Value:
    """Return what a built-in function makes of these."""
    own = NOTHING.union(*(value.own for value in given))
    inner = NOTHING.union(*(value.inner for value in given))
    if name in UNPACKING:
        # What a policy's own data says is trusted; a text that is put together may say anything.
        tokens = settled(own | inner) | UNKNOWN.own
        return Value(tokens, tokens) if own or inner or given[0].kinds & TEXT else TRUSTED
    if name in HANDING_ON:
        return _handed_on(name, given, own, inner)
    if name == COUNTING:
        passed = mixed(own) | frozenset(each for each in inner if not is_raw(each))
    elif name in MIXING:
        passed = mixed(own | inner)
    else:
        passed = settled(own | inner)
    kind = ANSWERS.get(name, BOOLEAN)
    if kind in {NUMBER, TEXT, BOOLEAN}:
        return Value(passed, NOTHING, kind, 0)
    return Value(passed, passed, kind, MEMBERS.get(name, OPEN))


def _handed_on(
    name: str, given: list[Value], own: frozenset[Token], inner: frozenset[Token]
) -> Value:
    kind = HANDING_ON[name]
    if name == "object.keys":
        return Value(NOTHING, settled(inner), SET, TEXT)
    if name in {"walk", "json.patch"}:
        every = own | inner
        return Value(every if kind == OPEN else NOTHING, every, kind, OPEN)
    members = 0
    for value in given:
        members |= value.members
    # What is in a list of lists is a list: of its members' members nothing is known.
    return Value(NOTHING, inner, kind, OPEN if name in _OF_LISTS else only(members))
