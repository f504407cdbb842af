"""Access tokens as ES256 `at+jwt` (RFC 9068) over joserfc: `TokenIssuer` and `TokenVerifier`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal, NoReturn

import msgspec
import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from msgspec import Struct

from gateway.adapters.keys.compact_jws import decode_base64url
from gateway.adapters.keys.token_keys import sign_es256
from gateway.core.errors import CredentialError
from gateway.core.ports import Signer
from gateway.core.tokens import jwt_claims
from gateway.core.tokens.token import Claims

ALGORITHM: Final = "ES256"
TYPE: Final = "at+jwt"
TOKEN_MAX_BYTES: Final = 49_152
CACHE_MAX: Final = 4096
"""Verified tokens kept: two minutes of a new token every 30 ms."""

_SIGNATURE_BYTES: Final = 64


class JoseIssuer:
    """Signs with one key; publishes it together with others.

    `published` are public keys (JWK): those of tokens that may still be alive, and those that will
    sign next, so that caches of the JWKS know them in time. The signer's own comes by itself.
    """

    def __init__(self, signer: Signer, *, published: Sequence[Mapping[str, str]] = ()) -> None:
        self.use(signer, published)

    def use(self, signer: Signer, published: Sequence[Mapping[str, str]] = ()) -> None:
        """Sign with another key from now on. A token that is being signed keeps its key."""
        others = [dict(key) for key in published if key["kid"] != signer.kid]
        self._signer = signer
        self._published = [dict(signer.public), *others]

    async def issue(self, claims: Claims) -> str:
        """Return a signed `at+jwt` that says exactly `claims`."""
        signer = self._signer  # one key for header and signature, whatever happens meanwhile
        said = _signing_input(claims, signer.kid)
        return f"{said}.{_encode(await signer.sign(said.encode()))}"

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517)."""
        return {"keys": [dict(key) for key in self._published]}


def sign_token(claims: Claims, key: ECKey) -> str:
    """Return what `JoseIssuer.issue` would, signed at once with a key of this process."""
    said = _signing_input(claims, str(key.kid))
    return f"{said}.{_encode(sign_es256(key, said.encode()))}"


def _signing_input(claims: Claims, kid: str) -> str:
    header = orjson.dumps({"alg": ALGORITHM, "typ": TYPE, "kid": kid})
    return f"{_encode(header)}.{_encode(orjson.dumps(jwt_claims.encode(claims)))}"


def _encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    """The header that this gateway writes. Any other is none of its tokens (`crit`, `jwk`, …)."""

    alg: Literal["ES256"]
    typ: Literal["at+jwt"]
    kid: str


_read_header: Final = msgspec.json.Decoder(_Header)


class JoseVerifier:
    """Believes tokens that one of `keys` signed for this issuer, audience and environment.

    Verified claims are kept by the SHA-256 of the whole token until they expire, at most
    `CACHE_MAX` of them; the same token gives the same `Claims` object while it is kept.
    """

    def __init__(
        self, keys: Sequence[ECKey], *, issuer: str, audience: str, environment: str
    ) -> None:
        self._keys = {key.kid: key for key in keys}
        self._issuer = issuer
        self._audience = audience
        self._environment = environment
        self._known: dict[bytes, tuple[Claims, int]] = {}
        self._named = (b"", hashlib.sha256().digest())

    def use(self, keys: Sequence[ECKey]) -> None:
        """Believe these keys from now on. Tokens of a key that is gone are forgotten at once."""
        found = {key.kid: key for key in keys}
        if not self._keys.keys() <= found.keys():
            self._known.clear()
        self._keys = found

    def verify(self, token: bytes, now_s: int) -> Claims:
        """Return the claims of a genuine, live token for this gateway.

        Raises `CredentialError`: `token_missing`, `token_invalid`, `token_expired`,
        `token_audience`. The token itself is in no message.
        """
        name = self._name(token)
        known = self._known.get(name)
        if known is None:
            known = self._believe(token)
            self._keep(name, known, now_s)
        claims, not_before = known
        if now_s >= claims.expires_at:
            self._known.pop(name, None)
            raise CredentialError("the token has expired", code="token_expired")
        if now_s < not_before or now_s < claims.issued_at:
            raise CredentialError("the token is not valid yet; check the clocks")
        return claims

    def _name(self, token: bytes) -> bytes:
        """Return what a token is kept by; the same object asked about again is not hashed again.

        A call asks about its token before and after its body is read.
        """
        named, name = self._named
        if named is not token:
            name = hashlib.sha256(token).digest()
            self._named = (token, name)
        return name

    def _believe(self, token: bytes) -> tuple[Claims, int]:
        """Check everything about a token that time does not change."""
        # 1. No token, and floods of bytes: not worth a signature check.
        if not token:
            raise CredentialError("no token was sent", code="token_missing")
        parts = token.split(b".")
        if len(parts) != 3 or len(token) > TOKEN_MAX_BYTES:  # noqa: PLR2004 - header.payload.signature
            _refuse("it is no signed token")
        # 2. `alg: none`, HS256 with our public key as the secret, ID tokens, `crit`: the header
        #    must be exactly one of ours, and only then chooses among our own keys.
        try:
            header = _read_header.decode(_decode(parts[0]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            _refuse("its header is not that of an access token")
        key = self._keys.get(header.kid)
        if key is None:
            _refuse("no key of this gateway signed it")
        # 3. Altered bytes, those that decode to the same signature included.
        if len(_decode(parts[2])) != _SIGNATURE_BYTES:
            _refuse("its signature has the wrong length")
        try:
            signed = jws.deserialize_compact(token, key, [ALGORITHM])
        except (JoseError, ValueError):
            _refuse("its signature does not match")
        # 4. Tokens of another issuer or environment, or for another service.
        claims, not_before = jwt_claims.decode(signed.payload)
        if claims.issuer != self._issuer or claims.environment != self._environment:
            _refuse("another gateway issued it")
        if claims.audience != self._audience:
            raise CredentialError("the token is for another service", code="token_audience")
        return claims, not_before

    def _keep(self, name: bytes, known: tuple[Claims, int], now_s: int) -> None:
        if len(self._known) >= CACHE_MAX:
            live = {n: k for n, k in self._known.items() if k[0].expires_at > now_s}
            excess = max(0, len(live) - CACHE_MAX // 2)  # the oldest first: they expire first
            self._known = dict(islice(live.items(), excess, None))
        self._known[name] = known


def _decode(part: bytes) -> bytes:
    decoded = decode_base64url(part)
    if decoded is None:
        _refuse("it is not canonical base64url")
    return decoded


def _refuse(why: str) -> NoReturn:
    raise CredentialError(f"the token is not valid: {why}; get a new one")
