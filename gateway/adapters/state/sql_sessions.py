"""Sessions and single-use tickets in the state database (ports in `core.sessions`)."""

from __future__ import annotations

from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.row import Row

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.approvals.sessions import Session, hash_of

_sessions = sa.Table(
    "human_sessions",
    metadata,
    sa.Column("id_hash", sa.String, primary_key=True),
    sa.Column("sid", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("person", sa.String, nullable=False, index=True),
    sa.Column("auth_time", sa.BigInteger, nullable=False),
    sa.Column("acr", sa.String, nullable=False),
    sa.Column("amr", sa.JSON, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("idle_s", sa.BigInteger, nullable=False),
)
_tickets = sa.Table(
    "sign_in_tickets",
    metadata,
    sa.Column("purpose", sa.String, primary_key=True),
    sa.Column("secret_hash", sa.String, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)
_FIELDS: Final = Session.__struct_fields__


class SqlSessions:
    """Durable sessions."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def put(self, session: Session) -> None:
        """Store a new session."""
        values = {name: getattr(session, name) for name in _FIELDS}
        values["amr"] = list(session.amr)
        await self._do(sa.insert(_sessions).values(**values))

    async def get(self, id_hash: str) -> Session | None:
        """Return a session, over or not."""
        query = sa.select(_sessions).where(_sessions.c.id_hash == id_hash)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        return None if row is None else _read(row)

    async def touch(self, id_hash: str, seen_at: int) -> None:
        """Note that a session was used. Its time of use never goes back."""
        change = sa.update(_sessions).where(
            _sessions.c.id_hash == id_hash, _sessions.c.seen_at < seen_at
        )
        await self._do(change.values(seen_at=seen_at))

    async def end(self, id_hash: str) -> None:
        """Forget a session."""
        await self._do(sa.delete(_sessions).where(_sessions.c.id_hash == id_hash))

    async def end_all(self, person: str, *, but: str = "", sid: str = "") -> int:
        """Forget somebody's sessions but the one of id hash `but`; only `sid` where given."""
        change = sa.delete(_sessions).where(
            _sessions.c.person == person, _sessions.c.id_hash != but
        )
        change = change.where(_sessions.c.sid == sid) if sid else change
        return await self._state.run(lambda connection: connection.execute(change).rowcount)

    async def find(self, person: str) -> list[Session]:
        """Return somebody's sessions, newest first."""
        query = (
            sa.select(_sessions)
            .where(_sessions.c.person == person)
            .order_by(_sessions.c.created_at.desc(), _sessions.c.sid)
        )
        rows = await self._state.run(lambda connection: connection.execute(query).all())
        return [_read(row) for row in rows]

    async def forget_over(self, now_s: int) -> None:
        """Forget every session that is over, by either of its times."""
        idle = _sessions.c.seen_at + _sessions.c.idle_s <= now_s
        await self._do(sa.delete(_sessions).where(sa.or_(_sessions.c.expires_at <= now_s, idle)))

    async def forget_all(self) -> int:
        """Forget everybody's sessions; return how many there were."""
        change = sa.delete(_sessions)
        return await self._state.run(lambda connection: connection.execute(change).rowcount)

    async def _do(self, change: sa.Insert | sa.Update | sa.Delete) -> None:
        await self._state.run(lambda connection: connection.execute(change).close())


class SqlTickets:
    """Durable tickets. The one thread of the state makes `take` and `swap` atomic."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def put(self, purpose: str, secret: str, body: bytes, expires_at: int) -> None:
        """Store a ticket."""
        row = {"purpose": purpose, "secret_hash": hash_of(secret), "body": body}
        change = sa.insert(_tickets).values(**row, expires_at=expires_at)
        await self._state.run(lambda connection: connection.execute(change).close())

    async def take(self, purpose: str, secret: str, now_s: int) -> bytes | None:
        """Use a ticket up: of all who ask, one gets its body."""
        is_it = _is(purpose, secret)
        query = sa.select(_tickets.c.body, _tickets.c.expires_at).where(is_it)

        def work(connection: Connection) -> bytes | None:
            row = connection.execute(query).first()
            connection.execute(sa.delete(_tickets).where(is_it))
            return row.body if row is not None and now_s < row.expires_at else None

        return await self._state.run(work)

    async def peek(self, purpose: str, secret: str, now_s: int) -> bytes | None:
        """Return a ticket's body and leave it."""
        query = sa.select(_tickets.c.body).where(
            _is(purpose, secret), _tickets.c.expires_at > now_s
        )
        return await self._state.run(lambda connection: connection.execute(query).scalar())

    async def swap(
        self, purpose: str, secret: str, *, before: bytes, after: bytes, now_s: int
    ) -> bool:
        """Replace a ticket's body if it is still `before`; say whether it was."""
        live = sa.and_(_is(purpose, secret), _tickets.c.expires_at > now_s)
        change = sa.update(_tickets).where(live, _tickets.c.body == before).values(body=after)
        return bool(await self._state.run(lambda connection: connection.execute(change).rowcount))

    async def count(self, purpose: str, now_s: int) -> int:
        """Return how many tickets of a purpose live."""
        query = (
            sa.select(sa.func.count())
            .select_from(_tickets)
            .where(_tickets.c.purpose == purpose, _tickets.c.expires_at > now_s)
        )
        found = await self._state.run(lambda connection: connection.execute(query).scalar())
        return found or 0

    async def drop(self, purpose: str) -> None:
        """Forget all tickets of a purpose."""
        change = sa.delete(_tickets).where(_tickets.c.purpose == purpose)
        await self._state.run(lambda connection: connection.execute(change).close())

    async def forget_all(self) -> int:
        """Forget every ticket, claims included; return how many there were."""
        change = sa.delete(_tickets)
        return await self._state.run(lambda connection: connection.execute(change).rowcount)

    async def forget_over(self, now_s: int) -> None:
        """Forget every ticket that is over."""
        change = sa.delete(_tickets).where(_tickets.c.expires_at <= now_s)
        await self._state.run(lambda connection: connection.execute(change).close())


def _is(purpose: str, secret: str) -> sa.ColumnElement[bool]:
    return sa.and_(_tickets.c.purpose == purpose, _tickets.c.secret_hash == hash_of(secret))


def _read(row: Row[tuple[object, ...]]) -> Session:
    return msgspec.convert({name: getattr(row, name) for name in _FIELDS}, Session)
