"""What both stores of legal holds promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.state.memory_holds import MemoryHolds
from gateway.adapters.state.sql_holds import SqlHolds
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.holds import Hold, HoldStore

pytestmark = pytest.mark.req("AUD-06")
HOLD = Hold(
    id="0" * 32,
    subject="a" * 32,
    state="proposed",
    nonce="n",
    asked_by="ann",
    asked_at=1_800_000_000,
    reason="case 7",
)


@pytest.fixture(params=["sql", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HoldStore]:
    if request.param == "memory":
        yield MemoryHolds()
        return
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="o")
    yield SqlHolds(state)
    await state.close()


async def test_a_hold_is_found_as_it_was_put(store: HoldStore) -> None:
    assert await store.get(HOLD.id) is None
    assert await store.find() == []
    await store.put(HOLD)
    assert await store.get(HOLD.id) == HOLD
    assert await store.find() == [HOLD]


async def test_a_later_state_takes_the_place_of_an_earlier_one(store: HoldStore) -> None:
    await store.put(HOLD)
    later = replace(HOLD, state="set", asked_by="", asked_at=0, reason="")
    await store.put(later)
    assert await store.find() == [later]


async def test_all_holds_are_found_in_the_order_of_their_ids(store: HoldStore) -> None:
    holds = [replace(HOLD, id=f"{number:032x}", subject="*") for number in range(3)]
    for hold in reversed(holds):
        await store.put(hold)
    assert await store.find() == holds


async def test_holds_outlive_the_process(tmp_path: Path) -> None:
    for _ in range(2):
        state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
        await state.open(environment="test", log_origin="o")
        await SqlHolds(state).put(HOLD)
        await state.close()
    await (again := SqlState(f"sqlite:///{tmp_path / 'state.db'}")).open(
        environment="test", log_origin="o"
    )
    assert await SqlHolds(again).find() == [HOLD]
    await again.close()
