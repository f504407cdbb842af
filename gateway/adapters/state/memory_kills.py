"""Kills in memory: the twin of `SqlKills`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.kills.kill import Kill


class MemoryKills:
    """Kills that are gone when the process is. Promises as `SqlKills`."""

    def __init__(self) -> None:
        self._kills: dict[str, Kill] = {}
        self._ended: set[str] = set()
        self._revision = 0

    async def put(self, kill: Kill) -> int:
        """Store a kill; one of this id that is there already stays, one that was ended too."""
        if kill.id not in self._kills and kill.id not in self._ended:
            self._kills[kill.id] = kill
            self._revision += 1
        return self._revision

    async def end(self, kill_ids: Sequence[str]) -> int:
        """Take kills away for good and remember that; ids that are not there are no error."""
        self._ended.update(kill_ids)
        return await self.drop(kill_ids)

    async def drop(self, kill_ids: Sequence[str]) -> int:
        """Forget kills whose time is over as if they had never been."""
        if [self._kills.pop(one) for one in kill_ids if one in self._kills]:
            self._revision += 1
        return self._revision

    async def ended(self, kill_ids: Sequence[str]) -> set[str]:
        """Return those that were ended."""
        return self._ended & set(kill_ids)

    async def load(self, known: int | None) -> tuple[int, list[Kill]] | None:
        """Return all kills and their revision; None where it is still `known`."""
        if known == self._revision:
            return None
        ordered = sorted(self._kills.values(), key=lambda kill: (kill.at, kill.id))
        return self._revision, ordered
