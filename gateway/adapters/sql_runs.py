"""Runs in the state database: `core.ports.RunStore`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.sql_store import SqlState, metadata
from gateway.core.errors import CountersignError
from gateway.core.token import Run

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


_WHOLE: Final = (_runs.c.body, _runs.c.ended, _runs.c.outcome)


class SqlRuns:
    """Durable runs."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

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
        query = sa.select(*_WHOLE).where(_runs.c.id == run_id)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        return None if row is None else _read(row)

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
        alive = sa.update(_runs).where(_runs.c.id == run_id, ~_runs.c.ended)
        change = alive.values(ended=True, outcome=outcome)
        await self._state.run(lambda connection: connection.execute(change).close())

    async def end_over(self, since_s: int, until_s: int) -> list[str]:
        """End the runs whose deadline lies in `since_s` <= deadline < `until_s`; return their ids.

        Durable, so that no clock that goes back can bring them to life again.
        """
        change = (
            sa.update(_runs)
            .where(_runs.c.deadline >= since_s, _runs.c.deadline < until_s)
            .values(ended=True)
            .returning(_runs.c.id)
        )
        return await self._state.run(lambda connection: list(connection.execute(change).scalars()))

    async def find_ended(self, now_s: int) -> list[str]:
        """Return the ids of ended runs whose deadline is not past: their tokens may still live."""
        query = sa.select(_runs.c.id).where(_runs.c.ended, _runs.c.deadline > now_s)
        return await self._state.run(lambda connection: list(connection.execute(query).scalars()))


def _read(row: Any) -> Run:  # noqa: ANN401 - a row of `_WHOLE`
    run = msgspec.json.decode(row.body, type=Run)
    return msgspec.structs.replace(run, ended=row.ended, outcome=row.outcome)
