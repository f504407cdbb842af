"""Whatever is planted among honest effects is found with its class, and nothing else is."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec import Struct

from gateway.core.reconcile.reconcile import Finding, Kind, compare, match
from gateway.core.reconcile.reconcile_rows import Effect
from tests.unit.reconcile.history import ENDINGS, SCOPE, History, effect

ARGUMENTS: Final = {"amount": 5, "to": "ann"}
ENDS: Final = (*ENDINGS, "refused", "refused_early", "held", "denied", "elsewhere", "approved")
MAY: Final = frozenset({"unread", "withheld", "unknown", "open"})
MUST: Final = frozenset({"ok", "approved"})
FORBIDDEN: Final[dict[str, Kind]] = {
    "error": "effect_despite_error",
    "not_sent": "effect_not_sent",
    "refused": "effect_despite_refusal",
    "refused_early": "effect_despite_refusal",
    "held": "effect_despite_refusal",
    "denied": "effect_despite_refusal",
    "elsewhere": "effect_without_intent",
}


class Story(Struct):
    """One call, whether the honest system of record has a row of it, and what was done to that.

    `edits` of a row: `amount`, `to`, `both`, and so on; `copies` of it were added.
    """

    ending: str
    effect: bool
    deleted: bool
    edit: str
    copies: int
    invented: int


stories = st.lists(
    st.builds(
        Story,
        ending=st.sampled_from(ENDS),
        effect=st.booleans(),
        deleted=st.booleans(),
        edit=st.sampled_from(["", "", "amount", "to", "both"]),
        copies=st.integers(0, 2),
        invented=st.integers(0, 2),
    ),
    max_size=12,
)


def write(history: History, op: str, ending: str) -> None:
    """Add the records of one call."""
    tool: dict[str, Any] = {"tool": {"id": "bank.pay"}}
    if ending in ENDINGS:
        history.call(op, ending)
    elif ending == "refused":
        history.add("call.refused", op, reason="policy_denied", **tool)
    elif ending == "refused_early":
        history.add("call.refused", op, reason="token_expired", stage="authenticate")
    elif ending == "elsewhere":
        history.call(op, tool="bank.look")
    else:
        history.add("approval.request", op, **tool).add("approval.vote", op, **tool)
        if ending == "denied":
            history.add("approval.deny", op, **tool)
        if ending == "approved":
            history.add("approval.grant", op, **tool).call(op)


class World:
    """The rows of the system of record, and what reconciling must find."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[str, str]]] = []
        self.expected: Counter[tuple[str, str, int]] = Counter()

    def tell(self, op: str, story: Story) -> None:
        """Let the honest effect come about, and then do to it what the story says."""
        honest = story.ending in MUST or (story.ending in MAY and story.effect)
        if not honest:
            if story.ending in FORBIDDEN:
                self._plant(op, FORBIDDEN[story.ending], story.copies)
        elif story.deleted:
            if story.ending in MUST:
                self.expected["intent_without_effect", op, 0] += 1
        else:
            self._keep(op, story)
        for number in range(story.invented):
            name = f"invented-{op}-{number}" if number else ""
            self._plant(name, "effect_without_intent", 1)

    def _plant(self, op: str, kind: Kind, times: int) -> None:
        for _ in range(times):
            self.rows.append((op, ("5", "ann")))
            self.expected[kind, op, 1] += 1

    def _keep(self, op: str, story: Story) -> None:
        amount = "6" if story.edit in {"amount", "both"} else "5"
        to = "eve" if story.edit in {"to", "both"} else "ann"
        self.rows.append((op, (amount, to)))
        self.rows += [(op, ("5", "ann"))] * story.copies
        if story.edit:
            self.expected["effect_differs", op, 1] += 1
        if story.copies:
            self.expected["effect_twice", op, story.copies + 1] += 1


def reconcile(history: History, effects: list[Effect]) -> list[Finding]:
    """Go the whole way, with arguments that are always the same."""
    matched = match(SCOPE, history.index({one.op for one in effects}), effects)
    differing = [compare(SCOPE, pair, ARGUMENTS) for pair in matched.pairs]
    return matched.findings + [one for one in differing if one is not None]


@pytest.mark.req("AUD-14")
@given(stories, st.randoms(use_true_random=False))
def test_what_is_found_is_what_was_planted(told: list[Story], random: Any) -> None:  # noqa: ANN401 - `random.Random`
    history, world, names = History(), World(), count()
    for story in told:
        op = f"op-{next(names)}"
        write(history, op, story.ending)
        world.tell(op, story)
    random.shuffle(world.rows)
    effects = [effect(n, op, values=values) for n, (op, values) in enumerate(world.rows, 1)]

    found = reconcile(history, effects)

    assert Counter((one.kind, one.op, len(one.rows)) for one in found) == world.expected
    event(f"planted: {min(world.expected.total(), 5)}")


@pytest.mark.req("AUD-14")
@given(stories)
def test_honest_effects_alone_give_no_finding(told: list[Story]) -> None:
    history, effects = History(), list[Effect]()
    for number, story in enumerate(told):
        write(history, f"op-{number}", story.ending)
        if story.ending in MUST or (story.ending in MAY and story.effect):
            effects.append(effect(number + 1, f"op-{number}"))
    assert reconcile(history, effects) == []


@given(stories, st.data())
def test_each_row_and_each_call_is_counted_once(told: list[Story], data: st.DataObject) -> None:
    history, world = History(), World()
    for number, story in enumerate(told):
        write(history, f"op-{number}", story.ending)
        world.tell(f"op-{number}", story)
    flags = st.sampled_from([None, 0])
    effects = [
        effect(n, op, values=values, ignored=data.draw(flags))
        for n, (op, values) in enumerate(world.rows, 1)
    ]
    matched = match(SCOPE, history.index({one.op for one in effects}), effects)
    counts = matched.counts
    contradicted = sum(len(one.rows) for one in matched.findings if one.kind != "effect_twice")
    left_out = sum(counts.ignored.values()) + counts.outside
    assert counts.rows == len(effects) == counts.explained + left_out + contradicted
    missing = sum(one.kind == "intent_without_effect" for one in matched.findings)
    assert counts.calls == (
        counts.calls_with_effect
        + counts.without_effect_rightly
        + counts.unresolved
        + counts.at_edge
        + counts.calls_outside
        + missing
    )
