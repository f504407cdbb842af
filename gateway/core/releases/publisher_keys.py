"""Keys of publishers, and what they sign: JWTs (RFC 7515) under Ed25519 or ES256, nothing else."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from msgspec import Struct

from gateway.core import canonical, strict_json
from gateway.core.errors import RequestError

Alg = Literal["EdDSA", "ES256"]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_SPELLINGS: Final = {"EdDSA": "EdDSA", "Ed25519": "EdDSA", "ES256": "ES256"}
_HALF: Final = 32
_JWT_MAX_BYTES: Final = 8 << 20
_DEPTH_MAX: Final = 8
UNSIGNED: Final = "signature_invalid"


class PublisherKey(Struct, frozen=True):
    """A public key. `kid`: RFC 7638 thumbprint, which stands for it in records.

    `text` is how configurations name it: base64 of its SubjectPublicKeyInfo (RFC 5280).
    """

    kid: str
    alg: Alg
    text: str

    def check(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature."""
        key = _load(self.text)
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            elif len(signature) != 2 * _HALF:
                return False
            else:
                halves = signature[:_HALF], signature[_HALF:]
                encoded = encode_dss_signature(*(int.from_bytes(half) for half in halves))
                key.verify(encoded, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def read_key(text: str) -> PublisherKey:
    """Return the key that a text names. Raises `ValueError` for one that is no good."""
    key = _load(text)
    if isinstance(key, Ed25519PublicKey):
        members = {"crv": "Ed25519", "kty": "OKP", "x": _b64(key.public_bytes_raw())}
        return PublisherKey(_thumbprint(members), "EdDSA", text)
    numbers = key.public_numbers()
    x, y = (number.to_bytes(_HALF) for number in (numbers.x, numbers.y))
    members = {"crv": "P-256", "kty": "EC", "x": _b64(x), "y": _b64(y)}
    return PublisherKey(_thumbprint(members), "ES256", text)


def public_of(private: PrivateKey) -> PublisherKey:
    """Return the public half of a key."""
    encoded = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return read_key(base64.b64encode(encoded).decode())


def sign_jwt(private: PrivateKey, payload: dict[str, Any], typ: str) -> str:
    """Return a JWT over `payload`, with the key's `kid` in its header."""
    key = public_of(private)
    header = {"alg": key.alg, "kid": key.kid, "typ": typ}
    message = b".".join(_b64(canonical.canonicalize(part)).encode() for part in (header, payload))
    if isinstance(private, Ed25519PrivateKey):
        signature = private.sign(message)
    else:
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256())))
        signature = r.to_bytes(_HALF) + s.to_bytes(_HALF)
    return f"{message.decode()}.{_b64(signature)}"


def find_kid(token: str) -> str:
    """Return the `kid` of a JWT's header; nothing is believed yet. Empty where there is none."""
    kid = _read_header(token).get("kid", "")
    return kid if isinstance(kid, str) else ""


def read_jwt(token: str, key: PublisherKey, typ: str) -> dict[str, Any]:
    """Return the payload of a JWT that `key` signed. Raises `RequestError` with the reason.

    What `opa sign` makes, whose header has no `kid`, is read like one with the right `kid`.
    """
    header = _read_header(token)
    # 1. `none`, or HMAC under the public key: the algorithm is the key's, never the token's.
    if _SPELLINGS.get(str(header.get("alg"))) != key.alg:
        raise _bad(f"`{str(header.get('alg'))[:16]}` is not the algorithm of this key ({key.alg})")
    # 2. A token of another kind, made for somewhere else by the same key.
    if header.get("typ") != typ or "crit" in header:
        raise _bad(f"it is no `{typ}`")
    if header.get("kid", key.kid) != key.kid:
        raise _bad("it names another key")
    head, _, tail = token.rpartition(".")
    signature = _unb64(tail)
    if not key.check(signature, head.encode()):
        raise _bad("the signature is not of this key over these bytes")
    payload = strict_json.parse(_unb64(head.partition(".")[2]), max_depth=_DEPTH_MAX)
    if not isinstance(payload, dict):
        raise _bad("it holds no claims")
    return payload


def _read_header(token: str) -> dict[str, Any]:
    if len(token) > _JWT_MAX_BYTES or token.count(".") != 2:  # noqa: PLR2004 - header.payload.signature
        raise _bad("it is no signed JWT")
    header = strict_json.parse(_unb64(token.partition(".")[0]), max_depth=_DEPTH_MAX)
    if not isinstance(header, dict):
        raise _bad("its header cannot be read")
    return header


def _load(text: str) -> Ed25519PublicKey | ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        key = None
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError("is no public key; copy the line that `countersign policy keygen` prints")


def _thumbprint(members: dict[str, str]) -> str:
    return _b64(hashlib.sha256(canonical.canonicalize(members)).digest())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    """Base64url, canonical only: two spellings of one signature would be two signatures."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or _b64(data) != text:
        raise _bad("it is not written in base64url")
    return data


def _bad(why: str) -> RequestError:
    return RequestError(f"the signature does not hold: {why}", code=UNSIGNED)
