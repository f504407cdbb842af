"""What both run stores promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.adapters.state.sql_runs import SqlRuns
from gateway.adapters.state.sql_store import SqlState
from gateway.core.errors import CountersignError
from gateway.core.ports import RunStore
from gateway.core.tokens.token import Budget, Constraint, Grant, Range, Run, Window

pytestmark = pytest.mark.req("GW-10")

Store = MemoryRuns | SqlRuns
NOW_S = 1_800_000_000


def build_run(number: int, **changes: Any) -> Run:  # noqa: ANN401 - any field
    constraint = Constraint(max=2.0, min=-1, one_of=(1, True, "x", 0.5), prefix="x")
    places = Constraint(domain=("a.b", "*.a.b"), suffix="/", length=Range(1), count=Range(max=2))
    bounds = {"/amount": constraint, "/to": places}
    window = Window(("sat",), "22:00", "06:00", 1, 2)
    fields: dict[str, Any] = {
        "id": f"{number:032x}",
        "agent": "bot",
        "launcher": "workflow",
        "grants": (Grant("shop", "refund", ("money",), bounds, 3, window), Grant("bank")),
        "allowed_values": {"/to": ("ann@acme.test", "bob@acme.test")},
        "created_at": NOW_S,
        "deadline": NOW_S + 60,
        "credential_hash": "sha256:" + "0" * 64,
        "workflow": "returns",
        "origin": "schedule",
        "on_behalf_of": "olga",
    }
    return Run(**{**fields, **changes})


async def open_state(path: Path) -> SqlState:
    state = SqlState(f"sqlite:///{path}")
    await state.open(environment="test", log_origin="test/audit")
    return state


@pytest.fixture(params=["memory", "sql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryRuns()
        return
    state = await open_state(tmp_path / "state.db")
    yield SqlRuns(state)
    await state.close()


async def test_a_run_is_read_back_as_it_was_created(store: Store) -> None:
    port: RunStore = store
    run = build_run(1)
    await port.create_run(run)
    assert await port.get_run(run.id) == run


async def test_a_run_that_never_was_is_none(store: Store) -> None:
    assert await store.get_run("0" * 32) is None


async def test_a_run_id_is_taken_once(store: Store) -> None:
    run = build_run(1)
    await store.create_run(run)
    with pytest.raises(CountersignError) as caught:
        await store.create_run(build_run(1, agent="thief"))
    assert caught.value.code == "run_exists"
    assert await store.get_run(run.id) == run


async def test_of_many_at_once_one_creates_the_run(store: Store) -> None:
    results = await asyncio.gather(
        *(store.create_run(build_run(1)) for _ in range(8)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 1


async def test_an_ended_run_stays_ended_and_readable(store: Store) -> None:
    run = build_run(1)
    await store.create_run(run)
    await store.end_run(run.id)
    await store.end_run(run.id)
    found = await store.get_run(run.id)
    assert found is not None
    assert found.ended
    assert (found.agent, found.grants) == (run.agent, run.grants)


async def test_a_run_that_was_read_before_is_ended_for_who_reads_it_next(store: Store) -> None:
    for number in range(3):
        await store.create_run(build_run(number, deadline=NOW_S + number))
        await store.get_run(f"{number:032x}")
    await store.end_run(f"{2:032x}")
    await store.end_over(0, NOW_S + 1)
    runs = [await store.get_run(f"{number:032x}") for number in range(3)]
    assert [run is not None and run.ended for run in runs] == [True, False, True]


class Late(SqlState):
    """A state whose first answer is on its way for as long as its reader is told to wait."""

    gate: asyncio.Event | None = None

    async def run(self, work: Callable[[Connection], Any]) -> Any:  # noqa: ANN401 - as the state's
        gate, self.gate = self.gate, None
        found = await super().run(work)
        if gate is not None:
            await gate.wait()
        return found


async def test_a_run_that_ended_while_it_was_read_is_not_taken_for_alive_afterwards() -> None:
    state = Late("sqlite://")
    await state.open(environment="test", log_origin="test/audit")
    store, run = SqlRuns(state), build_run(1)
    await store.create_run(run)
    state.gate = gate = asyncio.Event()
    reading = asyncio.create_task(store.get_run(run.id))
    await asyncio.sleep(0)
    await store.end_run(run.id)
    gate.set()
    await reading
    found = await store.get_run(run.id)
    assert found is not None
    assert found.ended
    await state.close()


async def test_ending_a_run_that_never_was_is_harmless(store: Store) -> None:
    await store.end_run("0" * 32)
    assert await store.get_run("0" * 32) is None


async def test_ended_runs_are_found_until_their_deadline(store: Store) -> None:
    for number in range(3):
        await store.create_run(build_run(number, deadline=NOW_S + number))
        if number:
            await store.end_run(f"{number:032x}")
    assert await store.find_ended(NOW_S) == [f"{1:032x}", f"{2:032x}"]
    assert await store.find_ended(NOW_S + 1) == [f"{2:032x}"]
    assert await store.find_ended(NOW_S + 2) == []


async def test_runs_that_are_over_are_ended_for_good(store: Store) -> None:
    for number in range(3):
        await store.create_run(build_run(number, deadline=NOW_S + number))
    assert await store.end_over(0, NOW_S) == []
    assert await store.end_over(0, NOW_S + 2) == [f"{0:032x}", f"{1:032x}"]
    ended = [await store.get_run(f"{number:032x}") for number in range(3)]
    assert [run is not None and run.ended for run in ended] == [True, True, False]
    # The clock goes back, to before the deadlines: what was ended is still known as ended.
    assert await store.find_ended(NOW_S - 60) == [f"{0:032x}", f"{1:032x}"]
    assert await store.end_over(NOW_S + 2, NOW_S - 60) == []


async def test_others_are_served_while_a_long_past_is_ended() -> None:
    state = SqlState("sqlite://")
    await state.open(environment="test", log_origin="test/audit")
    store = SqlRuns(state)
    ids = [f"{number:032x}" for number in range(1_200)]
    for number, run_id in enumerate(ids):  # many at the same second
        await store.create_run(build_run(0, id=run_id, deadline=NOW_S + number // 700))
    ending = asyncio.create_task(store.end_over(NOW_S, NOW_S + 9))
    assert await store.get_run("not there") is None
    assert await store.get_run("not there") is None
    assert not ending.done()
    assert await ending == ids
    assert await store.find_runs(now_s=0) == []
    await state.close()


async def test_runs_outlive_the_process(tmp_path: Path) -> None:
    state = await open_state(tmp_path / "state.db")
    await SqlRuns(state).create_run(build_run(1))
    await SqlRuns(state).end_run(build_run(1).id)
    await state.close()
    state = await open_state(tmp_path / "state.db")
    found = await SqlRuns(state).get_run(build_run(1).id)
    assert found == build_run(1, ended=True)
    await state.close()


@pytest.mark.req("TOK-11")
async def test_how_a_run_ended_stays_as_it_was_first_said(store: Store) -> None:
    await store.create_run(build_run(1, budget=Budget(3, {"a.b#/c": 0.5}), labels=("untrusted",)))
    await store.end_run(build_run(1).id, "failed")
    await store.end_run(build_run(1).id, "done")
    found = await store.get_run(build_run(1).id)
    assert found is not None
    assert (found.ended, found.outcome) == (True, "failed")
    assert (found.budget, found.labels) == (Budget(3, {"a.b#/c": 0.5}), ("untrusted",))


@pytest.mark.req("TOK-11")
async def test_runs_are_found_newest_first(store: Store) -> None:
    port: RunStore = store
    for number in range(1, 5):
        run = build_run(number, created_at=NOW_S + number, agent="ab"[number % 2])
        await port.create_run(run)
    await port.create_run(build_run(9, created_at=NOW_S, deadline=NOW_S + 5, launcher="other"))
    await port.end_run(build_run(4).id, "done")

    async def ids(**asked: Any) -> list[int]:  # noqa: ANN401 - any of the filters
        return [int(run.id, 16) for run in await port.find_runs(now_s=NOW_S + 10, **asked)]

    assert await ids() == [3, 2, 1]
    assert await ids(live=False) == [4, 3, 2, 1, 9]
    assert await ids(agent="b") == [3, 1]
    assert await ids(live=False, launcher="other") == [9]
    assert await ids(live=False, limit=2) == [4, 3]


@pytest.mark.req("TOK-11")
async def test_a_run_that_is_read_while_it_ends_is_not_remembered_as_alive(store: Store) -> None:
    run = build_run(1)
    await store.create_run(run)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(store.get_run(run.id))
            group.create_task(store.end_run(run.id))
            group.create_task(store.get_run(run.id))
    found = await store.get_run(run.id)
    assert found is not None
    assert found.ended
    other = build_run(2, deadline=NOW_S - 10)
    await store.create_run(other)
    assert await store.get_run(other.id) == other
    assert other.id in await store.end_over(0, NOW_S)
    found = await store.get_run(other.id)
    assert found is not None
    assert found.ended
