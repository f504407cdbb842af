"""Keys that sign access tokens: P-256, one PEM file (PKCS #8) each, that only its owner reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc.jwk import ECKey, KeyParameters

from gateway.adapters.audit.audit_files import Files
from gateway.core.errors import ConfigurationError, CountersignError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NUMBER_BYTES: Final = 32
_USE: Final[KeyParameters] = {"use": "sig", "alg": "ES256"}
_STAMP: Final = "# countersign environment: "


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


def create_token_key(path: Path, *, environment: str = "", files: Files | None = None) -> ECKey:
    """Generate a key into a new file of mode 0600, durably, stamped with its environment.

    Raises `FileExistsError`; never overwrites.
    """
    files = files or Files()
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    stamp = f"{_STAMP}{environment}\n".encode() if environment else b""
    files.make_directory(path.parent)
    fresh = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    descriptor = files.create(fresh)
    try:
        files.write(descriptor, stamp + pem)
        files.sync(descriptor)
        os.link(fresh, path)  # all of it or nothing, and never over another
    finally:
        os.close(descriptor)
        fresh.unlink()
    files.sync_directory(path.parent)
    return _named(key)


def load_token_key(path: Path, *, environment: str = "", others: int = _OTHERS) -> ECKey:
    """Return the key in `path`. `others`: mode bits that the file must not have.

    Raises `ConfigurationError` for a file that is missing, that others may read, that holds no
    unencrypted P-256 key, or one that is stamped with another environment.
    """
    try:
        if path.stat().st_mode & others:
            raise ConfigurationError(f"`{path}` can be read by others; run `chmod 600 {path}`")
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None
    return read_token_key(pem, str(path), environment=environment)


def load_or_create_token_key(path: Path, *, environment: str = "") -> ECKey:
    """Return the key in `path`, generating it first where there is no such file."""
    try:
        return create_token_key(path, environment=environment)
    except FileExistsError:
        return load_token_key(path, environment=environment)


def read_token_key(pem: bytes, name: str, *, environment: str = "") -> ECKey:
    """Return the key in a PEM text that came from `name`. Raises `ConfigurationError`."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != SECP256R1.name:
        raise ConfigurationError(
            f"`{name}` is not an unencrypted P-256 key in PEM; `countersign init` makes one, as "
            "does `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
        )
    check_stamp(pem, name, environment)
    return _named(key)


def check_stamp(pem: bytes, name: str, environment: str) -> None:
    """Raise `ConfigurationError` for a key that was made for another environment.

    The stamp is a line before the PEM text (RFC 7468 §2 lets readers skip it).
    """
    head = pem.partition(b"-----BEGIN")[0].decode(errors="replace")
    found = [line.removeprefix(_STAMP) for line in head.splitlines() if line.startswith(_STAMP)]
    if environment and found and found != [environment]:
        raise ConfigurationError(
            f"`{name}`: this token key belongs to environment `{found[0]}`, not `{environment}`; "
            "give each environment keys of its own"
        )


def read_public_key(public: EllipticCurvePublicKey | Mapping[str, str]) -> ECKey:
    """Return a public key, named by its thumbprint."""
    if isinstance(public, EllipticCurvePublicKey):
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        named = ECKey.import_key(pem, _USE)
    else:
        named = ECKey.import_key({name: public[name] for name in ("kty", "crv", "x", "y")}, _USE)
    named.ensure_kid()
    return named


def _named(key: EllipticCurvePrivateKey) -> ECKey:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    named = ECKey.import_key(pem, _USE)
    named.ensure_kid()
    return named
