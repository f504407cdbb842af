"""Sessions of the 2025-11-25 wire, each bound to the subject that opened it.

A session id is never a credential: every request carries its token, and a session answers only to
the agent and run that initialized it (session hijacking, MCP security best practices).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from gateway.core.token import Claims

_SESSIONS_MAX: Final = 10_000
LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)


class Session(Struct):
    """What a client declared at initialize, and the log level that it asked for since."""

    owner: tuple[str, str]
    version: str
    capabilities: bytes
    log_level: str = "info"


class Sessions:
    """Open sessions, bounded: past the bound the one unused for longest ends."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Session] = OrderedDict()

    def open(self, session_id: str, claims: Claims, version: str, capabilities: bytes) -> None:
        """Start a session for the bearer of `claims`."""
        if len(self._open) >= _SESSIONS_MAX:
            self._open.popitem(last=False)
        self._open[session_id] = Session(_owner(claims), version, capabilities)

    def get(self, session_id: str, claims: Claims) -> Session | None:
        """Return the session if it is open and belongs to the bearer of `claims`."""
        session = self._open.get(session_id)
        if session is None or session.owner != _owner(claims):
            return None
        self._open.move_to_end(session_id)
        return session

    def close(self, session_id: str) -> None:
        """End a session."""
        self._open.pop(session_id, None)


def _owner(claims: Claims) -> tuple[str, str]:
    return claims.subject, claims.run_id
