"""Codes, refresh tokens and registered apps in the state: `core.authorization.AuthorizationStore`.

Codes and tokens are kept as SHA-256 only: whoever reads the state can redeem none of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters.state.sql_store import SqlState, metadata
from gateway.core.oauth.apps import App
from gateway.core.oauth.authorization import Code, Consent, Refresh

KEPT_S = 86_400
"""How long a code is known after its end, so that its second use still ends its run."""

_codes = sa.Table(
    "authorization_codes",
    metadata,
    sa.Column("code_hash", sa.String, primary_key=True),
    sa.Column("run_id", sa.String, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("authorization_codes_over", "expires_at"),
)

_refresh = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("token_hash", sa.String, primary_key=True),
    sa.Column("spent", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("refresh_tokens_over", "expires_at"),
)

_apps = sa.Table(
    "registered_apps",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)


class SqlAuthorizations:
    """Durable codes, refresh tokens and registered apps."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    async def put_code(self, code: Code) -> None:
        """Store a new code, and forget what is long over."""
        over = code.consent.expires_at - KEPT_S

        def work(connection: Connection) -> None:
            connection.execute(sa.delete(_codes).where(_codes.c.expires_at < over))
            connection.execute(sa.delete(_refresh).where(_refresh.c.expires_at < over))
            connection.execute(
                sa.insert(_codes).values(
                    code_hash=code.code_hash,
                    run_id=code.run_id,
                    expires_at=code.consent.expires_at,
                    body=msgspec.json.encode(code.consent),
                )
            )

        await self._state.run(work)

    async def get_code(self, code_hash: str) -> Code | None:
        """Return a code, redeemed or not."""
        query = sa.select(_codes).where(_codes.c.code_hash == code_hash)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        consent = msgspec.json.decode(row.body, type=Consent)
        return Code(code_hash=row.code_hash, consent=consent, run_id=row.run_id)

    async def redeem_code(self, code_hash: str, run_id: str) -> bool:
        """Mark a code as redeemed by a run; of all who try, at any time, one gets True."""
        change = (
            sa.update(_codes)
            .where(_codes.c.code_hash == code_hash, _codes.c.run_id == "")
            .values(run_id=run_id)
        )
        return await self._state.run(lambda connection: connection.execute(change).rowcount == 1)

    async def put_refresh(self, refresh: Refresh) -> None:
        """Store a new refresh token."""
        await self._state.run(lambda connection: _insert(connection, refresh))

    async def get_refresh(self, token_hash: str) -> Refresh | None:
        """Return a refresh token, spent or not."""
        query = sa.select(_refresh).where(_refresh.c.token_hash == token_hash)
        row = await self._state.run(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        found = msgspec.json.decode(row.body, type=Refresh)
        return msgspec.structs.replace(found, spent=row.spent)

    async def rotate_refresh(self, token_hash: str, successor: Refresh) -> bool:
        """Spend a refresh token and store its successor, both or neither; True for one alone."""
        spend = (
            sa.update(_refresh)
            .where(_refresh.c.token_hash == token_hash, _refresh.c.spent.is_(False))
            .values(spent=True)
        )

        def work(connection: Connection) -> bool:
            if connection.execute(spend).rowcount != 1:
                return False
            _insert(connection, successor)
            return True

        return await self._state.run(work)

    async def forget_all(self) -> int:
        """Forget every code and every refresh token; return how many there were."""

        def work(connection: Connection) -> int:
            return sum(connection.execute(sa.delete(one)).rowcount for one in (_codes, _refresh))

        return await self._state.run(work)

    async def forget_older(self, issued: Mapping[str, int]) -> int:
        """Forget the refresh tokens of runs of which only older ones than `issued` are known.

        `issued`: by run, when it last got a token, in µs. Returns how many were forgotten.
        """

        def work(connection: Connection) -> int:
            found: dict[str, dict[str, int]] = {}
            for row in connection.execute(sa.select(_refresh.c.token_hash, _refresh.c.body)):
                one = msgspec.json.decode(row.body, type=Refresh)
                if one.run_id in issued:
                    found.setdefault(one.run_id, {})[row.token_hash] = one.issued_us
            older = [
                token_hash
                for run_id, known in found.items()
                if max(known.values()) < issued[run_id]
                for token_hash in known
            ]
            for token_hash in older:
                gone = sa.delete(_refresh).where(_refresh.c.token_hash == token_hash)
                connection.execute(gone)
            return len(older)

        return await self._state.run(work) if issued else 0

    async def put_app(self, app: App, *, at: int, most: int) -> bool:
        """Store an app that registered itself; False if there are `most` already."""

        def work(connection: Connection) -> bool:
            count = connection.execute(sa.select(sa.func.count()).select_from(_apps)).scalar_one()
            if count >= most:
                return False
            row = {"id": app.id, "at": at, "body": msgspec.json.encode(app)}
            connection.execute(sa.insert(_apps).values(row))
            return True

        return await self._state.run(work)

    async def find_apps(self) -> list[App]:
        """Return the apps that registered themselves."""
        query = sa.select(_apps.c.body).order_by(_apps.c.at)
        rows = await self._state.run(lambda connection: list(connection.execute(query).scalars()))
        return [msgspec.json.decode(body, type=App) for body in rows]


def _insert(connection: Connection, refresh: Refresh) -> None:
    connection.execute(
        sa.insert(_refresh).values(
            token_hash=refresh.token_hash,
            spent=refresh.spent,
            expires_at=refresh.expires_at,
            body=msgspec.json.encode(refresh),
        )
    )
