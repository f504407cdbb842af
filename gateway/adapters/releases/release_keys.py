"""Publishers' private keys in PEM files (PKCS #8), made and read by `countersign policy`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.core.errors import ConfigurationError
from gateway.core.releases.publisher_keys import PrivateKey, PublisherKey, public_of

_OTHERS: int = 0o077


def create_key(path: Path, alg: Literal["EdDSA", "ES256"]) -> PublisherKey:
    """Make a key at `path` and its public half at `<path>.pub`; nothing is overwritten.

    Raises `ConfigurationError`.
    """
    private: PrivateKey
    if alg == "EdDSA":
        private = Ed25519PrivateKey.generate()
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        with _created(path, secret, 0o600), _created(Path(f"{path}.pub"), public, 0o644):
            pass  # both, or none of them
    except FileExistsError:
        raise ConfigurationError(f"`{path}` or its `.pub` exists; name another file") from None
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be written: {error.strerror}") from None
    return public_of(private)


def load_key(path: Path) -> PrivateKey:
    """Read a private key. Raises `ConfigurationError`, also where others may read the file."""
    try:
        if path.stat().st_mode & _OTHERS:
            raise ConfigurationError(f"`{path}` can be read by others; `chmod 600` it")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ConfigurationError(
        f"`{path}` holds no private key of Ed25519 or P-256; make one: `countersign policy keygen`"
    )


@contextmanager
def _created(path: Path, content: bytes, mode: int) -> Iterator[None]:
    """Create a file that must not exist; it is removed again where not all goes well."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield
    except BaseException:
        path.unlink()
        raise
