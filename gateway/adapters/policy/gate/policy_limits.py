"""Finds denials and holds that say nothing of a value of another type, where nothing else does.

`deny … if { is_number(x); x > 100 }` is silent where x is a text: the check that makes the
comparison sound takes the limit away. So somebody has to speak then: a deny or hold that stands on
the check having failed, or every permit of the package by needing the same check. The other way
round, a permit that stands on `not over`, where `over` needs a number, lets everything else pass.
So does one that asks for what is left then: `count(objections) == 0`, an `else`, a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.gate.policy_checks import ELSEWHERE
from gateway.adapters.policy.gate.policy_comparisons import Body
from gateway.adapters.policy.gate.policy_kinds import CHECKS, COLLECTION
from gateway.adapters.policy.gate.policy_made import (
    UNNAMED,
    Checks,
    Key,
    common,
    covers,
    narrowed,
    widened,
)
from gateway.adapters.policy.gate.policy_rules import Name
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_syntax import Node, place

_SAID: Final = (("input", "context", "args"), ("input", "context", "result"))
"""What agents and tools say. What is claimed beside only tightens, and may be left out anyway."""
_LIMITING: Final = ("deny", "hold")


class Limits(Struct, frozen=True):
    """One body of a rule that gives a decision: its package and set, and where it stands."""

    name: Name
    path: str
    body: Body
    span: Node


def find_silenced(limits: Iterable[Limits]) -> Iterator[Mistake]:
    """Yield the limits that are none for a value of another type."""
    packages: dict[tuple[str, ...], list[Limits]] = {}
    for each in limits:
        packages.setdefault(each.name[0], []).append(each)
    for rules in packages.values():
        yield from _of_package(rules)


def _of_package(rules: list[Limits]) -> Iterator[Mistake]:
    told = [each for each in rules if each.name[1] in _LIMITING]
    permits = [each for each in rules if each.name[1] == "permit"]
    spoken = narrowed(each.body.speaks for each in told)
    # Who speaks where no arguments are says nothing of a call.
    in_calls = narrowed(each.body.speaks for each in told if not _is_elsewhere(each))
    limited = widened(each.body.mute for each in told)
    concerned = [each.body.needs for each in permits if not _is_elsewhere(each)]
    needed = common(concerned)
    for each in told:
        unheard = {
            key: limited[key]
            for key in each.body.mute
            if not covers(in_calls if _is_of_calls(each, key) else spoken, key, limited[key])
            and not covers(needed, key, limited[key])
        }
        yield from _mistakes(each, unheard)
    for each in permits:
        unheard = {
            key: kinds
            for key, kinds in each.body.lax.items()
            if not covers(in_calls if _is_of_calls(each, key) else spoken, key, kinds)
        }
        yield from _mistakes(each, unheard)


def _mistakes(limit: Limits, unheard: Checks) -> Iterator[Mistake]:
    for key, kinds in sorted(unheard.items()):
        # Whoever speaks of every member speaks of what is no list, too.
        below = any(each[: len(key) + 1] == (*key, "[") for each in unheard)
        if _is_said(key) and not below:
            yield _mistake(limit, key, kinds)


def _is_elsewhere(limit: Limits) -> bool:
    return ELSEWHERE in limit.body.needs


def _is_of_calls(limit: Limits, key: Key) -> bool:
    """Whether this limits an argument, in phases that have arguments."""
    return key[:3] == _SAID[0] and not _is_elsewhere(limit)


def _is_said(key: Key) -> bool:
    """Whether this is what agents or tools say."""
    return key[:3] in _SAID or key[0] in {"%call", "data"}


def _mistake(limit: Limits, key: Key, kinds: int) -> Mistake:
    what, name = limit.name[1], _readable(key)
    row, col = place(limit.body.text, limit.span)
    silent = (
        f"this {what} is silent where {name} is of another type, so the limit is not applied"
        if what in _LIMITING
        else f"this permit lets {name} pass where it is of another type: its limit is silent then"
    )
    return Mistake(limit.path, row, col, "limit_silenced", silent, _hint(key, kinds))


def _readable(key: Key) -> str:
    if key == UNNAMED:
        return "what it limits"
    if key[0] == "%call":
        return f"`{key[1]}`"
    text = ".".join(key).replace(".[", "[_]")
    return f"`{text}`"


def _hint(key: Key, kinds: int) -> str:
    checks = [name for (name,), kind in CHECKS.items() if kinds & kind]
    asked = checks[0] if len(checks) == 1 or kinds == COLLECTION else "is_number"
    if key[0] == "%call" or key[0] == "data":
        check, name = "…", "known"
    elif key[-1] == "[":
        path = ".".join(key[:-1])
        check, name = f"every x in {path} {{ {asked}(x) }}", "known"
    else:
        check, name = f"{asked}({'.'.join(key)})", "known"
    return (
        f'add `{name} if {check}` and `deny contains {{"code": "unclear"}} if not {name}`, '
        "or make every permit of the package need it"
    )
