"""Public keys as policies hold them (PEM or JWK), and the signatures that they check."""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_public_key

_PEM: Final = re.compile(
    r"-----BEGIN (CERTIFICATE|PUBLIC KEY)-----\r?\n[A-Za-z0-9+/=\r\n]+-----END \1-----\r?\n?"
)
_HASHES: Final = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_RSA_MIN_BITS: Final = 1024
_ALGORITHMS: Final = frozenset(
    {*(f"{kind}{size}" for kind in ("RS", "PS", "ES", "HS") for size in (256, 384, 512)), "EdDSA"}
)
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "x5c")
_ED25519_SIGNATURE_BYTES: Final = 64


class KeyTextError(ValueError):
    """Keys that cannot be read. OPA may read them; here that is an error."""


class Key(NamedTuple):
    """A key with what a set says of it. `alg` and `kid` are empty where it does not."""

    alg: str
    kid: str
    key: Any


@lru_cache(maxsize=64)
def read_keys(text: str) -> tuple[Key, ...]:
    """Return the keys in a PEM certificate, a PEM public key, a JWK, or a JWK set."""
    found = _PEM.fullmatch(text)
    if found is None:
        return tuple(_read_jwks(text))
    if found[1] == "CERTIFICATE":
        return (Key("", "", _checked(x509.load_pem_x509_certificate(text.encode()).public_key())),)
    return (Key("", "", _checked(load_pem_public_key(text.encode()))),)


def _read_jwks(text: str) -> list[Key]:
    value = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise KeyTextError("keys are a PEM text, a JWK or a JWK set")
    return [_read_jwk(each) for each in value.get("keys", [value])]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise KeyTextError("a member is given twice")
    return found


def _read_jwk(value: dict[str, Any]) -> Key:
    if any(name in value for name in _PRIVATE):
        raise KeyTextError("only plain public keys are read")
    if not all(isinstance(each, str) for each in value.values()):
        raise KeyTextError("a member of a key is no text")
    key: Any
    if value["kty"] == "RSA":
        key = rsa.RSAPublicNumbers(_integer(value["e"]), _integer(value["n"])).public_key()
    elif value["kty"] == "EC":
        curve = _CURVES[value["crv"]]
        key = ec.EllipticCurvePublicNumbers(
            _integer(value["x"]), _integer(value["y"]), curve
        ).public_key()
    elif (value["kty"], value["crv"]) == ("OKP", "Ed25519"):
        key = ed25519.Ed25519PublicKey.from_public_bytes(_bytes(value["x"]))
    else:
        raise KeyTextError("a key of an unknown kind")
    alg = value.get("alg", "")
    if alg and alg not in _ALGORITHMS:
        raise KeyTextError("an algorithm that is not known")
    return Key(alg, value.get("kid", ""), _checked(key))


def _bytes(text: str) -> bytes:
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) is None:
        raise KeyTextError("a member of a key is not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _integer(text: str) -> int:
    return int.from_bytes(_bytes(text))


def _checked(key: object) -> object:
    """Refuse keys of which OPA thinks otherwise."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_MIN_BITS:
        raise KeyTextError("an RSA key is too short")
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not any(isinstance(key.curve, type(curve)) for curve in _CURVES.values()):
            raise KeyTextError("a curve that is not read")
    elif not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise KeyTextError("a key of an unknown kind")
    return key


def verifies(kind: str, key: object, digest: bytes, signature: bytes) -> bool:
    """Whether a key made this signature. `digest` is the signed text itself for `eddsa`."""
    try:
        if kind == "eddsa":
            return _verifies_eddsa(key, digest, signature)
        if kind == "es":
            return _verifies_ecdsa(key, digest, signature)
        return _verifies_rsa(kind, key, digest, signature)
    except InvalidSignature:
        return False


def _verifies_rsa(kind: str, key: object, digest: bytes, signature: bytes) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    used = _HASHES[len(digest)]
    scheme: Any = padding.PKCS1v15()
    if kind == "ps":
        scheme = padding.PSS(mgf=padding.MGF1(used), salt_length=padding.PSS.AUTO)
    key.verify(signature, digest, scheme, utils.Prehashed(used))
    return True


def _verifies_ecdsa(key: object, digest: bytes, signature: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    half = len(signature) // 2
    pair = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    if 0 in pair:
        return False
    used = utils.Prehashed(_HASHES[len(digest)])
    key.verify(utils.encode_dss_signature(*pair), digest, ec.ECDSA(used))
    return True


def _verifies_eddsa(key: object, signed: bytes, signature: bytes) -> bool:
    if not isinstance(key, ed25519.Ed25519PublicKey):
        return False
    if len(signature) != _ED25519_SIGNATURE_BYTES:
        return False
    key.verify(signature, signed)
    return True
