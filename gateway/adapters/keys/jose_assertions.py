"""Assertions of clients (RFC 7523) read, and the key sets that they are checked with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec
import orjson
from msgspec import UNSET, Struct, UnsetType

from gateway.adapters.keys.compact_jws import (
    UNREADABLE,
    CompactJws,
    PublicKey,
    decode_base64url,
    read_public_key,
    split_compact,
)
from gateway.core.errors import ConfigurationError, CredentialError
from gateway.core.oauth.client_assertion import ALGORITHMS, ASSERTION_MAX_BYTES, AssertionClaims

KEYS_MAX: Final = 16
"""Keys of one client: each that fits may have to be tried."""

CACHE_MAX: Final = 4_096
"""Parsed keys kept, of all clients."""


class _Header(Struct, frozen=True):
    alg: str
    typ: Literal["JWT", "client-authentication+jwt"] | None = None
    kid: str | None = None
    crit: Any | UnsetType = UNSET


class _Whose(Struct, frozen=True):
    sub: str


_read_header: Final = msgspec.json.Decoder(_Header)
_read_whose: Final = msgspec.json.Decoder(_Whose)
_read_claims: Final = msgspec.json.Decoder(AssertionClaims)


class JoseAssertions:
    """Checks what an assertion is by itself: its form, its key and its signature."""

    def __init__(self) -> None:
        self._keys: dict[bytes, PublicKey | None] = {}

    def peek(self, assertion: bytes) -> str:
        """Return whose an assertion says to be. Nothing of it has been checked.

        Raises `CredentialError` for what is no JWT.
        """
        try:
            return _read_whose.decode(_split(assertion).payload).sub
        except UNREADABLE:
            _refuse("it names no client in `sub`")

    def read(self, assertion: bytes, jwks: Sequence[dict[str, Any]]) -> AssertionClaims:
        """Return the claims of an assertion that one of the keys in `jwks` signed.

        Raises `CredentialError`.
        """
        jws = _split(assertion)
        # 1. `alg: none`, HS256 with the public key as the secret, other kinds of JWT.
        decoded = decode_base64url(jws.header)
        try:
            header = _read_header.decode(b"" if decoded is None else decoded)
        except UNREADABLE:
            _refuse("its header is not that of an assertion")
        if header.crit is not UNSET or header.alg not in ALGORITHMS:
            _refuse(f"sign it with one of {', '.join(ALGORITHMS)}, without `crit`")
        # 2. Keys of the sender's choice: only those of its registration count.
        if not any(key.check(jws.signature, jws.signed) for key in self._choose(header, jwks)):
            _refuse("no key of this client signed it")
        try:
            return _read_claims.decode(jws.payload)
        except UNREADABLE:
            _refuse("it needs `iss`, `sub`, `aud`, `exp` and `jti`")

    def _choose(self, header: _Header, jwks: Sequence[dict[str, Any]]) -> list[PublicKey]:
        chosen: list[PublicKey] = []
        for jwk in jwks[:KEYS_MAX]:
            if header.kid is not None and jwk.get("kid", header.kid) != header.kid:
                continue
            key = self._load(jwk)
            if key is not None and header.alg in key.algorithms:
                chosen.append(key)
        return chosen

    def _load(self, jwk: dict[str, Any]) -> PublicKey | None:
        name = orjson.dumps(jwk)
        if name not in self._keys:
            if len(self._keys) >= CACHE_MAX:
                self._keys.clear()
            self._keys[name] = read_public_key(jwk)
        return self._keys[name]


def find_key_set_fault(document: object) -> str | None:
    """Return why a JWK set (RFC 7517 §5) does not do for a client, or None."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not 0 < len(keys) <= KEYS_MAX:
        return f"a JWK set is an object with `keys`, 1 to {KEYS_MAX} of them"
    for number, jwk in enumerate(keys):
        if not isinstance(jwk, dict) or read_public_key(jwk) is None:
            return f"key {number} is no public key of P-256, Ed25519, or RSA of 2048 to 4096 bits"
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", ALGORITHMS[0]) not in ALGORITHMS:
            return f"key {number} is not for signing with one of {', '.join(ALGORITHMS)}"
    return None


def load_key_set(path: Path) -> object:
    """Return the JSON in a file. Raises `ConfigurationError` where there is none."""
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise ConfigurationError(f"`{path}` is no JSON") from None


def _split(assertion: bytes) -> CompactJws:
    jws = split_compact(assertion, ASSERTION_MAX_BYTES)
    if jws is None:
        _refuse(f"it is no signed JWT of at most {ASSERTION_MAX_BYTES} bytes")
    return jws


def _refuse(why: str) -> NoReturn:
    raise CredentialError(f"the assertion is not valid: {why}")
