"""DPoP proofs (RFC 9449 §4) read: `core.ports.ProofReader`."""

from __future__ import annotations

from typing import Any, Final, Literal, NoReturn

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.adapters.keys.compact_jws import (
    UNREADABLE,
    PublicKey,
    decode_base64url,
    read_public_key,
    split_compact,
)
from gateway.core.errors import CredentialError
from gateway.core.oauth.dpop import ALGORITHMS, PROOF_MAX_BYTES, Proof, ProofClaims

KEYS_MAX: Final = 4_096
"""Headers remembered with their keys: a client's proofs all have the same one."""


class _Header(Struct, frozen=True):
    typ: Literal["dpop+jwt"]
    alg: str
    jwk: dict[str, Any]
    crit: Any | UnsetType = UNSET


_read_header: Final = msgspec.json.Decoder(_Header)
_read_claims: Final = msgspec.json.Decoder(ProofClaims)


class JoseProofs:
    """Checks what a proof is by itself: its form, its key and its signature."""

    def __init__(self) -> None:
        self._keys: dict[bytes, PublicKey] = {}

    def read(self, proof: bytes) -> Proof:
        """Return a proof whose signature is by the key that it shows.

        Raises `CredentialError` `proof_invalid`, whose message is safe to tell.
        """
        # 1. Floods of bytes, two proofs in one header, spellings that decode to the same.
        jws = split_compact(proof, PROOF_MAX_BYTES)
        if jws is None:
            _refuse(f"it is no signed JWT of at most {PROOF_MAX_BYTES} bytes")
        # 2. `alg: none`, HS256, other kinds of JWT, private keys, keys of other algorithms.
        key = self._keys.get(jws.header)
        fresh = key is None
        key = key or _read_key(jws.header)
        # 3. A proof by somebody else, who copied the public key.
        if not key.check(jws.signature, jws.signed):
            _refuse("its signature does not match its `jwk`")
        if fresh:
            self._keep(jws.header, key)
        try:
            return Proof(key.thumbprint, _read_claims.decode(jws.payload))
        except UNREADABLE:
            _refuse("it needs `jti`, `htm`, `htu` and `iat`")

    def _keep(self, header: bytes, key: PublicKey) -> None:
        if len(self._keys) >= KEYS_MAX:
            del self._keys[next(iter(self._keys))]  # forgetting costs time only
        self._keys[header] = key


def _read_key(encoded: bytes) -> PublicKey:
    decoded = decode_base64url(encoded)
    try:
        header = _read_header.decode(b"" if decoded is None else decoded)
    except UNREADABLE:
        _refuse("its header needs `typ: dpop+jwt`, `alg` and a public `jwk`")
    if header.crit is not UNSET or header.alg not in ALGORITHMS:
        _refuse(f"sign it with one of {', '.join(ALGORITHMS)}, without `crit`")
    key = read_public_key(header.jwk)
    if key is None or header.alg not in key.algorithms:
        _refuse("its `jwk` must be a public key, of P-256 or Ed25519, that fits `alg`")
    return key


def _refuse(why: str) -> NoReturn:
    raise CredentialError(f"the proof is not valid: {why}", code="proof_invalid")
