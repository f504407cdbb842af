"""Lines of a stream: how long one may be, and how many are taken at a time."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

TURN_LINES: Final = 64
PAUSE_S: Final = 0.001
"""After so many lines of one upstream the others have their turn: one that floods the gateway must
not hold them up."""

HEAD: Final = 256
"""How much is kept of a line that is too long: enough to see whose it was."""


class Oversize(Struct, frozen=True):
    """A line past the limit: only how it begins is kept."""

    head: bytes


class LineReader:
    """Cuts a stream into lines; one that is too long is passed over, not kept."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: Final = max_bytes
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes | Oversize]:
        """Return the lines that `chunk` completes, in order."""
        found: list[bytes | Oversize] = []
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._add(end)
            line = b"".join(self._rest)
            found.append(line if self._size <= self.max_bytes else Oversize(line[:HEAD]))
            self._rest, self._size = [], 0
        self._add(rest)
        return found

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self.max_bytes:
            self._rest.append(part)
        else:
            self._rest = [b"".join(self._rest)[:HEAD] or part[:HEAD]]
