"""What a client's assertion must say to prove it: `private_key_jwt` (RFC 7523 §2.2, §3).

The assertion is a JWT that the client signs with its own key. Who sees one may not use it again,
and one made for another server is none for this one.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS: Final = ("ES256", "RS256", "Ed25519", "EdDSA")
"""RS256 with keys of 2048 bits or more."""

ASSERTION_MAX_BYTES: Final = 8_192
LIFE_MAX_S: Final = 300
SKEW_S: Final = 60
_ID_MAX_CHARS: Final = 256


class AssertionClaims(Struct, frozen=True):
    """The claims of an assertion. Others than these are ignored."""

    iss: str
    sub: str
    aud: str | tuple[str, ...]
    exp: int | float
    jti: str
    iat: int | float | None = None
    nbf: int | float | None = None


def find_assertion_fault(
    claims: AssertionClaims, client_id: str, audiences: frozenset[str], now_s: int
) -> str | None:
    """Return why an assertion is none of `client_id` for one of `audiences`, or None.

    `audiences` are the issuer and the token endpoint, for clients send either: both name nobody
    but this server. Exactly one audience may be named, as a text or as a list of one: what is made
    for two servers can be used by each of them at the other.
    """
    if not claims.iss == claims.sub == client_id:
        return "`iss` and `sub` are the client's id"
    named = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if len(named) != 1 or named[0] not in audiences:
        return "`aud` is the issuer or the token endpoint, and nothing else"
    if claims.exp + SKEW_S <= now_s:
        return "it has expired"
    if claims.exp > now_s + LIFE_MAX_S + SKEW_S:
        return f"`exp` is more than {LIFE_MAX_S} s away"
    if max(claims.iat or 0, claims.nbf or 0) > now_s + SKEW_S:
        return "it is not valid yet"
    return None if 0 < len(claims.jti) <= _ID_MAX_CHARS else "`jti` is 1 to 256 characters"
