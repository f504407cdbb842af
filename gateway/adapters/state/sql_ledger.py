"""Snapshot of what token families have spent, so that a start need not replay the whole log."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.calls.ledger import Changes, Ledger
from gateway.core.errors import CountersignError

_snapshot = sa.Table(
    "ledger_snapshot",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("chain_seq", sa.BigInteger, nullable=False),
)

_families = sa.Table(
    "ledger_families",
    metadata,
    sa.Column("family", sa.String, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)

_ROW: Final = 1


class Log(Protocol):
    """The log that a snapshot is of."""

    @property
    def size(self) -> int:
        """Records that are durable."""


class SqlLedger:
    """One snapshot, brought up to date by what has changed: most families rest.

    `chain_seq` is the number of log records that it reflects: the first record not yet counted.
    """

    def __init__(self, state: SqlState) -> None:
        self._state = state
        self._turn = asyncio.Lock()

    async def keep(self, ledger: Ledger, log: Log) -> None:
        """Bring the snapshot up to date. One after the other: each counts on the one before."""
        async with self._turn:
            changes = ledger.take_changes()
            try:
                await self.save(log.size, changes)
            except BaseException:  # also where it was cancelled: nobody knows whether it is kept
                ledger.untake(changes)
                raise

    async def save(self, chain_seq: int, changes: Changes) -> None:
        """Change these rows in one transaction; None takes one out. Values are JSON-like.

        Raises `CountersignError` `ledger_rewound` for a `chain_seq` below the stored one: what was
        spent would come back.
        """
        rows = [
            {"family": name, "body": msgspec.msgpack.encode(family)}
            for name, family in changes.items()
            if family is not None
        ]
        names = [{"name": name} for name in changes]
        await self._state.run(lambda c: _change(c, chain_seq, names, rows))

    async def load(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the snapshot; `(0, {})` when there is none."""
        return await self._state.run(_load)


def _change(
    connection: Connection,
    chain_seq: int,
    names: list[dict[str, str]],
    rows: list[dict[str, Any]],
) -> None:
    stored = connection.execute(sa.select(_snapshot.c.chain_seq)).scalar()
    if stored is not None and chain_seq < stored:
        raise CountersignError(
            f"the ledger reflects {stored} records and cannot go back to {chain_seq}",
            code="ledger_rewound",
        )
    connection.execute(sa.delete(_snapshot))
    connection.execute(sa.insert(_snapshot).values(id=_ROW, chain_seq=chain_seq))
    if names:
        of_name = _families.c.family == sa.bindparam("name")
        connection.execute(sa.delete(_families).where(of_name), names)
    if rows:
        connection.execute(sa.insert(_families), rows)


def _load(connection: Connection) -> tuple[int, dict[str, dict[str, Any]]]:
    stored = connection.execute(sa.select(_snapshot.c.chain_seq)).scalar()
    families = {
        row.family: msgspec.msgpack.decode(row.body, type=dict[str, Any])
        for row in connection.execute(sa.select(_families))
    }
    return stored or 0, families
