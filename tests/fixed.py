"""Time and ids that tests choose: a clock that moves only when told, ids that count up."""

from __future__ import annotations

import itertools
from typing import Final

NOW_S: Final = 1_800_000_000


class FixedClock:
    """A `Clock` that moves only when told. `now_s`: seconds since 1970."""

    def __init__(self, now_s: int = NOW_S) -> None:
        self.now_s = now_s
        self._set_s = 0

    def now_ns(self) -> int:
        return self.now_s * 1_000_000_000

    def monotonic_ns(self) -> int:
        return (self.now_s - self._set_s) * 1_000_000_000

    def set_by(self, seconds: int) -> None:
        """Set the time of day, as people and time servers do. No time passes by that."""
        self.now_s += seconds
        self._set_s += seconds


class HandClock:
    """A `Clock` that moves only when told, by parts of a second too. `ns`: since 1970."""

    def __init__(self, now_s: int = NOW_S) -> None:
        self.ns = now_s * 1_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * 1_000_000_000)


class CountingIds:
    """Ids and secrets that count up, of the right shape."""

    def __init__(self, start: int = 1) -> None:
        self._numbers = itertools.count(start)

    def new(self) -> str:
        return f"{next(self._numbers):032x}"

    def secret(self) -> str:
        return f"{next(self._numbers):043d}"
