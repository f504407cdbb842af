"""Held calls in the state database: `core.ports.ApprovalStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.approvals.approval import (
    EXPIRABLE,
    LIVE,
    ApprovalRequest,
    State,
    Vote,
    decide_vote,
    moved,
    person,
    resolved,
    seen_at,
)
from gateway.core.errors import ApprovalError
from gateway.core.limits import Limits
from gateway.core.ports import Clock, OutboxEvent
from gateway.core.records.approval_entries import expiry_event

_approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("op", sa.String, nullable=False, unique=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("agent", sa.String, nullable=False),
    sa.Column("run_id", sa.String, nullable=False),
    sa.Column("tool_id", sa.String, nullable=False),
    sa.Column("join_digest", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("claim_token", sa.String),
    sa.Column("lease_until", sa.BigInteger),
    sa.Column("outcome", sa.String),
    sa.Column("result", sa.LargeBinary),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("approvals_join", "agent", "run_id", "tool_id", "join_digest"),
    sa.Index("approvals_state", "state", "expires_at"),
)

_votes = sa.Table(
    "approval_votes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.ForeignKey("approvals.id"), nullable=False),
    sa.Column("person", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("request_id", "person"),
)

_outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String, unique=True, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

_MUTABLE: Final = (
    "state",
    "version",
    "updated_at",
    "claim_token",
    "lease_until",
    "outcome",
    "result",
)

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(ApprovalRequest).decode
_decode_vote = msgspec.msgpack.Decoder(Vote).decode
_decode_event = msgspec.msgpack.Decoder(OutboxEvent).decode


class SqlApprovals:
    """Durable held calls. `clock` tells what has expired when a request is read.

    `pending_max`: how many requests of one agent may wait at a time; more are refused, none is
    ever dropped.
    """

    def __init__(
        self,
        state: SqlState,
        *,
        clock: Clock,
        pending_max: int = Limits().pending_per_agent_max,
    ) -> None:
        self._state = state
        self._clock = clock
        self._pending_max = pending_max

    async def create(self, request: ApprovalRequest, event: OutboxEvent) -> ApprovalRequest:
        """Store a PENDING request with its event, or return the live one that it joins.

        Joined when the answer's id is not `request.id`; nothing is written then. Now is
        `request.created_at`. Raises `ApprovalError` `too_many_pending`.
        """
        return await self._state.run(lambda c: self._create(c, request, event))

    async def get(self, request_id: str) -> ApprovalRequest | None:
        """Return one request as it stands now: EXPIRED once its time is over, swept or not."""
        found = await self._state.run(lambda c: _load(c, request_id))
        return None if found is None else seen_at(found, self._now_s())

    async def get_by_op(self, op: str) -> ApprovalRequest | None:
        """Return the request that a call of this operation id became, as it stands now."""
        query = sa.select(_approvals).where(_approvals.c.op == op)
        found = await self._state.run(lambda c: _read(c, query))
        return seen_at(found[0], self._now_s()) if found else None

    async def find(
        self, *, states: Sequence[State] = (), after: str = "", limit: int = 100
    ) -> list[ApprovalRequest]:
        """Return requests as they stand now, oldest first; of all states unless told.

        `after`: only those behind the one of this id; none where there is no such request.
        """
        now_s = self._now_s()
        query = sa.select(_approvals).order_by(_approvals.c.created_at, _approvals.c.id)
        if states:
            query = query.where(sa.or_(*(_stands(state, now_s) for state in states)))
        if after:
            query = query.where(_is_behind(after))
        found = await self._state.run(lambda c: _read(c, query.limit(limit)))
        return [seen_at(request, now_s) for request in found]

    async def votes(self, request_id: str) -> list[Vote]:
        """Return the votes on a request in the order they came."""
        return await self._state.run(lambda c: _load_votes(c, request_id))

    async def vote(
        self, vote: Vote, now_s: int, events: Mapping[str, OutboxEvent]
    ) -> ApprovalRequest:
        """Count a vote, and move the state in the same transaction if it decides.

        `events` as `approval_entries.vote_events`: `VOTE` is written for every counted vote,
        `APPROVED` or `DENIED` when it leads there. The same vote again writes nothing. Raises
        `ApprovalError` as `approval.decide_vote`, and `approval_not_found`.
        """
        return await self._state.run(lambda c: _vote(c, vote, now_s, events))

    async def move(
        self,
        request_id: str,
        *,
        source: State,
        target: State,
        now_s: int,
        event: OutboxEvent | None,
        claim_token: str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> ApprovalRequest | None:
        """Compare-and-set `source` → `target`; None when the row was not in `source` any more.

        To CLAIMED, `claim_token` becomes the stored one; from CLAIMED and DISPATCHED it must equal
        it. `changes`: any of `approval.CHANGEABLE`. Raises `ApprovalError` as `approval.moved`.
        """

        def work(connection: Connection) -> ApprovalRequest | None:
            request = _load(connection, request_id)
            after = request and moved(
                request,
                source=source,
                target=target,
                now_s=now_s,
                claim_token=claim_token,
                changes=changes,
            )
            if not request or not after or not _swap(connection, request, after):
                return None
            _emit(connection, event)
            return after

        return await self._state.run(work)

    async def expire_due(self, now_s: int) -> list[ApprovalRequest]:
        """Move every request whose time is over to EXPIRED, each with its event; return them."""
        return await self._state.run(lambda c: _expire_due(c, now_s))

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in the order they were committed."""
        query = sa.select(_outbox.c.body).order_by(_outbox.c.seq).limit(limit)
        rows = await self._state.run(lambda c: c.execute(query).scalars().all())
        return [_decode_event(row) for row in rows]

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        query = sa.delete(_outbox).where(_outbox.c.event_id.in_(event_ids))
        await self._state.run(lambda c: c.execute(query).close())

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000

    def _create(
        self, connection: Connection, request: ApprovalRequest, event: OutboxEvent
    ) -> ApprovalRequest:
        if request.state != "PENDING":
            raise ApprovalError("a request starts `PENDING`", code="approval_illegal_move")
        now_s = request.created_at
        if live := _joined(connection, request, now_s):
            return live
        waiting = sa.select(sa.func.count()).where(
            _approvals.c.agent == request.agent, _stands("PENDING", now_s)
        )
        if connection.execute(waiting).scalar_one() >= self._pending_max:
            raise ApprovalError(
                f"`{request.agent}` has {self._pending_max} calls waiting for approval; "
                "decide or cancel some first",
                code="too_many_pending",
            )
        connection.execute(sa.insert(_approvals).values(**_row(request)))
        _emit(connection, event)
        return request


def _row(request: ApprovalRequest) -> dict[str, Any]:
    columns = [column.name for column in _approvals.c if column.name != "body"]
    return {name: getattr(request, name) for name in columns} | {"body": _encode(request)}


def _request(row: sa.Row[Any]) -> ApprovalRequest:
    fields = {name: row._mapping[name] for name in _MUTABLE}  # noqa: SLF001 - SQLAlchemy's public name
    return replace(_decode_request(row.body), **fields)


def _read(connection: Connection, query: sa.Select[Any]) -> list[ApprovalRequest]:
    return [_request(row) for row in connection.execute(query)]


def _load(connection: Connection, request_id: str) -> ApprovalRequest | None:
    found = _read(connection, sa.select(_approvals).where(_approvals.c.id == request_id))
    return found[0] if found else None


def _load_votes(connection: Connection, request_id: str) -> list[Vote]:
    query = sa.select(_votes.c.body).where(_votes.c.request_id == request_id).order_by(_votes.c.seq)
    return [_decode_vote(body) for body in connection.execute(query).scalars()]


def _stands(state: State, now_s: int) -> sa.ColumnElement[bool]:
    """Rows that stand in `state` at `now_s`: `approval.seen_at` as SQL."""
    if state in EXPIRABLE:
        return sa.and_(_approvals.c.state == state, _approvals.c.expires_at > now_s)
    if state == "EXPIRED":
        return sa.or_(_approvals.c.state == state, _is_due(now_s))
    return _approvals.c.state == state


def _is_behind(request_id: str) -> sa.ColumnElement[bool]:
    at, id_ = _approvals.c.created_at, _approvals.c.id
    placed = sa.select(at).where(id_ == request_id).scalar_subquery()
    return sa.or_(at > placed, sa.and_(at == placed, id_ > request_id))


def _is_due(now_s: int) -> sa.ColumnElement[bool]:
    return sa.and_(_approvals.c.state.in_(EXPIRABLE), _approvals.c.expires_at <= now_s)


def _joined(connection: Connection, request: ApprovalRequest, now_s: int) -> ApprovalRequest | None:
    query = sa.select(_approvals).where(
        _approvals.c.agent == request.agent,
        _approvals.c.run_id == request.run_id,
        _approvals.c.tool_id == request.tool_id,
        _approvals.c.join_digest == request.join_digest,
        sa.or_(*(_stands(state, now_s) for state in sorted(LIVE))),
    )
    found = _read(connection, query)
    return found[0] if found else None


def _vote(
    connection: Connection, vote: Vote, now_s: int, events: Mapping[str, OutboxEvent]
) -> ApprovalRequest:
    request = _load(connection, vote.request_id)
    if request is None:
        raise ApprovalError("there is no such request", code="approval_not_found")
    state = decide_vote(request, _load_votes(connection, vote.request_id), vote, now_s)
    if state is None:
        return seen_at(request, now_s)
    connection.execute(
        sa.insert(_votes).values(
            request_id=vote.request_id, person=person(vote.voter), body=_encode(vote)
        )
    )
    _emit(connection, events["VOTE"])
    after = resolved(request, state, now_s)
    if after is not request:
        _swap(connection, request, after)
        _emit(connection, events[state])
    return after


def _expire_due(connection: Connection, now_s: int) -> list[ApprovalRequest]:
    expired = []
    for request in _read(connection, sa.select(_approvals).where(_is_due(now_s))):
        after = moved(request, source=request.state, target="EXPIRED", now_s=now_s)
        if after and _swap(connection, request, after):
            _emit(connection, expiry_event(after))
            expired.append(after)
    return expired


def _swap(connection: Connection, before: ApprovalRequest, after: ApprovalRequest) -> bool:
    """Compare-and-set: whether the row was still exactly `before`, and is `after` now."""
    changed = connection.execute(
        sa.update(_approvals)
        .where(
            _approvals.c.id == before.id,
            _approvals.c.state == before.state,
            _approvals.c.version == before.version,
            _approvals.c.claim_token.is_not_distinct_from(before.claim_token),
        )
        .values(**{name: getattr(after, name) for name in _MUTABLE})
    )
    return changed.rowcount == 1


def _emit(connection: Connection, event: OutboxEvent | None) -> None:
    if event is not None:
        connection.execute(sa.insert(_outbox).values(event_id=event.event_id, body=_encode(event)))
