"""`WWW-Authenticate` as MCP authorization and RFC 6750, RFC 9449, RFC 9728 say."""

from __future__ import annotations

from typing import Final

from gateway.core.oauth.dpop import ALGORITHMS
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST

_INVALID: Final = frozenset({"token_invalid", "token_expired", "token_audience", "token_revoked"})
_PROOF: Final = {
    "proof_missing": "invalid_dpop_proof",
    "proof_invalid": "invalid_dpop_proof",
    "proof_replayed": "invalid_dpop_proof",
    "proof_nonce": "use_dpop_nonce",
    "token_unbound": "invalid_token",
}
"""Refusals that are told in the scheme `DPoP` whichever was used: code → error (RFC 9449 §7.1)."""


class Challenges:
    """Tells a caller who was turned away where to get a token, and with which scopes."""

    def __init__(self, public_url: str) -> None:
        self._metadata = f"{public_url}/.well-known/oauth-protected-resource"
        self._scope = f"{SCOPE_LIST} {SCOPE_CALL}"

    def headers(self, code: str, path: str) -> list[tuple[bytes, bytes]]:
        """Return the challenge that goes with a refusal of this code at `path`, if one does."""
        if not code:
            return []
        parts = [f'resource_metadata="{self._metadata}{path}"', f'scope="{self._scope}"']
        if (error := _PROOF.get(code)) is not None:
            parts = [f'error="{error}"', *parts, f'algs="{" ".join(ALGORITHMS)}"']
            return [(b"www-authenticate", b"DPoP " + ", ".join(parts).encode("ascii"))]
        if code == "scope_insufficient":
            parts.insert(0, 'error="insufficient_scope"')
        elif code in _INVALID:
            parts.insert(0, 'error="invalid_token"')
        elif code != "token_missing":
            return []
        return [(b"www-authenticate", b"Bearer " + ", ".join(parts).encode("ascii"))]
