"""Runs in the state database: `core.ports.RunStore`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.errors import CountersignError
from gateway.core.tokens.token import Run

_runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("agent", sa.String, nullable=False),
    sa.Column("launcher", sa.String, nullable=False),
    sa.Column("deadline", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("runs_ended", "ended", "deadline"),
    sa.Index("runs_over", "deadline"),
)
"""`body` is the run as JSON, as it was created; `ended` and `outcome` change once."""


_KNOWN_MAX: Final = 4_096
_STEP: Final = 500
"""So many runs are ended, or looked for, in one transaction."""

_WHOLE: Final = (_runs.c.body, _runs.c.ended, _runs.c.outcome)


class SqlRuns:
    """Durable runs. One process writes them, so those that it asked for lately are remembered.

    INVARIANT: a run that has ended is never remembered as one that has not.
    """

    def __init__(self, state: SqlState) -> None:
        self._state = state
        self._known: dict[str, Run] = {}
        self._ending: set[str] = set()
        self._ends = 0

    async def create_run(self, run: Run) -> None:
        """Store a new run durably.

        Raises `CountersignError` `run_exists` where there is one of its id.
        """

        def work(connection: Connection) -> None:
            if connection.execute(sa.select(_runs.c.id).where(_runs.c.id == run.id)).first():
                raise CountersignError(f"there is a run `{run.id}` already", code="run_exists")
            connection.execute(
                sa.insert(_runs).values(
                    id=run.id,
                    agent=run.agent,
                    launcher=run.launcher,
                    deadline=run.deadline,
                    ended=run.ended,
                    outcome=run.outcome,
                    created_at=run.created_at,
                    body=msgspec.json.encode(run),
                )
            )

        await self._state.run(work)

    async def get_run(self, run_id: str) -> Run | None:
        """Return a run, ended or not."""
        if (known := self._known.get(run_id)) is not None:
            return known
        ends = self._ends
        query = sa.select(*_WHOLE).where(_runs.c.id == run_id)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        run = _read(row)
        if ends == self._ends and run_id not in self._ending:  # nor ended while it was read
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[run_id] = run
        return run

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
        query = sa.select(*_WHOLE).order_by(_runs.c.created_at.desc(), _runs.c.id.desc())
        if live:
            query = query.where(~_runs.c.ended, _runs.c.deadline > now_s)
        if agent:
            query = query.where(_runs.c.agent == agent)
        if launcher:
            query = query.where(_runs.c.launcher == launcher)
        rows = await self._state.run(lambda c: list(c.execute(query.limit(limit))))
        return [_read(row) for row in rows]

    async def end_run(self, run_id: str, outcome: str = "") -> None:
        """End a run. Ending it again, or one that never was, changes nothing."""
        self._ending.add(run_id)  # who waits for this may be cancelled before it is done
        self._forget()
        alive = sa.update(_runs).where(_runs.c.id == run_id, ~_runs.c.ended)
        change = alive.values(ended=True, outcome=outcome)
        await self._state.run(lambda connection: connection.execute(change).close())
        self._forget()
        self._ending.discard(run_id)

    async def end_over(self, since_s: int, until_s: int) -> list[str]:
        """End the runs whose deadline lies in `since_s` <= deadline < `until_s`; return their ids.

        Durable, so that no clock that goes back can bring them to life again. In steps, between
        which others are served: at a start, it is all runs that there ever were.
        """
        over: list[str] = []
        begin = sa.tuple_(_runs.c.deadline, _runs.c.id) >= sa.tuple_(since_s, "")
        while True:
            query = (
                sa.select(_runs.c.id, _runs.c.deadline, _runs.c.ended)
                .where(begin, _runs.c.deadline < until_s)
                .order_by(_runs.c.deadline, _runs.c.id)
                .limit(_STEP)
            )
            self._forget()
            rows = await self._state.run(partial(_end_these, query))
            self._forget()
            over += [row.id for row in rows]
            if len(rows) < _STEP:
                return over
            last = rows[-1]
            begin = sa.tuple_(_runs.c.deadline, _runs.c.id) > sa.tuple_(last.deadline, last.id)

    async def find_ended(self, now_s: int) -> list[str]:
        """Return the ids of ended runs whose deadline is not past: their tokens may still live."""
        query = sa.select(_runs.c.id).where(_runs.c.ended, _runs.c.deadline > now_s)
        return await self._state.run(lambda connection: list(connection.execute(query).scalars()))

    async def find_known(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of these ids that runs have. In steps, as `end_over`."""
        known: set[str] = set()
        for start in range(0, len(run_ids), _STEP):
            query = sa.select(_runs.c.id).where(_runs.c.id.in_(run_ids[start : start + _STEP]))
            known.update(await self._state.run(partial(_find_ids, query)))
        return known

    def _forget(self) -> None:
        self._known.clear()
        self._ends += 1


def _end_these(query: sa.Select[Any], connection: Connection) -> list[Any]:
    """End the runs that a query finds; return its rows."""
    rows = list(connection.execute(query))
    alive = [row.id for row in rows if not row.ended]
    if alive:
        connection.execute(sa.update(_runs).where(_runs.c.id.in_(alive)).values(ended=True))
    return rows


def _find_ids(query: sa.Select[Any], connection: Connection) -> Sequence[str]:
    return connection.execute(query).scalars().all()


def _read(row: Any) -> Run:  # noqa: ANN401 - a row of `_WHOLE`
    run = msgspec.json.decode(row.body, type=Run)
    return msgspec.structs.replace(run, ended=row.ended, outcome=row.outcome)
