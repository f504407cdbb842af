"""Reconciliation of a system of record's own export with the log (AUD-14). Pure.

::

    index = CallIndex(scope.tools, {effect.op for effect in effects})
    for record in log: index.feed(record)
    matched = match(scope, index.calls, effects)        # what happened outside the log, or did not
    for pair in matched.pairs: compare(scope, pair, arguments)   # what happened otherwise

INVARIANT: whatever the log cannot explain is a finding, and whatever is left out is counted. A row
that names an operation of these tools is judged, also one that a filter or the range leaves out: a
changed column takes no row out of sight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from msgspec import Struct, field

from gateway.core.reconcile.reconcile_calls import Call
from gateway.core.reconcile.reconcile_rows import Effect
from gateway.core.reconcile.reconcile_values import Field, differences

Kind = Literal[
    "effect_without_intent",
    "effect_despite_refusal",
    "effect_not_sent",
    "effect_despite_error",
    "effect_twice",
    "effect_differs",
    "intent_without_effect",
]

_DESPITE: Final[dict[str, tuple[Kind, str]]] = {
    "refused": ("effect_despite_refusal", "the call was refused"),
    "held": ("effect_despite_refusal", "the call was held and never sent"),
    "not_sent": ("effect_not_sent", "nothing was sent"),
    "error": ("effect_despite_error", "the tool answered that it failed"),
}


class Rules(Struct, frozen=True):
    """What holds for one tool. `many`: one call may leave several rows."""

    fields: tuple[Field, ...] = ()
    many: bool = False


class Scope(Struct, frozen=True, kw_only=True):
    """Which tools the export is of, and which time it covers: all, or [since, until) in µs.

    `skew_us`: how far the clocks of log and system of record may be apart.
    """

    tools: Mapping[str, Rules]
    since_us: int | None = None
    until_us: int | None = None
    skew_us: int = 0

    def holds(self, time_us: int) -> bool:
        """Whether a time is covered."""
        after = self.since_us is None or time_us >= self.since_us
        return after and (self.until_us is None or time_us < self.until_us)

    def holds_whole(self, call: Call) -> bool:
        """Whether a call's effect must be covered, whenever in the call it came about."""
        end_us = call.start_us if call.end_us is None else call.end_us
        return self.holds(call.start_us - self.skew_us) and self.holds(end_us + self.skew_us)

    def touches(self, call: Call) -> bool:
        """Whether a call's effect may be covered."""
        begun = self.until_us is None or call.start_us - self.skew_us < self.until_us
        if self.since_us is None or call.end_us is None:
            return begun
        return begun and call.end_us + self.skew_us >= self.since_us


class RowName(Struct, frozen=True, omit_defaults=True):
    """A row of the export: its number from 1, and what it calls itself."""

    row: int
    id: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """Something that export and log do not agree on. Holds no value of an argument.

    `seq`: the record of the call, if there is one. `fields`: pointers that differ.
    """

    kind: Kind
    why: str
    op: str
    tool: str | None = None
    seq: int | None = None
    rows: tuple[RowName, ...] = ()
    fields: tuple[str, ...] = ()


class Counts(Struct):
    """How many rows and calls were what. Every row and every call of the tools is in one count.

    `explained` rows belong to a call that was sent. `unresolved` calls may have had an effect and
    have none here; `at_edge` calls have none, and may have had it outside of the range.
    """

    rows: int = 0
    explained: int = 0
    ignored: dict[int, int] = field(default_factory=dict)
    outside: int = 0
    undated: int = 0
    calls: int = 0
    calls_with_effect: int = 0
    without_effect_rightly: int = 0
    unresolved: int = 0
    at_edge: int = 0
    calls_outside: int = 0


class Pair(Struct, frozen=True):
    """A row and the call that explains it, if its arguments do."""

    call: Call
    effect: Effect


class Matched(Struct, frozen=True):
    """The first answer: findings so far, and what is left to compare."""

    findings: list[Finding]
    pairs: list[Pair]
    counts: Counts


def match(scope: Scope, calls: Mapping[str, Call], effects: Iterable[Effect]) -> Matched:
    """Join rows and calls by operation id."""
    matched = Matched([], [], Counts())
    counts, grouped = matched.counts, dict[str, list[Effect]]()
    for effect in effects:
        counts.rows += 1
        counts.undated += effect.time_us is None
        call = calls.get(effect.op) if effect.op else None
        if _is_left_out(scope, call, effect, counts):
            continue
        answer = _judge(scope, call, effect)
        if isinstance(answer, Finding):
            matched.findings.append(answer)
        else:
            counts.explained += 1
            matched.pairs.append(answer)
            grouped.setdefault(answer.call.op, []).append(effect)
    matched.findings.extend(_repeated(scope, calls, grouped))
    matched.findings.extend(_missing(scope, calls, grouped.keys(), counts))
    return matched


def compare(scope: Scope, pair: Pair, arguments: Mapping[str, Any]) -> Finding | None:
    """Return how a row differs from its call's arguments, which are those that were approved."""
    found = differences(_rules(scope, pair.call).fields, pair.effect.values, arguments)
    if not found:
        return None
    return _about(pair.call, "effect_differs", "not what was called for", pair.effect, fields=found)


def needs_arguments(scope: Scope, pair: Pair) -> bool:
    """Whether the map says how to compare this call's arguments at all."""
    return bool(_rules(scope, pair.call).fields)


def _rules(scope: Scope, call: Call) -> Rules:
    return scope.tools[call.tool or ""]


def _is_left_out(scope: Scope, call: Call | None, effect: Effect, counts: Counts) -> bool:
    if call is not None and (call.tool is None or call.tool in scope.tools):
        return False
    if effect.ignored is not None:
        counts.ignored[effect.ignored] = counts.ignored.get(effect.ignored, 0) + 1
        return True
    if effect.time_us is not None and not scope.holds(effect.time_us):
        counts.outside += 1
        return True
    return False


def _judge(scope: Scope, call: Call | None, effect: Effect) -> Finding | Pair:
    if call is None:
        why = "the log knows no such operation" if effect.op else "it names no operation"
        return Finding(kind="effect_without_intent", why=why, op=effect.op, rows=(_name(effect),))
    despite = _DESPITE.get(call.state)
    if despite is not None:
        kind, why = despite
        return _about(call, kind, f"{why}: {call.reason}" if call.reason else why, effect)
    if call.tool not in scope.tools:
        why = f"the operation is a call of `{call.tool}`, which the map does not name"
        return _about(call, "effect_without_intent", why, effect)
    return Pair(call, effect)


def _repeated(
    scope: Scope, calls: Mapping[str, Call], grouped: Mapping[str, list[Effect]]
) -> Iterator[Finding]:
    for op, effects in grouped.items():
        if len(effects) > 1 and not _rules(scope, calls[op]).many:
            why = f"one call, {len(effects)} rows"
            yield _about(calls[op], "effect_twice", why, *effects)


def _missing(
    scope: Scope, calls: Mapping[str, Call], seen: Iterable[str], counts: Counts
) -> Iterator[Finding]:
    with_effect = frozenset(seen)
    for call in calls.values():
        if call.tool not in scope.tools:
            continue
        counts.calls += 1
        if call.op in with_effect:
            counts.calls_with_effect += 1
        elif call.state not in {"ok", "unknown"}:
            counts.without_effect_rightly += 1
        elif not scope.touches(call):
            counts.calls_outside += 1
        elif call.state == "unknown":
            counts.unresolved += 1
        elif not scope.holds_whole(call):
            counts.at_edge += 1
        else:
            yield _about(call, "intent_without_effect", "sent and answered, and not in the export")


def _about(
    call: Call, kind: Kind, why: str, *effects: Effect, fields: tuple[str, ...] = ()
) -> Finding:
    return Finding(
        kind=kind,
        why=why,
        op=call.op,
        tool=call.tool,
        seq=call.seq,
        rows=tuple(_name(effect) for effect in effects),
        fields=fields,
    )


def _name(effect: Effect) -> RowName:
    return RowName(effect.row, effect.id)
