from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.errors import AuditError
from gateway.core.ports import Clock
from gateway.core.records.approval_entries import state_event

MakeRequest = Callable[..., ApprovalRequest]


async def hold(store: MemoryApprovals, make_request: MakeRequest, *numbers: int) -> None:
    for number in numbers:
        request = make_request(id=str(number), op=f"op-{number}", join_digest=str(number))
        await store.create(request, state_event(request, "request", "PENDING"))


def recorded(audit: MemoryAuditLog) -> list[str]:
    return [one["op"] for one in audit.records if one["type"].startswith("approval.")]


@pytest.fixture
def store(clock: Clock) -> MemoryApprovals:
    return MemoryApprovals(clock=clock, pending_max=1000)


@pytest.mark.req("GW-12")
async def test_events_reach_the_log_in_order_and_once(
    store: MemoryApprovals, make_request: MakeRequest
) -> None:
    audit = MemoryAuditLog()
    await hold(store, make_request, *range(150))
    relay = OutboxRelay(store, audit)
    await asyncio.gather(*(relay.drain() for _ in range(3)))
    assert recorded(audit) == [f"op-{number}" for number in range(150)]
    assert await store.outbox() == []


@pytest.mark.req("GW-12")
async def test_an_event_that_was_recorded_but_not_forgotten_is_not_told_twice(
    store: MemoryApprovals, make_request: MakeRequest
) -> None:
    audit = MemoryAuditLog()
    await hold(store, make_request, 1)
    (event,) = await store.outbox()
    await audit.record(event.entry)  # and here the process died
    await OutboxRelay(store, audit).drain()
    assert recorded(audit) == ["op-1"]
    assert await store.outbox() == []


@pytest.mark.req("GW-12")
async def test_what_the_log_did_not_take_stays_for_the_next_drain(
    store: MemoryApprovals, make_request: MakeRequest
) -> None:
    audit = MemoryAuditLog()
    relay = OutboxRelay(store, audit)
    await hold(store, make_request, 1)
    await relay.drain()
    await hold(store, make_request, 2, 3)
    audit.overload()
    with pytest.raises(AuditError):
        await relay.drain()
    assert [event.entry.op for event in await store.outbox()] == ["op-2", "op-3"]
    audit.overload(overloaded_now=False)
    await relay.drain()
    assert recorded(audit) == ["op-1", "op-2", "op-3"]
