"""What both stores of kills promise, and that they survive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.state.memory_kills import MemoryKills
from gateway.adapters.state.sql_kills import SqlKills
from gateway.adapters.state.sql_store import SqlState
from gateway.core.errors import CountersignError
from gateway.core.kills.kill import Kill, KillStore

pytestmark = pytest.mark.req("TOK-06")
KILL = Kill(id="0" * 32, kind="agent", target="bot", at=1_800_000_000, by="ann", reason="odd")


@pytest.fixture(params=["sql", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KillStore]:
    if request.param == "memory":
        yield MemoryKills()
        return
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="o")
    yield SqlKills(state)
    await state.close()


async def load(store: KillStore, known: int | None = None) -> tuple[int, list[Kill]]:
    found = await store.load(known)
    assert found is not None
    return found


async def test_a_kill_is_found_as_it_was_put(store: KillStore) -> None:
    revision, kills = await load(store)
    assert kills == []
    await store.drop([f"{number:032x}" for number in range(1_200)])
    until = replace(KILL, id="1" * 32, until=1_800_000_060, by="", reason="")
    await store.put(KILL)
    await store.put(until)
    later, kills = await load(store, revision)
    assert kills == [KILL, until]
    assert later > revision


async def test_nothing_is_told_while_nothing_changed(store: KillStore) -> None:
    await store.put(KILL)
    revision, _ = await load(store)
    assert await store.load(revision) is None
    await store.put(replace(KILL, reason="a second word"))
    await store.drop(["f" * 32])
    assert await store.load(revision) is None


async def test_an_ended_kill_is_gone_for_good(store: KillStore) -> None:
    await store.put(KILL)
    revision, _ = await load(store)
    await store.end([KILL.id, KILL.id, "f" * 32])
    later, kills = await load(store, revision)
    assert (kills, later > revision) == ([], True)
    await store.put(KILL)
    assert await store.load(later) is None
    assert await store.ended([KILL.id, "a" * 32]) == {KILL.id}


async def test_a_dropped_kill_is_gone_and_that_is_a_change(store: KillStore) -> None:
    put = await store.put(KILL)
    revision, _ = await load(store)
    dropped = await store.drop([KILL.id])
    later, kills = await load(store, revision)
    assert (kills, put, dropped, later) == ([], revision, revision + 1, revision + 1)
    assert await store.drop([KILL.id]) == await store.end(["f" * 32]) == later


async def test_another_process_sees_a_kill_and_a_restart_keeps_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    one, other = SqlState(url), SqlState(url)
    await one.open(environment="test", log_origin="o")
    await other.open(environment="test", log_origin="o")
    revision, _ = await load(SqlKills(other))
    await SqlKills(one).put(KILL)
    assert (await load(SqlKills(other), revision))[1] == [KILL]
    await one.close()
    await other.close()
    again = SqlState(url)
    await again.open(environment="test", log_origin="o")
    assert (await load(SqlKills(again)))[1] == [KILL]
    await again.close()
    with pytest.raises(CountersignError) as caught:
        await SqlKills(again).load(None)
    assert caught.value.code == "state_unavailable"
