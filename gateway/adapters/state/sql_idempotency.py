"""Idempotency-Keys in the state database: `core.ports.IdempotencyStore`."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.ports import StoredReply

KEEP_S: Final = 86_400
"""How long a finished reply is kept, in seconds. A key whose call never ended is kept for good."""

_PRUNED: Final = 100
"""So many replies that were kept long enough go with each key that comes: more than come, and few
enough that nobody waits for it after a quiet day."""

_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("scope", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("request_digest", sa.String, nullable=False),
    sa.Column("op", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("begun_at", sa.BigInteger, nullable=False),
    sa.Index("idempotency_keys_age", "state", "begun_at"),
)


class SqlIdempotency:
    """Durable Idempotency-Keys. `scope` is one agent and run: keys of others are not seen."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def begin(
        self, scope: str, key: str, request_digest: str, op: str, now_s: int
    ) -> StoredReply | None:
        """Claim `key` durably (None), or return what is stored under it already.

        The caller compares `request_digest`: another request under the same key is its error.
        """

        def work(connection: Connection) -> StoredReply | None:
            over = sa.and_(_keys.c.state == "done", _keys.c.begun_at <= now_s - KEEP_S)
            some = sa.select(_keys.c.scope, _keys.c.key).where(over).limit(_PRUNED)
            mine = sa.and_(*_is(scope, key), over)
            prune = sa.or_(mine, sa.tuple_(_keys.c.scope, _keys.c.key).in_(some))
            connection.execute(sa.delete(_keys).where(prune))
            row = connection.execute(sa.select(_keys).where(*_is(scope, key))).first()
            if row is not None:
                return StoredReply(
                    request_digest=row.request_digest,
                    op=row.op,
                    state=row.state,
                    status=row.status,
                    body=row.body,
                )
            connection.execute(
                sa.insert(_keys).values(
                    scope=scope,
                    key=key,
                    request_digest=request_digest,
                    op=op,
                    state="running",
                    status=0,
                    body=b"",
                    begun_at=now_s,
                )
            )
            return None

        return await self._state.run(work)

    async def forget(self, scope: str, key: str) -> None:
        """Give back a claimed key. One that has its reply stays."""
        change = sa.delete(_keys).where(*_is(scope, key), _keys.c.state == "running")
        await self._state.run(lambda c: c.execute(change).close())

    async def finish(self, scope: str, key: str, status: int, body: bytes) -> None:
        """Store the reply of a claimed key. The first reply stays."""
        change = (
            sa.update(_keys)
            .where(*_is(scope, key), _keys.c.state == "running")
            .values(state="done", status=status, body=body)
        )
        await self._state.run(lambda c: c.execute(change).close())


def _is(scope: str, key: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _keys.c.scope == scope, _keys.c.key == key
