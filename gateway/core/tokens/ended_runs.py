"""Runs of which no token is good any more, although some may not have expired."""

from __future__ import annotations

from collections.abc import Iterable


class EndedRuns:
    """The runs that ended before their deadlines, and how far all others are over.

    A run's id is let go once its deadline has passed. INVARIANT: of each run that has ended the id
    is known, or its deadline lies before `over_s`; no token outlives the deadline of its run, so
    what was let go is refused by its time, whatever the clock is set to.
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
        """Forget these runs: all that are over before `over_s` have ended."""
        self._over_s = max(self._over_s, over_s)
        self._ids.difference_update(run_ids)

    def is_ahead_of(self, now_s: int) -> bool:
        """Whether the clock was set back to where tokens are refused by a time that is to come."""
        return now_s < self._over_s

    def go_back(self, run_ids: Iterable[str], over_s: int) -> None:
        """Take all that have ended of the runs whose deadlines do not lie before `over_s`."""
        self._ids.update(run_ids)
        self._over_s = over_s
