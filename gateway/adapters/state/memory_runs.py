"""Runs in memory: the twin of `SqlRuns`."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.core.errors import CountersignError
from gateway.core.tokens.token import Run


class MemoryRuns:
    """Runs that are gone when the process is. Promises as `SqlRuns`."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    async def create_run(self, run: Run) -> None:
        """Store a new run. Raises `CountersignError` `run_exists` where there is one of its id."""
        if run.id in self._runs:
            raise CountersignError(f"there is a run `{run.id}` already", code="run_exists")
        self._runs[run.id] = run

    async def get_run(self, run_id: str) -> Run | None:
        """Return a run, ended or not."""
        return self._runs.get(run_id)

    async def end_run(self, run_id: str, outcome: str = "") -> None:
        """End a run. Ending it again, or one that never was, changes nothing."""
        run = self._runs.get(run_id)
        if run is not None and not run.ended:
            self._runs[run_id] = replace(run, ended=True, outcome=outcome)

    async def find_runs(
        self,
        *,
        now_s: int,
        live: bool = True,
        agent: str = "",
        launcher: str = "",
        limit: int = 100,
    ) -> list[Run]:
        """Return runs, newest first; with `live` only those that have not ended."""
        found = [
            run
            for run in self._runs.values()
            if agent in {"", run.agent}
            and launcher in {"", run.launcher}
            and not (live and (run.ended or run.deadline <= now_s))
        ]
        return sorted(found, key=lambda run: (run.created_at, run.id), reverse=True)[:limit]

    async def end_over(self, since_s: int, until_s: int) -> list[str]:
        """End the runs with `since_s` <= deadline < `until_s`; return their ids."""
        over = [run.id for run in self._runs.values() if since_s <= run.deadline < until_s]
        for run_id in over:
            await self.end_run(run_id)
        return over

    async def find_ended(self, now_s: int) -> list[str]:
        """Return the ids of ended runs whose deadline is not past: their tokens may still live."""
        return [run.id for run in self._runs.values() if run.ended and run.deadline > now_s]
