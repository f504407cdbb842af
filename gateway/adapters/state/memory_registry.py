"""Members and proposals in memory: the twin of `SqlRegistry`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.people.registry import Proposal, Row, Stored
from gateway.core.ports import OutboxEvent


class MemoryRegistry:
    """A registry that is gone when the process is. Promises as `SqlRegistry`, but durability."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._proposals: dict[str, Proposal] = {}
        self._outbox: dict[str, OutboxEvent] = {}

    async def load(self) -> Stored:
        """Return all that is kept, in the order of the ids."""
        return Stored(
            [row for _, row in sorted(self._rows.items())],
            [one for _, one in sorted(self._proposals.items())],
        )

    async def commit(
        self,
        event: OutboxEvent,
        *,
        row: Row | None = None,
        proposal: Proposal | None = None,
        done: Sequence[str] = (),
    ) -> None:
        """Keep a member, keep a proposal, forget the proposals `done`, and emit the event."""
        if row is not None:
            self._rows[row.id] = row
        if proposal is not None:
            self._proposals[proposal.id] = proposal
        for proposal_id in done:
            self._proposals.pop(proposal_id, None)
        self._outbox[event.event_id] = event

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in order."""
        return list(self._outbox.values())[:limit]

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        for event_id in event_ids:
            self._outbox.pop(event_id, None)
