"""Finds limits that a value of the wrong type would pass.

Rego orders values of every type: null, then booleans, then numbers, texts, lists and objects. So
`input.context.args.amount <= 100` is true where the amount is null, and what was to be a limit lets
it through. A comparison is accepted where the rule itself establishes the types: `is_number(x)` in
the same body, a rule or function that says so, or a value that can be of one type only. What a
function made of any type is not: `to_number(null)` is 0. And a deny that stands on a check is none
for a value of another type (`policy_limits`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import structs

from gateway.adapters.policy.gate.input_types import InputTypes
from gateway.adapters.policy.gate.policy_checks import establish
from gateway.adapters.policy.gate.policy_comparisons import Body
from gateway.adapters.policy.gate.policy_kinds import BOOLEAN, OBJECT, SET
from gateway.adapters.policy.gate.policy_limits import Limits, find_silenced
from gateway.adapters.policy.gate.policy_made import (
    NOTHING,
    SHIPPED,
    TRUSTED,
    UNNAMED,
    Checks,
    Key,
    Token,
    Value,
    common,
    covers,
    hold,
    join,
    mixed_of,
    narrowed,
    widened,
)
from gateway.adapters.policy.gate.policy_rules import Definitions, Name
from gateway.adapters.policy.gate.policy_uses import UNDEFINED, Slip, Summary, word_of
from gateway.adapters.policy.gate.policy_values import Context
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import DECISION_SETS, LIBRARY, Source
from gateway.adapters.policy.policy_syntax import (
    Node,
    alternatives,
    head_of,
    indices,
    parameters,
    unwrap,
)

_LIBRARY: Final = LIBRARY[1:]


def find_unguarded(
    definitions: Definitions, types: InputTypes, told: Iterable[str]
) -> list[Mistake]:
    """Return the limits without a type in modules whose paths are `told`."""
    reader = _Reader(definitions, types, frozenset(told))
    for name in definitions.in_order(reader.told):
        reader.summarise(name)
    found = [*reader.found, *find_silenced(reader.limits)]
    return sorted(found, key=lambda each: (each.file, each.row, each.col))


class _Reader:
    """Reads rules, those first on which others stand."""

    def __init__(self, definitions: Definitions, types: InputTypes, told: frozenset[str]) -> None:
        self.found: list[Mistake] = []
        self.limits: list[Limits] = []
        self.told = told
        self._definitions = definitions
        self._types = types
        self._summaries: dict[Name, Summary] = {}
        self._contexts: dict[str, Context] = {}

    def summarise(self, name: Name) -> None:
        """Read every alternative of a rule; keep what the rule is to those who use it."""
        bodies: list[Body] = []
        kind, dotted = 0, False
        for source, rule in self._definitions.rules[name]:
            kind |= _partial(rule)
            dotted |= unwrap(head_of(rule)[1]["refr"])[0] != "Var"
            for alternative in alternatives(rule):
                body = Body(
                    self._context(source),
                    parameters(rule),
                    alternative,
                    counts=name[1] == "permit",
                )
                bodies.append(body)
                if source.path in self.told:
                    self.found += body.mistakes(source.path)
                    if name[1] in DECISION_SETS:
                        at = head_of(rule)[1]["span"]
                        self.limits.append(Limits(name, source.path, body, at))
        found = _summary(kind, bodies)
        if dotted and not kind:
            found = structs.replace(found, total=False, partial=True)
        self._summaries[name] = (
            _shipped(found) if name[0][: len(LIBRARY) - 1] == _LIBRARY else found
        )

    def _context(self, source: Source) -> Context:
        if source.path not in self._contexts:
            self._contexts[source.path] = Context(
                text=source.text.encode(),
                package=source.module.package,
                imports=source.module.imports,
                rules=self._definitions.names_in(source.module.package),
                types=self._types,
                find=self._find,
                establish=establish,
            )
        return self._contexts[source.path]

    def _find(self, key: Key) -> tuple[Summary, bool] | None:
        name = self._definitions.find(key)
        found = self._summaries.get(name) if name else None
        return (found, len(key) > len(name[0]) + 2) if found and name else None


def _partial(rule: Node) -> int:
    """Return the type of a rule that has as many values as its bodies give; 0 if it has one."""
    kind, head = head_of(rule)
    if kind == "Set":
        return SET
    return OBJECT if kind != "Func" and any(indices(head["refr"])) else 0


def _summary(partial: int, bodies: list[Body]) -> Summary:
    true = [body for body in bodies if not body.is_false()]
    return Summary(
        value=_of_members(partial, bodies) if partial else _of_one(bodies),
        alias=bodies[0].alias() if len(bodies) == 1 and not partial else None,
        compared=frozenset().union(*(body.compared for body in bodies)),
        checked=frozenset().union(*(body.checked for body in bodies)),
        shown={} if partial else common([body.lasting() for body in bodies]),
        true={} if partial else common([body.lasting() for body in true]),
        needs={} if partial else common([body.needs for body in true]),
        sure={} if partial else common([body.needs for body in bodies]),
        mute=_mute(bodies, partial),
        lax=widened(body.lax for body in bodies),
        speaks=tuple((body.word(), body.speaks) for body in bodies if body.speaks),
        slips=() if partial else tuple(_slips(bodies)),
        total=not partial and any(body.is_always() for body in bodies),
        partial=bool(partial),
    )


def _mute(bodies: list[Body], partial: int) -> dict[Key, int]:
    """Return what the bodies limit, but for what one speaks of that gives the same value."""
    found = []
    for word in {body.word() for body in bodies}:
        alike = [body for body in bodies if partial or body.word() == word]
        spoken = narrowed(body.speaks for body in alike)
        mute = widened(body.mute for body in alike)
        found.append({key: mute[key] for key in mute if not covers(spoken, key, mute[key])})
    return widened(found)


def _slips(bodies: list[Body]) -> Iterator[Slip]:
    """Yield what a rule is where a limit in one of its bodies is silent."""
    for number, body in enumerate(bodies):
        word = body.word()
        if body.lax:
            yield Slip(UNDEFINED, word, body.lax)
        before = [*bodies[:number], *(bodies[number + 1 :] if body.is_default else ())]
        told = narrowed(each.speaks for each in before if each.word() not in {None, word})
        for limit in bodies:
            limited = limit.word()
            if (
                limit.mute
                and (limited is None or limited != word)
                and _follows(body, limit, before)
            ):
                keys = {
                    key: kinds
                    for key, kinds in limit.mute.items()
                    if key not in body.needs and not covers(told, key, kinds)
                }
                yield Slip(limited, word, keys)


def _follows(body: Body, limit: Body, before: list[Body]) -> bool:
    """Whether a body gives the value because another one does not: an `else`, or a default.

    Where one says false and the other does not, they stand against each other in any order.
    """
    if body.is_default or body.rule is limit.rule:
        return body is not limit and any(each is limit for each in before)
    return limit.is_false() and not _apart(body.patterns, limit.patterns)


def _apart(one: list[Node], other: list[Node]) -> bool:
    """Whether no arguments fit both of these patterns."""
    words = zip(map(word_of, one), map(word_of, other), strict=False)
    return any(first and second and first != second for first, second in words)


def _shipped(summary: Summary) -> Summary:
    """Return what a rule of the library is: what has no name there is none of the author's."""

    def renamed(tokens: frozenset[Token]) -> frozenset[Token]:
        return tokens - {UNNAMED} | {SHIPPED} if UNNAMED in tokens else tokens

    value = summary.value
    return structs.replace(
        summary,
        value=structs.replace(value, own=renamed(value.own), inner=renamed(value.inner)),
        needs=_renamed(summary.needs),
        sure=_renamed(summary.sure),
        mute=_renamed(summary.mute),
        lax=_renamed(summary.lax),
        slips=tuple(structs.replace(each, keys=_renamed(each.keys)) for each in summary.slips),
        speaks=tuple((word, _renamed(keys)) for word, keys in summary.speaks),
    )


def _renamed(keys: Checks) -> Checks:
    return {SHIPPED if key == UNNAMED else key: kinds for key, kinds in keys.items()}


def _of_members(partial: int, bodies: list[Body]) -> Value:
    """Return what is in a set or object that rules fill. A check in one leaves something out."""
    found = hold(partial, [value for body in bodies for value in body.values()])
    left_out = NOTHING.union(*(body.left_out() for body in bodies))
    return Value(found.own, found.inner | left_out, found.kinds, found.members)


def _of_one(bodies: list[Body]) -> Value:
    """Return what a rule's value may be, one of those that its bodies give."""
    found: Value | None = None
    tokens: set[Token] = set()
    inner: set[Token] = set()
    for body in bodies:
        values = body.values()
        value = values[-1] if values else Value(kinds=BOOLEAN)
        found = value if found is None else join(found, value)
        tokens |= _replaceable(value.own, bodies)
        inner |= _replaceable(value.inner, bodies)
    if found is None:
        return TRUSTED
    own, inside = found.own | mixed_of(tokens), found.inner | mixed_of(inner)
    return Value(own, inside, found.kinds, found.members)


def _replaceable(tokens: Iterable[Token], bodies: list[Body]) -> set[Token]:
    """Return the keys in whose place something else is where their type is another one.

    That is what another body gives: `else := 0`, a default.
    """
    keys = {token for token in tokens if isinstance(token, tuple)}
    return {key for key in keys if any(key not in other.needs for other in bodies)}
