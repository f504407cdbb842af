"""Passwords' hashes, passkeys, and people who came by themselves, in the state database."""

from __future__ import annotations

from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.row import Row

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.people.accounts import Passkey

_passwords = sa.Table(
    "human_passwords",
    metadata,
    sa.Column("person", sa.String, primary_key=True),
    sa.Column("hashed", sa.String, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)
_passkeys = sa.Table(
    "human_passkeys",
    metadata,
    sa.Column("credential_id", sa.String, primary_key=True),
    sa.Column("person", sa.String, nullable=False, index=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("sign_count", sa.BigInteger, nullable=False),
    sa.Column("label", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)
_FIELDS: Final = Passkey.__struct_fields__


class SqlAccounts:
    """Durable credentials of people: `core.accounts.AccountStore`."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def password_hash(self, person_id: str) -> str | None:
        """Return the hash of somebody's password."""
        query = sa.select(_passwords.c.hashed).where(_passwords.c.person == person_id)
        return await self._state.run(lambda connection: connection.execute(query).scalar())

    async def set_password(self, person_id: str, hashed: str, now_s: int) -> None:
        """Store a password's hash in place of an earlier one."""
        await self._state.run(lambda connection: _replace(connection, person_id, hashed, now_s))

    async def rehash_password(self, person_id: str, *, before: str | None, after: str) -> None:
        """Store another hash of the same password, if its hash is still `before`."""
        is_it = sa.and_(_passwords.c.person == person_id, _passwords.c.hashed == before)
        await self._changes(sa.update(_passwords).where(is_it).values(hashed=after))

    async def begin_anew(self, person_id: str, hashed: str, now_s: int) -> None:
        """Store a password's hash, and forget every passkey that there was."""

        def work(connection: Connection) -> None:
            _replace(connection, person_id, hashed, now_s)
            connection.execute(sa.delete(_passkeys).where(_passkeys.c.person == person_id))

        await self._state.run(work)

    async def passkeys(self, person_id: str) -> list[Passkey]:
        """Return somebody's passkeys, oldest first."""
        query = (
            sa.select(_passkeys)
            .where(_passkeys.c.person == person_id)
            .order_by(_passkeys.c.created_at, _passkeys.c.credential_id)
        )
        rows = await self._state.run(lambda connection: connection.execute(query).all())
        return [_read(row) for row in rows]

    async def passkey(self, credential_id: str) -> Passkey | None:
        """Return a passkey by its id."""
        query = sa.select(_passkeys).where(_passkeys.c.credential_id == credential_id)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        return None if row is None else _read(row)

    async def add_passkey(self, passkey: Passkey) -> bool:
        """Store a passkey; False where that id is taken."""
        known = sa.select(_passkeys.c.person).where(
            _passkeys.c.credential_id == passkey.credential_id
        )

        def work(connection: Connection) -> bool:
            if connection.execute(known).first() is not None:
                return False
            values = {name: getattr(passkey, name) for name in _FIELDS}
            connection.execute(sa.insert(_passkeys).values(**values))
            return True

        return await self._state.run(work)

    async def count_up(self, credential_id: str, *, before: int, after: int) -> bool:
        """Move a passkey's counter on, if it is still `before`."""
        is_it = sa.and_(
            _passkeys.c.credential_id == credential_id, _passkeys.c.sign_count == before
        )
        return await self._changes(sa.update(_passkeys).where(is_it).values(sign_count=after))

    async def remove_passkey(self, person_id: str, credential_id: str) -> bool:
        """Forget one of somebody's own passkeys; say whether there was one."""
        is_it = sa.and_(_passkeys.c.credential_id == credential_id, _passkeys.c.person == person_id)
        return await self._changes(sa.delete(_passkeys).where(is_it))

    async def _changes(self, change: sa.Update | sa.Delete) -> bool:
        return bool(await self._state.run(lambda connection: connection.execute(change).rowcount))


def _replace(connection: Connection, person_id: str, hashed: str, now_s: int) -> None:
    connection.execute(sa.delete(_passwords).where(_passwords.c.person == person_id))
    row = {"person": person_id, "hashed": hashed, "changed_at": now_s}
    connection.execute(sa.insert(_passwords).values(**row))


def _read(row: Row[tuple[object, ...]]) -> Passkey:
    return msgspec.convert({name: getattr(row, name) for name in _FIELDS}, Passkey)
