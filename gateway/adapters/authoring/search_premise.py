"""What must have come before in a run for a statement to be broken, and whether it ever had.

A search in which it never came says nothing of the statement: it was not put to the test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.adapters.authoring.search_runs import Moment
from gateway.core.catalog import Tool
from gateway.core.policy.statement import Condition, Document, Facts, Statement

_LABELS: Final = frozenset({"run.labels", "input./context/run/labels"})
_HAS: Final = re.compile(r"has\s+(.+)", re.DOTALL)


class Premise:
    """The conditions of one statement. `before`: for each label, the tools that may give it.

    `orphans`: labels that no manifest gives. A policy's `add_label` may, on a call of any tool.
    `is_reached`: whether some call met every condition, whatever became of it.
    """

    def __init__(
        self, statement: Statement, tools: Mapping[str, Tool], wanted: Sequence[str]
    ) -> None:
        """`wanted`: the tools that a call which breaks the statement can be of."""
        self.is_reached = False
        self._conditions: Final = statement.conditions
        self._wanted: Final = frozenset(wanted)
        self._held: Final[set[int]] = set()
        before: list[tuple[str, ...]] = []
        orphans: list[str] = []
        for label in filter(None, map(_label, statement.conditions)):
            givers = tuple(id_ for id_, tool in tools.items() if label in tool.review.labels)
            before.append(givers or tuple(tools))
            if not givers:
                orphans.append(label)
        self.before: Final = tuple(before)
        self.orphans: Final = tuple(orphans)

    def see(self, moment: Moment, document: Document, facts: Facts) -> None:
        """Take note of what holds of a call."""
        if self.is_reached or moment.tool not in self._wanted:
            return
        held = {
            number
            for number, condition in enumerate(self._conditions)
            if condition.holds(document, facts)
        }
        self._held.update(held)
        self.is_reached = len(held) == len(self._conditions)

    def unmet(self) -> tuple[str, ...]:
        """Return the conditions that held of no call that was tried."""
        return tuple(
            condition.said
            for number, condition in enumerate(self._conditions)
            if number not in self._held
        )


def _label(condition: Condition) -> str:
    found = _HAS.fullmatch(condition.right) if isinstance(condition.right, str) else None
    if found is None or condition.left not in _LABELS:
        return ""
    return found[1].strip().strip("\"'")
