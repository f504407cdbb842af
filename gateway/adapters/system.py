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


class SystemIds:
    """The `Ids` port: 48 bits of milliseconds, then 80 random bits (as UUID version 7 orders)."""

    def new(self) -> str:
        """Return 32 hex digits."""
        return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"

    def secret(self) -> str:
        """Return 256 random bits, URL-safe."""
        return secrets.token_urlsafe(32)
