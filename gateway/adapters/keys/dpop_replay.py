"""Used proofs in memory: `core.ports.UsedProofs`, bounded, and never forgetting a live one."""

from __future__ import annotations

from typing import Final

from gateway.core.ports import Remembered

USED_MAX: Final = 400_000
"""Live proofs remembered, some 100 bytes each: 3,300 a second for the two minutes of a proof."""

_BUCKET_S: Final = 10


class MemoryUsedProofs:
    """Remembers what was used for as long as it could be used again.

    Kept in buckets by the end of their life, so that forgetting is dropping a whole bucket.

    INVARIANT: past `limit` nothing new is accepted; a live proof is never dropped to make room,
    for whoever makes the room could then use it again.
    """

    def __init__(self, limit: int = USED_MAX) -> None:
        self._limit = limit
        self._buckets: dict[int, set[bytes]] = {}
        self._count = 0

    def remember(self, name: bytes, until_s: int, now_s: int) -> Remembered:
        """Take note of `name` until after `until_s`; say whether it is `new`, `seen` or `full`."""
        self._forget(now_s)
        if any(name in bucket for bucket in self._buckets.values()):
            return "seen"
        if self._count >= self._limit:
            return "full"
        self._buckets.setdefault(until_s // _BUCKET_S, set()).add(name)
        self._count += 1
        return "new"

    def _forget(self, now_s: int) -> None:
        current = now_s // _BUCKET_S
        for over in [number for number in self._buckets if number < current]:
            self._count -= len(self._buckets.pop(over))
