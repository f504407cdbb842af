"""Sessions of the 2025-11-25 wire, each bound to the subject that opened it.

A session id is never a credential: every request carries its token, and a session answers only to
the agent and run that initialized it (session hijacking, MCP security best practices).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from gateway.core.tokens.token import Claims

_SESSIONS_MAX: Final = 10_000
_OWNER_MAX: Final = 100
"""Sessions of one agent in one run: nobody ends the sessions of others by opening more."""

_CAPABILITIES_MAX_BYTES: Final = 16_384
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
    capabilities: bytes
    log_level: str = "info"


class Sessions:
    """Open sessions, bounded: past a bound the one unused for longest ends."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._owned: dict[tuple[str, str], dict[str, None]] = {}

    def open(self, session_id: str, claims: Claims, capabilities: bytes) -> None:
        """Start a session for the bearer of `claims`. Capabilities too long to keep are dropped."""
        owner = _owner(claims)
        if len(self._owned.get(owner, ())) >= _OWNER_MAX:
            self.close(next(iter(self._owned[owner])))
        if len(self._open) >= _SESSIONS_MAX:
            self.close(next(iter(self._open)))
        fits = len(capabilities) <= _CAPABILITIES_MAX_BYTES
        self._open[session_id] = Session(owner, capabilities if fits else b"{}")
        self._owned.setdefault(owner, {})[session_id] = None

    def get(self, session_id: str, claims: Claims) -> Session | None:
        """Return the session if it is open and belongs to the bearer of `claims`."""
        session = self._open.get(session_id)
        if session is None or session.owner != _owner(claims):
            return None
        self._open.move_to_end(session_id)
        owned = self._owned[session.owner]
        owned[session_id] = owned.pop(session_id)
        return session

    def close(self, session_id: str) -> None:
        """End a session."""
        session = self._open.pop(session_id, None)
        if session is not None:
            owned = self._owned[session.owner]
            del owned[session_id]
            if not owned:
                del self._owned[session.owner]


def _owner(claims: Claims) -> tuple[str, str]:
    return claims.subject, claims.run_id
