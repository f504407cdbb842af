"""Runs of which no token is good any more, although some may not have expired."""

from __future__ import annotations

from collections.abc import Iterable


class EndedRuns:
    """The runs that ended before their deadlines, and how far all others are over.

    A run's id is let go once its deadline has passed. INVARIANT: no token outlives the deadline of
    its run, so what was let go is refused by its time; also if the clock was set back since.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._over_s = 0

    def add(self, run_ids: Iterable[str]) -> None:
        """Take runs that have ended."""
        self._ids.update(run_ids)

    def bars(self, run_id: str, expires_at: int) -> bool:
        """Whether a token of this run, good until `expires_at`, must not be taken."""
        return run_id in self._ids or expires_at < self._over_s

    def let_go(self, run_ids: Iterable[str], over_s: int) -> None:
        """Forget these runs: their deadlines lie before `over_s`, as do all that were let go."""
        self._over_s = over_s
        self._ids.difference_update(run_ids)

    def is_ahead_of(self, now_s: int) -> bool:
        """Whether the clock shows a time at which runs that were let go had not ended."""
        return now_s < self._over_s

    def go_back(self, run_ids: Iterable[str]) -> None:
        """Take the runs that had ended, as the clock is now; their ids count again."""
        self._ids.update(run_ids)
        self._over_s = 0
