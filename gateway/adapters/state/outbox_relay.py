"""Carries committed events into the audit log (DESIGN §5, order at dispatch)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from gateway.core.ports import AuditLog, OutboxEvent


class Outbox(Protocol):
    """A store that commits events together with what they tell of."""

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in order."""
        ...

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        ...


class OutboxRelay:
    """Writes what the store's outbox holds to the log, in order.

    INVARIANT: an event is forgotten only once it is durable in the log; the log writes an event id
    once. So each is recorded exactly once, whenever the process dies.
    """

    def __init__(self, store: Outbox, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit
        self._one_at_a_time = asyncio.Lock()

    async def drain(self) -> None:
        """Return once every event committed before this call is durable in the log.

        Raises `AuditError` when the log does not take one; it and those behind it stay for the
        next drain.
        """
        async with self._one_at_a_time:
            while events := await self._store.outbox():
                await self._relay(events)

    async def _relay(self, events: list[OutboxEvent]) -> None:
        durable: list[str] = []
        try:
            for event in events:
                await self._audit.record(replace(event.entry, event_id=event.event_id))
                durable.append(event.event_id)
        finally:
            await self._store.relayed(durable)
