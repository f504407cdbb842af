"""Legal holds in the state database: `core.holds.HoldStore`."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.row import Row

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.approvals.holds import Hold

_holds = sa.Table(
    "legal_holds",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("nonce", sa.String, nullable=False),
    sa.Column("asked_by", sa.String, nullable=False),
    sa.Column("asked_at", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
)
_FIELDS: Final = Hold.__struct_fields__


class SqlHolds:
    """Durable holds."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def put(self, hold: Hold) -> None:
        """Store a hold, in place of an earlier state of it."""
        values = {name: getattr(hold, name) for name in _FIELDS}

        def work(connection: Connection) -> None:
            connection.execute(sa.delete(_holds).where(_holds.c.id == hold.id))
            connection.execute(sa.insert(_holds).values(**values))

        await self._state.run(work)

    async def get(self, hold_id: str) -> Hold | None:
        """Return a hold as it was stored."""
        query = sa.select(_holds).where(_holds.c.id == hold_id)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        return None if row is None else _read(row)

    async def find(self) -> list[Hold]:
        """Return all holds in the order of their ids."""
        query = sa.select(_holds).order_by(_holds.c.id)
        rows = await self._state.run(lambda connection: connection.execute(query).all())
        return [_read(row) for row in rows]


def _read(row: Row[tuple[object, ...]]) -> Hold:
    return Hold(**row._asdict())
