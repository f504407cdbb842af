"""State in SQLite: one file, one thread, one transaction at a time (DESIGN §7).

A store built on it declares its tables on `metadata` when it is imported, and runs its work through
`SqlState.run`. All stores must be imported before `SqlState.open`, which creates their tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from gateway.core.errors import ConfigurationError, CountersignError

T = TypeVar("T")

SCHEMA: Final = "2"
"""Version of all tables together. Raise it with any change of a table."""

metadata: Final = sa.MetaData()

_stamp = sa.Table(
    "countersign_meta",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)

_MEND: Final = "name another database or mend the configuration"
_HINTS: Final = {
    "schema": "start the version that wrote it, or name a new database, without its runs and holds",
    "environment": _MEND,
    "log_origin": _MEND,
}

_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # a commit is on the disk before anybody hears of it
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=5000",
)


class SqlState:
    """The state database at `url` (`sqlite:///path`, or `sqlite://` for memory).

    INVARIANT: every statement runs in the one thread, inside `BEGIN IMMEDIATE`; so a transaction
    reads what it then writes, and nothing comes between.
    """

    metadata: Final = metadata

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._engine: Engine | None = None

    async def open(self, *, environment: str, log_origin: str) -> None:
        """Create what is missing, and stamp or check what is there.

        Raises `ConfigurationError` when the database cannot be opened, or belongs to another
        schema version, environment or audit log.
        """
        stamp = {"schema": SCHEMA, "environment": environment, "log_origin": log_origin}
        try:
            await self._in_thread(lambda: self._prepare(stamp))
        except (SQLAlchemyError, OSError) as error:
            raise ConfigurationError(
                f"state.url: the database cannot be opened: {_say_why(error)}; "
                "check that its folder exists, is writable and has room"
            ) from error

    async def run(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` as one transaction: durable when this returns, undone when `fn` raises.

        A caller that is cancelled meanwhile does not undo it. Raises `CountersignError`
        `state_unavailable` (retryable) when the database fails or is not open.
        """
        engine = self._engine
        if engine is None:
            raise CountersignError("the state database is not open", code="state_unavailable")
        try:
            return await self._in_thread(lambda: _transact(engine, fn))
        except SQLAlchemyError as error:
            raise CountersignError(
                f"the state database failed ({type(error).__name__}); check its disk, then retry",
                code="state_unavailable",
                retryable=True,
            ) from error

    async def close(self) -> None:
        """Finish what runs, then let go of the file. Closing twice is harmless."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await self._in_thread(engine.dispose)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _prepare(self, stamp: dict[str, str]) -> None:
        engine = _connect(self._url)
        try:
            with engine.begin() as connection:
                _stamp.create(connection, checkfirst=True)
                _check(connection, stamp)
                metadata.create_all(connection)
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine


def _transact(engine: Engine, fn: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return fn(connection)


def _parse(url: str) -> sa.URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("state.url: not a database URL; use `sqlite:///path`") from None
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"state.url: `{parsed.get_backend_name()}` is not supported; use `sqlite:///path`"
        )
    return parsed


def _connect(url: sa.URL) -> Engine:
    if url.database and url.database != ":memory:":
        # Held arguments are in it: for its owner only, as the files SQLite puts beside it.
        Path(url.database).touch(mode=0o600)
    engine = sa.create_engine(
        url,
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
        hide_parameters=True,  # no argument value in an error message
    )
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3 behind SQLAlchemy
    connection.isolation_level = None  # transactions begin where `_begin` says, not by themselves
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _check(connection: Connection, stamp: dict[str, str]) -> None:
    found = {row.key: row.value for row in connection.execute(sa.select(_stamp))}
    if not found:
        rows = [{"key": key, "value": value} for key, value in stamp.items()]
        connection.execute(sa.insert(_stamp), rows)
        return
    wrong = [
        f"state.url: the database belongs to {key} `{found.get(key)}`, not `{value}`; {_HINTS[key]}"
        for key, value in stamp.items()
        if found.get(key) != value
    ]
    if wrong:
        raise ConfigurationError("\n".join(wrong))


def _say_why(error: SQLAlchemyError | OSError) -> str:
    """Return what the database or the system says; theirs are fixed texts without values."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
