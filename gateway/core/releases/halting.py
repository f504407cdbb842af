"""When a release that decides is taken back by itself: denials or errors jump.

Answers are counted in steps of ten seconds, so that a window costs the same at any rate.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from msgspec import Struct

STEP_S: Final = 10
Counted = Literal["permit", "hold", "deny", "error"]
KINDS: Final[tuple[Counted, ...]] = ("permit", "hold", "deny", "error")


class Limits(Struct, frozen=True, kw_only=True):
    """`window_s`: how long before and after is compared. `calls_min`: fewer say nothing.

    The rises are of shares: 0.2 is from 10 % to more than 30 %.
    """

    enabled: bool = True
    window_s: int = 600
    calls_min: int = 200
    denials_rise: float = 0.2
    errors_rise: float = 0.02


class Rates(Struct, frozen=True):
    """How many answers there were, and of which kind."""

    calls: int = 0
    denials: int = 0
    errors: int = 0

    def share(self, count: int) -> float:
        """Return the share of all calls; 0 where there were none."""
        return count / self.calls if self.calls else 0.0


class Window:
    """Counts of the last `window_s` seconds."""

    def __init__(self, window_s: int) -> None:
        self._steps: deque[tuple[int, dict[Counted, int]]] = deque()
        self._kept = max(window_s // STEP_S, 1)
        self._now: dict[Counted, int] = dict.fromkeys(KINDS, 0)

    def count(self, kind: Counted) -> None:
        """Count one answer. On the call path: one addition."""
        self._now[kind] += 1

    def turn(self, now_s: int) -> None:
        """Close the step at hand and forget what is older than the window."""
        self._steps.append((now_s, self._now))
        self._now = dict.fromkeys(KINDS, 0)
        while len(self._steps) > self._kept:
            self._steps.popleft()

    def rates(self) -> Rates:
        """Return the sums over the window."""
        total = dict.fromkeys(KINDS, 0)
        for counts in (*(step for _, step in self._steps), self._now):
            for kind in KINDS:
                total[kind] += counts[kind]
        return Rates(sum(total.values()), total["deny"], total["error"])


def find_jump(before: Rates, after: Rates, limits: Limits) -> str | None:
    """Say what jumped, or return None. Compares shares, each over enough calls."""
    if not limits.enabled or min(before.calls, after.calls) < limits.calls_min:
        return None
    for name, rise, old, new in (
        ("errors", limits.errors_rise, before.errors, after.errors),
        ("denials", limits.denials_rise, before.denials, after.denials),
    ):
        if after.share(new) > before.share(old) + rise:
            return name
    return None
