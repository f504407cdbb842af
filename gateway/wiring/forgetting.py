"""What a start lets go of: runs that the log knows and the state does not."""

from __future__ import annotations

from typing import Final

from gateway.adapters.state.sql_runs import SqlRuns
from gateway.core.calls.ledger import Ledger
from gateway.core.ports import Clock
from gateway.core.tokens.issuing import OWN_RUN_MAX_S

_SILENT_S: Final = OWN_RUN_MAX_S + 3_600
"""A run that the state does not have comes back only where its id follows from what it is for. It
lives no longer than this, so then what it spent counts no more."""


async def forget_unknown(ledger: Ledger, runs: SqlRuns, clock: Clock) -> None:
    """Let go of what runs spent that are not in the state and have been silent for long.

    With a new state the log tells of all runs that there ever were, and no run that is over would
    ever be found for them.
    """
    silent = ledger.find_silent(clock.now_ns() // 1_000_000_000 - _SILENT_S)
    if silent:
        known = await runs.find_known(silent)
        ledger.forget(name for name in silent if name not in known)
