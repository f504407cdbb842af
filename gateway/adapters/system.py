"""The machine's own clock and randomness."""

from __future__ import annotations

import os
import secrets
import time


class SystemClock:
    """The `Clock` port over the operating system's clocks."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back."""
        return time.monotonic_ns()


_ID_BYTES = 10
_STOCK = 400


class SystemIds:
    """The `Ids` port: 48 bits of milliseconds, then 80 random bits (as UUID version 7 orders).

    The system's randomness is fetched for 400 ids at a time: asking for each one costs a system
    call, and lets every other thread in between. Secrets are never taken from the stock.
    """

    def __init__(self) -> None:
        self._stock: list[str] = []

    def new(self) -> str:
        """Return 32 hex digits."""
        if not self._stock:
            self._stock = os.urandom(_ID_BYTES * _STOCK).hex(" ", _ID_BYTES).split()
        return f"{time.time_ns() // 1_000_000:012x}{self._stock.pop()}"

    def secret(self) -> str:
        """Return 256 random bits, URL-safe."""
        return secrets.token_urlsafe(32)
