"""Which engines a worker holds: one for each set of packages, as many as fit in so many bytes."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Final

ENGINES_MAX_BYTES: Final = 64 << 20
"""What the engines of one worker may take, beside the one that holds every package."""

ENGINE_BYTES: Final = 350_000
BYTES_PER_SOURCE_BYTE: Final = 80
"""Measured: an engine takes 0.34 MB, and 75 to 81 times the source of its modules beyond that."""


def estimate_bytes(source_bytes: int) -> int:
    """Return what an engine of so much Rego takes. Data is shared by all engines and costs none."""
    return ENGINE_BYTES + BYTES_PER_SOURCE_BYTE * source_bytes


def drop_command(number: int) -> bytes:
    """Return the command that has a process forget an engine."""
    return json.dumps({"do": "drop", "index": number}).encode()


class Engines:
    """The engines of one process by number, the least recently used first.

    INVARIANT: together they take at most `ENGINES_MAX_BYTES`, or there is only one of them.
    """

    def __init__(self) -> None:
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def copy(self) -> Engines:
        """Return what a copy of that process holds."""
        copied = Engines()
        copied._sizes = self._sizes.copy()
        return copied

    def use(self, number: int) -> bool:
        """Note that an engine is used; return whether it is there."""
        if number not in self._sizes:
            return False
        self._sizes.move_to_end(number)
        return True

    def add(self, number: int, size: int) -> list[int]:
        """Note that an engine is built; return those that have to go for it."""
        gone = []
        while self._sizes and sum(self._sizes.values()) + size > ENGINES_MAX_BYTES:
            gone.append(self._sizes.popitem(last=False)[0])
        self._sizes[number] = size
        return gone

    def remove(self, number: int) -> None:
        """Note that an engine could not be built."""
        self._sizes.pop(number, None)
