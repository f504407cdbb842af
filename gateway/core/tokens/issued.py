"""Which tokens are alive: an index of what the log says was issued (DESIGN §4).

The log is what is durable; this is memory, made anew from it at each start. It is for people to
look at. What bars a token does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.core.tokens.token import Claims

TOKENS_MAX: Final = 100_000
"""Live tokens kept. Past it the oldest are left out, and lists say so."""


class IssuedToken(Struct, frozen=True, kw_only=True):
    """A token as it was issued, without its text. Times in seconds. Names no natural person."""

    jti: str
    agent: str
    client: str
    run: str
    root: str
    issued_at: int
    expires_at: int
    scopes: tuple[str, ...] = ()
    depth: int = 0
    parent: str = ""


class IssuedTokens:
    """Live tokens in the order in which they were issued."""

    def __init__(self, most: int = TOKENS_MAX) -> None:
        self._most = most
        self._tokens: dict[str, IssuedToken] = {}
        self._left_out_until = 0

    def add(self, token: IssuedToken) -> None:
        """Keep a token. Forgets those over by the time it was issued; amortized constant time."""
        self._tokens[token.jti] = token
        for one in self._over(token.issued_at):
            del self._tokens[one.jti]

    def get(self, jti: str) -> IssuedToken | None:
        """Return a token that is kept, alive or just over."""
        return self._tokens.get(jti)

    def live(self, now_s: int) -> Iterator[IssuedToken]:
        """Yield the live tokens, newest first."""
        return (one for one in reversed(self._tokens.values()) if one.expires_at > now_s)

    def is_complete(self, now_s: int) -> bool:
        """Whether no live token was left out."""
        return now_s >= self._left_out_until

    def _over(self, now_s: int) -> list[IssuedToken]:
        """Return what may go: from the oldest on, what is over, and what does not fit."""
        over: list[IssuedToken] = []
        excess = len(self._tokens) - self._most
        for one in self._tokens.values():
            if one.expires_at > now_s:
                if len(over) >= excess:
                    break
                self._left_out_until = max(self._left_out_until, one.expires_at)
            over.append(one)
        return over


def describe_issued(claims: Claims) -> IssuedToken:
    """Return what is kept of a token that was just issued."""
    return IssuedToken(
        jti=claims.jti,
        agent=claims.subject,
        client=claims.client_id,
        run=claims.run_id,
        root=claims.root_jti,
        issued_at=claims.issued_at,
        expires_at=claims.expires_at,
        scopes=tuple(sorted(claims.scopes)),
        depth=claims.depth,
        parent=claims.parent_jti,
    )


def read_issued(record: Mapping[str, Any]) -> IssuedToken:
    """Return what a `token.issue` record says."""
    return IssuedToken(
        jti=record["jti"],
        agent=record["agent"],
        client=record["client"],
        run=record["run"],
        root=record["root"],
        issued_at=record["ts"] // 1_000_000,
        expires_at=record["exp"],
        scopes=tuple(record.get("scopes", ())),
        depth=record.get("depth", 0),
        parent=record.get("parent", ""),
    )
