"""Kills in the state database: `core.kill.KillStore`, shared by every process that opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.kills.kill import Kill

_kills = sa.Table(
    "kills",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=True),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
)
_revision = sa.Table(
    "kills_revision",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
_ended = sa.Table(
    "kills_ended",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
)
_MANY: Final = 500
"""How many ids are named in one statement."""

_BOTH: Final = (_kills, _ended)
_FIELDS: Final = Kill.__struct_fields__


class SqlKills:
    """Durable kills."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def put(self, kill: Kill) -> int:
        """Store a kill; one of this id that is there already stays, one that was ended too."""
        values = {name: getattr(kill, name) for name in _FIELDS}

        def work(connection: Connection) -> int:
            queries = [sa.select(table.c.id).where(table.c.id == kill.id) for table in _BOTH]
            if not any(connection.execute(query).first() for query in queries):
                connection.execute(sa.insert(_kills).values(**values))
                _advance(connection)
            return _read_revision(connection)

        return await self._state.run(work)

    async def end(self, kill_ids: Sequence[str]) -> int:
        """Take kills away for good and remember that; ids that are not there are no error."""

        def work(connection: Connection) -> int:
            for kill_id in kill_ids:
                mark = sa.insert(_ended).prefix_with("OR IGNORE").values(id=kill_id)
                connection.execute(mark)
            return _delete(connection, kill_ids)

        return await self._state.run(work)

    async def drop(self, kill_ids: Sequence[str]) -> int:
        """Forget kills whose time is over as if they had never been."""
        return await self._state.run(lambda connection: _delete(connection, kill_ids))

    async def ended(self, kill_ids: Sequence[str]) -> set[str]:
        """Return those that were ended."""
        asked = set(kill_ids)

        def work(connection: Connection) -> set[str]:
            return asked.intersection(connection.execute(sa.select(_ended.c.id)).scalars())

        return await self._state.run(work)

    async def load(self, known: int | None) -> tuple[int, list[Kill]] | None:
        """Return all kills and their revision; None where it is still `known`."""

        def work(connection: Connection) -> tuple[int, list[Kill]] | None:
            revision = _read_revision(connection)
            if revision == known:
                return None
            rows = connection.execute(sa.select(_kills).order_by(_kills.c.at, _kills.c.id)).all()
            return revision, [Kill(**row._asdict()) for row in rows]

        return await self._state.run(work)


def _delete(connection: Connection, kill_ids: Sequence[str]) -> int:
    gone = 0
    for start in range(0, len(kill_ids), _MANY):
        some = kill_ids[start : start + _MANY]
        gone += connection.execute(sa.delete(_kills).where(_kills.c.id.in_(some))).rowcount
    if gone:
        _advance(connection)
    return _read_revision(connection)


def _read_revision(connection: Connection) -> int:
    return connection.execute(sa.select(_revision.c.revision)).scalar() or 0


def _advance(connection: Connection) -> None:
    """Raise the revision, in the transaction of the change."""
    bump = sa.update(_revision).values(revision=_revision.c.revision + 1)
    if connection.execute(bump).rowcount == 0:
        connection.execute(sa.insert(_revision).values(one=1, revision=1))
