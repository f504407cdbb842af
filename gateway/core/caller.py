"""What a token fixes for as long as it lives, worked out once per token."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from gateway.core.calls.policy_input import CallerFragments, build_caller
from gateway.core.records.call_records import build_actor
from gateway.core.tokens.grants import Bounds, CompiledGrants
from gateway.core.tokens.spending import Spender, build_spender
from gateway.core.tokens.token import Claims

_CACHE_MAX: Final = 4096


class Caller(Struct, frozen=True):
    """What a token grants, whose counts its calls add to, and how inputs and records name it."""

    grants: CompiledGrants
    spender: Spender
    fragments: CallerFragments
    actor: dict[str, Any]
    allowed: dict[str, frozenset[str]] = {}
    """By tool id: the run's allowed values, as they are compared (`provenance.build_allowed`)."""


def build_caller_view(claims: Claims, known: dict[str, Bounds] | None = None) -> Caller:
    """Work out everything that `claims` fixes. `known`: see `CompiledGrants`."""
    return Caller(
        CompiledGrants(claims, known),
        build_spender(claims),
        build_caller(claims),
        build_actor(claims),
    )


class CallerCache:
    """Callers by token id.

    INVARIANT: holds only what follows from the claims, so a stale entry cannot widen anything; who
    may call at all is asked anew for every call.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Claims, Caller]] = {}
        self._bounds: dict[str, Bounds] = {}

    def get(self, claims: Claims) -> Caller:
        """Return the caller of these claims."""
        known = self._known.get(claims.jti)
        if known is not None and known[0] is claims:
            return known[1]
        if len(self._known) >= _CACHE_MAX:
            self._known.clear()
        if len(self._bounds) >= _CACHE_MAX:
            self._bounds.clear()
        caller = build_caller_view(claims, self._bounds)
        self._known[claims.jti] = (claims, caller)
        return caller
