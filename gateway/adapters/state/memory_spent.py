"""Names that may be used once, in memory: the twin of `SqlSpent`."""

from __future__ import annotations


class MemorySpent:
    """Gone when the process is. Promises as `SqlSpent` otherwise."""

    def __init__(self) -> None:
        self._until: dict[bytes, int] = {}

    async def spend(self, name: bytes, until_s: int, now_s: int) -> bool:
        """Return True for the first who spends `name`, until after `until_s`."""
        self._until = {one: end for one, end in self._until.items() if end >= now_s}
        if name in self._until:
            return False
        self._until[name] = until_s
        return True
