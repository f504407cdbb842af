"""Keys that sign access tokens: P-256, one PEM file (PKCS #8) each, that only its owner reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc.jwk import ECKey

from gateway.core.errors import ConfigurationError, CountersignError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NUMBER_BYTES: Final = 32


class LocalSigner:
    """The `Signer` port over a key in this process: from a file, or, in tests, from nowhere."""

    alg: Final = "ES256"

    def __init__(self, key: ECKey) -> None:
        self._key: ECKey | None = key
        self.kid: Final = str(key.kid)
        self.public: Final[Mapping[str, str]] = public_jwk(key)

    async def sign(self, data: bytes) -> bytes:
        """Return r and s. Takes about 30 µs, so it needs no thread."""
        if self._key is None:
            raise CountersignError("the token key was closed", code="signer_unavailable")
        return sign_es256(self._key, data)

    async def close(self) -> None:
        """Forget the key."""
        self._key = None


def sign_es256(key: ECKey, data: bytes) -> bytes:
    """Return the signature over `data` as RFC 7518 §3.4 has it: r and s, 32 bytes each."""
    private = key.private_key
    assert private is not None  # noqa: S101 - every maker of a key here makes a private one
    r, s = decode_dss_signature(private.sign(data, ECDSA(SHA256())))
    return r.to_bytes(_NUMBER_BYTES, "big") + s.to_bytes(_NUMBER_BYTES, "big")


def public_jwk(key: ECKey) -> dict[str, str]:
    """Return the public half, as it is published."""
    found = {name: str(value) for name, value in key.as_dict(private=False).items()}
    return {**found, "kid": str(key.kid)}


def generate_token_key() -> ECKey:
    """Return a fresh key; its `kid` is its RFC 7638 thumbprint."""
    return _named(generate_private_key(SECP256R1()))


def create_token_key(path: Path) -> ECKey:
    """Generate a key into a new file of mode 0600. Raises `FileExistsError`; never overwrites."""
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return _named(key)


def load_token_key(path: Path) -> ECKey:
    """Return the key in `path`.

    Raises `ConfigurationError` for a file that is missing, that others may read, or that holds no
    unencrypted P-256 key.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise ConfigurationError(f"`{path}` can be read by others; run `chmod 600 {path}`")
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != SECP256R1.name:
        raise ConfigurationError(
            f"`{path}` is not an unencrypted P-256 key in PEM; `countersign init` makes one"
        )
    return _named(key)


def load_or_create_token_key(path: Path) -> ECKey:
    """Return the key in `path`, generating it first where there is no such file."""
    try:
        return create_token_key(path)
    except FileExistsError:
        return load_token_key(path)


def _named(key: EllipticCurvePrivateKey) -> ECKey:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    named = ECKey.import_key(pem, {"use": "sig", "alg": "ES256"})
    named.ensure_kid()
    return named
