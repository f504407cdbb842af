"""Members and proposals in the state database: `core.registry.RegistryStore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.people.registry import Body, Person, Proposal, Row, Stored
from gateway.core.ports import OutboxEvent
from gateway.core.tokens.clients import Agent, Launcher

_members = sa.Table(
    "registry_members",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary),
)
"""`body` is NULL for an entry of the configuration file."""

_proposals = sa.Table(
    "registry_proposals",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("member", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("asked_by", sa.String, nullable=False),
    sa.Column("asked_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("nonce", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary),
)

_outbox = sa.Table(
    "registry_outbox",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String, unique=True, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

_BODIES: Final[dict[str, type[Body]]] = {"agent": Agent, "client": Launcher, "human": Person}
_ASKED: Final = (
    "id",
    "action",
    "version",
    "asked_by",
    "asked_at",
    "expires_at",
    "nonce",
    "reason",
)
_encode_event: Final = msgspec.msgpack.Encoder().encode
_decode_event: Final = msgspec.msgpack.Decoder(OutboxEvent).decode


class SqlRegistry:
    """Durable members and proposals."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def load(self) -> Stored:
        """Return all that is kept, in the order of the ids."""
        members = sa.select(_members).order_by(_members.c.id)
        proposals = sa.select(_proposals).order_by(_proposals.c.id)

        def work(connection: Connection) -> Stored:
            return Stored(
                [_read_row(row.id, row) for row in connection.execute(members)],
                [_read_proposal(row) for row in connection.execute(proposals)],
            )

        return await self._state.run(work)

    async def commit(
        self,
        event: OutboxEvent,
        *,
        row: Row | None = None,
        proposal: Proposal | None = None,
        done: Sequence[str] = (),
    ) -> None:
        """Keep a member, keep a proposal, forget the proposals `done`, and emit the event."""

        def work(connection: Connection) -> None:
            if row is not None:
                connection.execute(sa.delete(_members).where(_members.c.id == row.id))
                connection.execute(sa.insert(_members).values(id=row.id, **_columns(row)))
            if proposal is not None:
                connection.execute(sa.insert(_proposals).values(**_proposal_columns(proposal)))
            if done:
                connection.execute(sa.delete(_proposals).where(_proposals.c.id.in_(done)))
            body = _encode_event(event)
            connection.execute(sa.insert(_outbox).values(event_id=event.event_id, body=body))

        await self._state.run(work)

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in the order they were committed."""
        query = sa.select(_outbox.c.body).order_by(_outbox.c.seq).limit(limit)
        rows = await self._state.run(lambda c: c.execute(query).scalars().all())
        return [_decode_event(row) for row in rows]

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        query = sa.delete(_outbox).where(_outbox.c.event_id.in_(event_ids))
        await self._state.run(lambda c: c.execute(query).close())


def _columns(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "state": row.state,
        "version": row.version,
        "changed_at": row.changed_at,
        "body": None if row.body is None else msgspec.json.encode(row.body),
    }


def _proposal_columns(proposal: Proposal) -> dict[str, Any]:
    after = _columns(proposal.after)
    return {
        "member": proposal.after.id,
        **{name: after[name] for name in ("kind", "state", "body")},
        **{name: getattr(proposal, name) for name in _ASKED},
    }


def _read_row(member_id: str, row: sa.Row[Any], changed_at: int | None = None) -> Row:
    return Row(
        id=member_id,
        kind=row.kind,
        state=row.state,
        version=row.version,
        changed_at=row.changed_at if changed_at is None else changed_at,
        body=None if row.body is None else msgspec.json.decode(row.body, type=_BODIES[row.kind]),
    )


def _read_proposal(row: sa.Row[Any]) -> Proposal:
    asked: dict[str, Any] = {name: row._mapping[name] for name in _ASKED}  # noqa: SLF001 - SQLAlchemy's public name
    after = msgspec.structs.replace(
        _read_row(row.member, row, row.asked_at), version=row.version + 1
    )
    return Proposal(after=after, **asked)
