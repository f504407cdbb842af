from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import pkgutil
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.adapters import state as stores
from gateway.adapters.state.sql_ledger import SqlLedger
from gateway.adapters.state.sql_store import SCHEMA, SqlState
from gateway.core.calls.ledger import Ledger
from gateway.core.errors import ConfigurationError, CountersignError

STAMP = {"environment": "test", "log_origin": "test/log"}
TABLES = {"2": "0d2e3ff366faeb581b232d399a0b5a16c1b145b143861b543feadd81d660f21c"}
"""Digest of what a new database of each schema version holds."""


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'state.db'}"


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqlState]:
    state = SqlState(url_of(tmp_path))
    await state.open(**STAMP)
    yield state
    await state.close()


def ask(connection: Connection, statement: str) -> Any:  # noqa: ANN401 - whatever SQLite says
    return connection.exec_driver_sql(statement).scalar()


def make_table(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY)")


def insert(number: int, connection: Connection) -> None:
    connection.execute(sa.text("INSERT INTO t VALUES (:n)"), {"n": number})


@pytest.mark.req("GW-12")
async def test_a_commit_is_on_the_disk_before_anybody_hears_of_it(state: SqlState) -> None:
    pragmas = ["synchronous", "journal_mode", "foreign_keys"]
    said = await state.run(lambda c: [ask(c, f"PRAGMA {name}") for name in pragmas])
    assert said == [2, "wal", 1]


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_only_its_owner_may_read_the_database(state: SqlState, tmp_path: Path) -> None:
    await state.run(make_table)
    assert modes(tmp_path) == {0o600}


@pytest.mark.req("GW-12")
async def test_work_that_raises_is_undone(state: SqlState) -> None:
    await state.run(make_table)

    def fail(connection: Connection) -> None:
        insert(1, connection)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await state.run(fail)
    assert await state.run(lambda c: ask(c, "SELECT count(*) FROM t")) == 0


async def test_transactions_run_one_after_the_other_in_one_thread(state: SqlState) -> None:
    await state.run(make_table)
    threads = set()

    def count_up(connection: Connection) -> None:
        threads.add(threading.get_ident())
        insert(ask(connection, "SELECT count(*) FROM t"), connection)

    await asyncio.gather(*(state.run(count_up) for _ in range(20)))
    assert await state.run(lambda c: ask(c, "SELECT count(*) FROM t")) == 20
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_caller_who_goes_away_does_not_undo_its_transaction(state: SqlState) -> None:
    await state.run(make_table)
    entered, leave = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        leave.wait(timeout=10)
        insert(1, connection)

    task = asyncio.create_task(state.run(slow))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state.run(lambda c: ask(c, "SELECT count(*) FROM t")) == 1


async def test_a_failing_statement_tells_no_value(state: SqlState) -> None:
    await state.run(make_table)
    values = {"n": "the-secret-value"}
    with pytest.raises(CountersignError) as raised:
        await state.run(lambda c: c.execute(sa.text("INSERT INTO t VALUES (:n)"), values))
    assert (raised.value.code, raised.value.retryable) == ("state_unavailable", True)
    assert "the-secret-value" not in f"{raised.value} {raised.value.__cause__}"


async def test_nothing_runs_before_open_or_after_close(tmp_path: Path) -> None:
    state = SqlState(url_of(tmp_path))
    with pytest.raises(CountersignError, match="not open"):
        await state.run(make_table)
    await state.open(**STAMP)
    await state.close()
    await state.close()
    with pytest.raises(CountersignError, match="not open"):
        await state.run(make_table)


@pytest.mark.req("GW-12")
async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    for expected in (0, 1, 2):
        state = SqlState(url_of(tmp_path))
        await state.open(**STAMP)
        await state.run(
            lambda c: c.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (n INTEGER)").close()
        )
        assert await state.run(lambda c: ask(c, "SELECT count(*) FROM t")) == expected
        await state.run(functools.partial(insert, expected))
        await state.close()


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"environment": "prod"}, "environment `test`, not `prod`"),
        ({"log_origin": "other/log"}, "log_origin `test/log`, not `other/log`"),
    ],
)
async def test_a_database_of_another_deployment_is_refused(
    changed: dict[str, str], message: str, state: SqlState, tmp_path: Path
) -> None:
    await state.close()
    again = SqlState(url_of(tmp_path))
    with pytest.raises(ConfigurationError, match=message):
        await again.open(**{**STAMP, **changed})
    await again.close()


async def test_every_mismatch_is_named_at_once_and_nothing_is_changed(
    state: SqlState, tmp_path: Path
) -> None:
    await state.run(
        lambda c: c.exec_driver_sql(
            "UPDATE countersign_meta SET value = '0' WHERE key = 'schema'"
        ).close()
    )
    await state.run(lambda c: c.exec_driver_sql("DROP TABLE ledger_families").close())
    await state.close()
    again = SqlState(url_of(tmp_path))
    with pytest.raises(ConfigurationError) as raised:
        await again.open(environment="prod", log_origin="other")
    assert f"schema `0`, not `{SCHEMA}`" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 3
    await again.close()


@pytest.mark.req("GW-12")
async def test_a_state_of_another_version_is_left_alone_and_says_what_to_do(
    state: SqlState, tmp_path: Path
) -> None:
    await state.run(
        lambda c: c.exec_driver_sql(
            "UPDATE countersign_meta SET value = '1' WHERE key = 'schema'"
        ).close()
    )
    await state.close()
    again = SqlState(url_of(tmp_path))
    with pytest.raises(ConfigurationError, match="start the version that wrote it, or name a new"):
        await again.open(**STAMP)
    await again.close()


async def test_a_table_that_changes_asks_for_another_schema_version(state: SqlState) -> None:
    """Or a gateway would open a state that it cannot read. Then add the new pair to `TABLES`."""
    for module in pkgutil.iter_modules(stores.__path__, f"{stores.__name__}."):
        importlib.import_module(module.name)
    await state.run(SqlState.metadata.create_all)
    rows = await state.run(
        lambda c: c.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql NOT NULL").all()
    )
    tables = "\n".join(sorted("".join(row.sql.split()) for row in rows))
    assert {SCHEMA: hashlib.sha256(tables.encode()).hexdigest()}.items() <= TABLES.items()


async def test_a_database_that_cannot_be_opened_is_told_in_the_words_of_the_database(
    tmp_path: Path,
) -> None:
    (tmp_path / "state.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    for folder, why in (
        (tmp_path, "file is not a database"),
        (tmp_path / "none", "No such file or directory"),
    ):
        state = SqlState(url_of(folder))
        with pytest.raises(ConfigurationError, match=rf"state\.url: .* cannot be opened: {why}"):
            await state.open(**STAMP)
        await state.close()


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql://db/x", "mysql://db/x"])
def test_only_sqlite_urls_are_taken(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"state\.url"):
        SqlState(url)


@pytest.mark.parametrize("content", [None, b"this is no database, however long it may be" * 100])
async def test_a_database_that_cannot_be_opened_is_a_configuration_error(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "state.db" if content is None else tmp_path / "state.db"
    if content is not None:
        path.write_bytes(content)
    state = SqlState(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await state.open(**STAMP)
    await state.close()


async def test_the_ledger_starts_empty(state: SqlState) -> None:
    assert await SqlLedger(state).load() == (0, {})


async def test_a_ledger_snapshot_is_brought_up_to_date(state: SqlState) -> None:
    ledger = SqlLedger(state)
    rests: dict[str, Any] = {"calls": 1}
    first: dict[str, Any] = {"root-1": {"calls": 2, "sums": {"/amount": "12.50"}}, "root-2": rests}
    await ledger.save(7, first)
    assert await ledger.load() == (7, first)
    second: dict[str, Any] = {"root-1": {"calls": 3, "recent": [["t", 1]], "ratio": 0.5}}
    await ledger.save(9, second)
    assert await ledger.load() == (9, {**second, "root-2": rests})
    await ledger.save(9, {})
    await ledger.save(10, {"root-1": None, "root-3": None})
    assert await ledger.load() == (10, {"root-2": rests})


async def test_what_a_ledger_could_not_keep_is_kept_the_next_time(
    state: SqlState, tmp_path: Path
) -> None:
    ledger, log = Ledger(), SimpleNamespace(size=7)
    ledger.begin("root-1", ["pii"])
    broken = SqlState(url_of(tmp_path))
    with pytest.raises(CountersignError, match="not open"):
        await SqlLedger(broken).keep(ledger, log)
    await SqlLedger(state).keep(ledger, log)
    assert await SqlLedger(state).load() == (7, ledger.snapshot())
    ledger.forget(["root-1"])
    await SqlLedger(state).keep(ledger, log)
    assert await SqlLedger(state).load() == (7, {})
    await broken.close()


async def test_a_ledger_never_goes_back(state: SqlState) -> None:
    ledger = SqlLedger(state)
    await ledger.save(7, {"root-1": {"calls": 2}})
    with pytest.raises(CountersignError) as raised:
        await ledger.save(6, {})
    assert raised.value.code == "ledger_rewound"
    assert await ledger.load() == (7, {"root-1": {"calls": 2}})
