"""Signed JWTs of others (RFC 7515): taken apart strictly, and checked under pinned algorithms.

For proofs and assertions, whose keys are their senders' own. Access tokens of this gateway are
read by `jose_tokens`. The primitives are those of `cryptography`, called without the algorithm
registry of a JOSE library: what is not in the tables below cannot be asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from msgspec import Struct

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a stranger's JSON raises; the last for brackets in brackets."""

RSA_MIN_BITS: Final = 2_048
RSA_MAX_BITS: Final = 4_096
"""A longer key makes us work for whoever sends it, and nobody needs it."""

_PUBLIC_MEMBERS: Final = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVE_BYTES: Final = 32
_ES256: Final = ECDSA(SHA256())

Check = Callable[[bytes, bytes], bool]
"""Says whether a signature (first) is that of a message (second)."""


class CompactJws(Struct, frozen=True):
    """A JWS in three parts. `header` is still encoded; nothing in it is believed yet."""

    header: bytes
    payload: bytes
    signed: bytes
    signature: bytes


class PublicKey(Struct, frozen=True):
    """A public key for the algorithms it is good for. `thumbprint`: RFC 7638, SHA-256."""

    algorithms: frozenset[str]
    thumbprint: str
    check: Check


def split_compact(text: bytes, max_bytes: int) -> CompactJws | None:
    """Take a compact JWS apart; None for what is too large, malformed or not canonical."""
    parts = text.split(b".")
    if len(text) > max_bytes or len(parts) != 3:  # noqa: PLR2004 - header.payload.signature
        return None
    payload, signature = decode_base64url(parts[1]), decode_base64url(parts[2])
    if payload is None or not signature:
        return None
    return CompactJws(parts[0], payload, parts[0] + b"." + parts[1], signature)


def decode_base64url(part: bytes) -> bytes | None:
    """Base64url, canonical only: two spellings of one token would be two tokens in one."""
    try:
        decoded = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return decoded if base64.urlsafe_b64encode(decoded).rstrip(b"=") == part else None


def read_public_key(jwk: dict[str, Any]) -> PublicKey | None:
    """Return the key of a JWK (RFC 7517); None for one that is private, weak or of another kind.

    Good are P-256, Ed25519, and RSA of 2048 to 4096 bits. Members beside the key's own numbers
    (`kid`, `use`, `alg`, `x5c`, …) are left to the caller.
    """
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        return None
    kind = jwk.get("kty")
    members = _PUBLIC_MEMBERS.get(kind) if isinstance(kind, str) else None
    if members is None or not all(_is_number(jwk, name) for name in members if name != "crv"):
        return None
    plain: dict[str, str | list[str]] = {"kty": str(kind)}
    plain.update((name, str(jwk.get(name))) for name in members)
    try:
        match kind, jwk.get("crv"):
            case "EC", "P-256":
                return _read_p256(ECKey.import_key(plain))
            case "OKP", "Ed25519":
                return _read_ed25519(OKPKey.import_key(plain))
            case "RSA", _:
                return _read_rsa(RSAKey.import_key(plain))
            case _:
                return None
    except (JoseError, ValueError, TypeError):  # no point of the curve, no number
        return None


def _is_number(jwk: dict[str, Any], name: str) -> bool:
    """Whether a member is of a good size and in its one spelling: a key has one thumbprint."""
    value = jwk.get(name)
    decoded = decode_base64url(value.encode("utf-8", "replace")) if isinstance(value, str) else None
    if not decoded:
        return False
    if name == "n" and not RSA_MIN_BITS <= int.from_bytes(decoded).bit_length() <= RSA_MAX_BITS:
        return False
    return decoded[0] != 0 if name in {"n", "e"} else len(decoded) == _CURVE_BYTES


def _read_p256(key: ECKey) -> PublicKey:
    public = key.public_key

    def check(signature: bytes, message: bytes) -> bool:
        if len(signature) != 2 * _CURVE_BYTES:
            return False
        halves = signature[:_CURVE_BYTES], signature[_CURVE_BYTES:]
        encoded = encode_dss_signature(*(int.from_bytes(half) for half in halves))
        return _holds(lambda: public.verify(encoded, message, _ES256))

    return PublicKey(frozenset({"ES256"}), key.thumbprint(), check)


def _read_ed25519(key: OKPKey) -> PublicKey:
    public = cast("Ed25519PublicKey", key.public_key)  # as its `crv` says

    def check(signature: bytes, message: bytes) -> bool:
        return _holds(lambda: public.verify(signature, message))

    return PublicKey(frozenset({"Ed25519", "EdDSA"}), key.thumbprint(), check)


def _read_rsa(key: RSAKey) -> PublicKey:
    public = key.public_key

    def check(signature: bytes, message: bytes) -> bool:
        return _holds(lambda: public.verify(signature, message, PKCS1v15(), SHA256()))

    return PublicKey(frozenset({"RS256"}), key.thumbprint(), check)


def _holds(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True
