"""What both stores of Idempotency-Keys promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.adapters.state.memory_idempotency import MemoryIdempotency
from gateway.adapters.state.sql_idempotency import KEEP_S, SqlIdempotency
from gateway.adapters.state.sql_store import SqlState
from gateway.core.ports import IdempotencyStore, StoredReply

NOW = 1_800_000_000


@pytest.fixture(params=["sql", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IdempotencyStore]:
    if request.param == "memory":
        yield MemoryIdempotency()
        return
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="o")
    yield SqlIdempotency(state)
    await state.close()


@pytest.mark.req("GW-07")
async def test_a_key_is_claimed_once_and_then_tells_what_is_under_it(
    store: IdempotencyStore,
) -> None:
    assert await store.begin("bot/run", "k", "sha256:1", "op-1", NOW) is None
    running = StoredReply(request_digest="sha256:1", op="op-1", state="running")
    assert await store.begin("bot/run", "k", "sha256:2", "op-2", NOW) == running
    await store.finish("bot/run", "k", 200, b'{"ok":true}')
    assert await store.begin("bot/run", "k", "sha256:1", "op-3", NOW) == StoredReply(
        request_digest="sha256:1", op="op-1", state="done", status=200, body=b'{"ok":true}'
    )


@pytest.mark.req("GW-07")
async def test_the_keys_of_others_are_not_seen(store: IdempotencyStore) -> None:
    assert await store.begin("bot/run-1", "k", "sha256:1", "op-1", NOW) is None
    assert await store.begin("bot/run-2", "k", "sha256:1", "op-2", NOW) is None
    assert await store.begin("bot/run-1", "K", "sha256:1", "op-3", NOW) is None


@pytest.mark.req("GW-07")
async def test_of_many_at_once_one_claims(store: IdempotencyStore) -> None:
    begun = await asyncio.gather(
        *(store.begin("s", "k", "sha256:1", f"op-{number}", NOW) for number in range(5))
    )
    assert begun.count(None) == 1
    assert len({reply.op for reply in begun if reply is not None}) == 1


async def test_the_first_reply_stays(store: IdempotencyStore) -> None:
    await store.begin("s", "k", "sha256:1", "op-1", NOW)
    await store.finish("s", "k", 200, b"first")
    await store.finish("s", "k", 500, b"second")
    kept = await store.begin("s", "k", "sha256:1", "op-2", NOW)
    assert kept is not None
    assert (kept.status, kept.body) == (200, b"first")


async def test_a_key_that_nobody_claimed_cannot_be_finished(store: IdempotencyStore) -> None:
    await store.finish("s", "k", 200, b"x")
    assert await store.begin("s", "k", "sha256:1", "op-1", NOW) is None


async def test_a_reply_is_kept_for_a_day_and_a_running_key_for_good(
    store: IdempotencyStore,
) -> None:
    for key in ("done", "running"):
        await store.begin("s", key, "sha256:1", f"op-{key}", NOW)
    await store.finish("s", "done", 200, b"x")
    assert await store.begin("s", "done", "sha256:1", "op-1", NOW + KEEP_S - 1) is not None
    assert await store.begin("s", "done", "sha256:1", "op-1", NOW + KEEP_S) is None
    assert await store.begin("s", "running", "sha256:1", "op-2", NOW + 10 * KEEP_S) is not None


async def test_after_a_quiet_day_the_first_key_does_not_wait_until_all_old_ones_are_gone() -> None:
    state = SqlState("sqlite://")
    await state.open(environment="test", log_origin="o")
    store = SqlIdempotency(state)
    for number in range(250):
        await store.begin("s", f"old-{number}", "sha256:1", "op", NOW)
        await store.finish("s", f"old-{number}", 200, b"x")
    query, left = sa.text("SELECT COUNT(*) FROM idempotency_keys WHERE key LIKE 'old-%'"), []
    for number in range(3):
        assert await store.begin("s", f"{number}", "sha256:1", "op", NOW + KEEP_S) is None
        left.append(await state.run(lambda c: c.execute(query).scalar()))
    assert left == [150, 50, 0]
    await state.close()


async def test_a_key_that_is_free_again_is_free_whatever_is_still_to_be_forgotten() -> None:
    state = SqlState("sqlite://")
    await state.open(environment="test", log_origin="o")
    store = SqlIdempotency(state)
    for number in range(250):
        await store.begin("s", f"old-{number:03}", "sha256:1", "op", NOW)
        await store.finish("s", f"old-{number:03}", 200, b"x")
    assert await store.begin("s", "old-249", "sha256:2", "op-2", NOW + KEEP_S) is None
    await state.close()


@pytest.mark.req("GW-07")
async def test_a_claim_is_given_back_and_a_reply_is_not(store: IdempotencyStore) -> None:
    await store.begin("s", "k", "sha256:1", "op-1", NOW)
    await store.forget("s", "k")
    assert await store.begin("s", "k", "sha256:1", "op-2", NOW) is None
    await store.finish("s", "k", 200, b"{}")
    await store.forget("s", "k")
    kept = await store.begin("s", "k", "sha256:1", "op-3", NOW)
    assert kept is not None
    assert (kept.op, kept.state) == ("op-2", "done")
    await store.forget("s", "never claimed")
