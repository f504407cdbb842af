"""Names that may be used once, in the state database: `core.ports.SpentNames`."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata

_spent = sa.Table(
    "spent_names",
    metadata,
    sa.Column("name", sa.LargeBinary, primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Index("spent_names_until", "until"),
)


class SqlSpent:
    """Durable: what was spent before a restart is spent after it."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def spend(self, name: bytes, until_s: int, now_s: int) -> bool:
        """Return True for the first who spends `name`, until after `until_s`."""

        def work(connection: Connection) -> bool:
            connection.execute(sa.delete(_spent).where(_spent.c.until < now_s))
            found = connection.execute(sa.select(_spent.c.until).where(_spent.c.name == name))
            if found.first() is not None:
                return False
            connection.execute(sa.insert(_spent).values(name=name, until=until_s))
            return True

        return await self._state.run(work)
