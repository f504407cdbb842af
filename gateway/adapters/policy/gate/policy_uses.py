"""Values that a rule has because a limit in it is silent, and what those who use it ask for.

`lvl := "high" if { is_number(x); x > 100 } else := "low"` is `"low"` for every text. Whoever then
asks for `lvl == "low"` lets it pass, as `not over` would; whoever asks for `"high"` does not.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.policy.gate.policy_made import TRUSTED, Checks, Key, Value, narrowed, widened
from gateway.adapters.policy.policy_syntax import REFERENCES, Node, is_literal, unwrap

Word = tuple[str, Any]
"""A value that is written out: its type and itself."""
TRUE: Final[Word] = ("Bool", True)
FALSE: Final[Word] = ("Bool", False)
UNDEFINED: Final[Word] = ("", None)
_ALIKE: Final = {"RawString": "String", "True": "Bool", "False": "Bool"}
_TURNED: Final = {"Lt": "Gt", "Gt": "Lt", "Le": "Ge", "Ge": "Le"}
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "Lt": operator.lt,
    "Le": operator.le,
    "Gt": operator.gt,
    "Ge": operator.ge,
}
_OF_MEMBERS: Final = frozenset({"below", "member", "few", "more"})
_FORMATS: Final = frozenset({"sprintf", "concat"})


class Slip(Struct, frozen=True):
    """What a rule is `instead`, where values at these keys are of another type than its limit."""

    limited: Word | None
    """What it would be if the limit spoke; None for what is not written out."""
    instead: Word | None
    keys: Checks


class Summary(Struct, frozen=True):
    """What a rule or function is to those who use it. A parameter's key is `("%0",)`."""

    value: Value = TRUSTED
    alias: Key | None = None
    """What a rule is another name of: `amount := input.context.args.amount`."""
    compared: frozenset[int] = frozenset()
    """Parameters that it compares, or makes a number of, and whose type it does not establish."""
    checked: frozenset[int] = frozenset()
    """Parameters that it compares after a check, by number: what was mixed before stays so."""
    shown: Checks = {}
    """What certainly is of these types where the rule is defined."""
    true: Checks = {}
    """The same where the rule is true."""
    needs: Checks = {}
    """Keys, those of members included, without whose types it is not defined or not true."""
    sure: Checks = {}
    """The same for it to be defined, were it false."""
    mute: Checks = {}
    """Keys that it limits, and of which it says nothing where they are of another type."""
    lax: Checks = {}
    """Keys that it limits, and which it lets pass where they are of another type."""
    speaks: tuple[tuple[Word | None, Checks], ...] = ()
    """Keys about which it speaks because they are of another type, and its value then."""
    slips: tuple[Slip, ...] = ()
    """What it is where a limit in it is silent. For a set or object of rules, see `lax`."""
    total: bool = False
    """Whether it has a value in any case."""
    partial: bool = False
    """Whether it has as many values as its bodies give."""


class Use(Struct, frozen=True):
    """What a statement asks of a value: an operator, and what that is compared to."""

    asks: str
    given: tuple[Word, ...] = ()

    def admits(self, word: Word | None) -> bool | None:
        """Whether the statement holds of a value; None where that cannot be told."""
        if word == UNDEFINED or self.asks == "defined":
            return word != UNDEFINED
        if word is None or self.asks in _OF_MEMBERS:
            return None
        if self.asks == "true":
            return word != FALSE
        if self.asks in {"Eq", "Ne"}:
            return (word in self.given) is (self.asks == "Eq")
        other = self.given[0]
        numbers = word[0] == other[0] == "Number"
        return _ORDERS[self.asks](word[1], other[1]) if numbers else None


HOLDS: Final = Use("true")
DEFINED: Final = Use("defined")
BELOW: Final = Use("below")
"""Something below it is asked for."""
MEMBER: Final = Use("member")
"""One of its members is asked for: fewer of them never let more pass."""
MORE: Final = Use("more")
"""Asks for members to be there."""
FEW: Final = Use("few")
"""Asks for none to be there."""


def asks_for_anything(number: Node) -> bool:
    """Whether a `count` that is compared to this asks whether anything is there: `> 0`, `>= 1`."""
    kind, body = unwrap(number)
    return kind == "Number" and body["value"] in {0, 1}


def word_of(node: Node) -> Word | None:
    """Return a value that is written out; None for any other."""
    if not is_literal(node):
        return None
    kind, body = unwrap(node)
    return _ALIKE.get(kind, kind), body["value"]


def silence_of(said: Summary, here: Use | None, known: list[Use]) -> tuple[Checks, Checks]:
    """Return keys for whose other types what asks `here` does not hold, and for which it does.

    `known` is what other statements ask, all of which have to hold.
    """
    # What a part of it is instead counts for a whole as well: `m.a := 1 if { … } else := 0`.
    passed = widened(_passing(said.slips, here, known))
    if not said.partial:
        heard = _heard(said, here)
        mute = {key: kinds for key, kinds in said.mute.items() if key not in heard}
        return widened([mute, *_stopped(said.slips, here)]), passed
    lax = widened([said.lax, passed])
    if here == FEW:
        return said.lax, widened([said.mute, passed])
    if here in {BELOW, MEMBER, MORE, HOLDS, DEFINED}:
        return said.mute, lax
    both = widened([said.mute, lax])
    return both, both


def spoken_of(said: Summary, uses: Iterable[Use | None]) -> dict[Key, int]:
    """Return keys because of whose other types what asks all this may hold."""
    asked = [use for use in uses if use]
    return narrowed(
        keys for word, keys in said.speaks if not any(use.admits(word) is False for use in asked)
    )


def _passing(slips: Iterable[Slip], here: Use | None, known: list[Use]) -> Iterator[Checks]:
    asked = [*known] if here is None else [here, *known]
    for slip in slips:
        rejected = any(use.admits(slip.instead) is False for use in asked)
        # Whoever lets pass what the limit gives as well does not limit.
        if not rejected and not (here and here.admits(slip.limited)):
            yield slip.keys


def _heard(said: Summary, here: Use | None) -> frozenset[Key]:
    """Return keys that it limits for whose other types what asks `here` certainly holds."""
    if here is None or not said.total:
        return frozenset()
    asked = {True: set[Key](), False: set[Key]()}
    for slip in said.slips:
        if slip.limited != UNDEFINED:
            asked[here.admits(slip.instead) is True] |= set(slip.keys)
    return frozenset(asked[True] - asked[False])


def _stopped(slips: Iterable[Slip], here: Use | None) -> Iterator[Checks]:
    for slip in slips:
        if slip.limited == UNDEFINED and here and here.admits(slip.instead) is False:
            yield slip.keys


def uses_in(expression: Node) -> Iterator[tuple[Node, Use]]:
    """Yield what a statement asks of the values in it, where it asks nothing else."""
    kind, body = unwrap(expression)
    if kind in REFERENCES or kind == "Call":
        yield expression, HOLDS
    elif kind == "Membership":
        yield from _listed(body)
    elif (kind, body.get("op")) == ("AssignExpr", "ColEq"):
        # The name that it gets is looked at where that is used.
        if unwrap(body["lhs"])[0] == "Var" and unwrap(body["rhs"])[0] in REFERENCES:
            yield body["lhs"], DEFINED
            yield body["rhs"], DEFINED
    elif kind in {"BoolExpr", "AssignExpr"}:
        yield from _compared(body["lhs"], body["op"], body["rhs"])
        yield from _compared(body["rhs"], _TURNED.get(body["op"], body["op"]), body["lhs"])


def _listed(body: Node) -> Iterator[tuple[Node, Use]]:
    yield body["collection"], MEMBER
    kind, listed = unwrap(body["collection"])
    if kind in {"Array", "Set"} and body["key"] is None:
        words = tuple(word for each in listed["items"] if (word := word_of(each)))
        if len(words) == len(listed["items"]):
            yield body["value"], Use("Eq", words)


def _compared(one: Node, sign: str, other: Node) -> Iterator[tuple[Node, Use]]:
    kind, body = unwrap(other)
    empty = kind in {"Array", "Set", "Object"} and not body.get("items", body.get("fields"))
    if empty and sign in {"Eq", "Ne"}:
        yield one, FEW if sign == "Eq" else MORE
    word = word_of(other)
    if word is None:
        return
    yield one, Use(sign, (word,))
    kind, body = unwrap(one)
    if kind == "Call" and unwrap(body["fcn"])[1].get("value") == "count" and word[0] == "Number":
        use = _size(sign, word[1])
        if use:
            yield body["params"][0], use


def _size(sign: str, number: float) -> Use | None:
    if sign in {"Gt", "Ge"} or (sign, number) == ("Ne", 0):
        return MORE
    return FEW if sign in {"Lt", "Le"} or (sign, number) == ("Eq", 0) else None


def given_in(head: Node) -> Iterator[Node]:
    """Yield what a value is put together of, where it is there whatever they are."""
    kind, body = unwrap(head)
    if kind in REFERENCES or kind == "Call":
        yield head
    if kind == "Call" and unwrap(body["fcn"])[1].get("value") in _FORMATS:
        body = {"items": body["params"]}
    for item in body.get("items", ()):
        yield from given_in(item)
    for field in body.get("fields", ()):
        yield from given_in(field[-1])
