"""Runs that are over: when they end for good, and when what they spent is let go of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.adapters.state.sql_runs import SqlRuns
from gateway.core.calls.ledger import Ledger
from gateway.core.tokens.ended_runs import EndedRuns
from gateway.core.tokens.issuing import OWN_RUN_MAX_S

OVER_S: Final = 900
"""How long a run must be over before what it spent is forgotten: longer than any call takes."""

_SILENT_S: Final = OWN_RUN_MAX_S + 3_600
"""A run that the state does not have comes back only where its id follows from what it is for. It
lives no longer than this, so then what it spent counts no more."""


class Forgetting:
    """Keeps what is known of runs to those of which something may still come."""

    def __init__(self, ledger: Ledger, runs: SqlRuns, now_s: Callable[[], int]) -> None:
        self.ended: Final = EndedRuns()
        self._ledger = ledger
        self._runs = runs
        self._now_s = now_s
        self._pruned_s = 0

    async def begin(self, on_record: Iterable[str]) -> None:
        """Learn which runs have ended. `on_record`: those of which the log says so.

        A state put back from a backup does not know them: what was ended stays ended.
        """
        await self._look_back(self._now_s() - OVER_S)
        self.ended.add(on_record)

    async def forget_unknown(self) -> None:
        """Let go of what runs spent that are not in the state and have been silent for long.

        With a new state the log tells of all runs that there ever were, and no run that is over
        would ever be found for them.
        """
        silent = self._ledger.find_silent(self._now_s() - _SILENT_S)
        if silent:
            known = await self._runs.find_known(silent)
            self._ledger.forget(name for name in silent if name not in known)

    async def tidy(self) -> None:
        """Let go of runs that have been over for a while.

        INVARIANT: a run whose spending is forgotten is ended for good, before it is forgotten; a
        clock that jumps ahead and back would otherwise hand a live run its whole budget again.
        """
        now_s = self._now_s()
        until_s = now_s - OVER_S
        if self.ended.is_ahead_of(now_s):
            await self._look_back(until_s)
            self._pruned_s = until_s
        over = await self._runs.end_over(self._pruned_s, until_s)
        self._pruned_s = max(self._pruned_s, until_s)
        self.ended.let_go(over, until_s)
        self._ledger.forget(over)

    async def _look_back(self, over_s: int) -> None:
        self.ended.go_back(await self._runs.find_ended(over_s - 1), over_s)
