"""Legal holds in memory: the twin of `SqlHolds`."""

from __future__ import annotations

from gateway.core.approvals.holds import Hold


class MemoryHolds:
    """Holds that are gone when the process is. Promises as `SqlHolds`."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    async def put(self, hold: Hold) -> None:
        """Store a hold, in place of an earlier state of it."""
        self._holds[hold.id] = hold

    async def get(self, hold_id: str) -> Hold | None:
        """Return a hold as it was stored."""
        return self._holds.get(hold_id)

    async def find(self) -> list[Hold]:
        """Return all holds in the order of their ids."""
        return [self._holds[hold_id] for hold_id in sorted(self._holds)]
