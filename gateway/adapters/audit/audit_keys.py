"""The key that signs the log's checkpoints: Ed25519, in a PEM file that only its owner reads."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.adapters.audit.audit_files import Files
from gateway.core.errors import ConfigurationError
from gateway.core.log import note

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
KEK_BYTES: Final = 32


def load_or_create(path: Path, *, name: str = "countersign/audit") -> tuple[Ed25519PrivateKey, str]:
    """Return the signing key at `path` and its verifier key under the log's `name` (its origin).

    A missing file is created, mode 0600, durably. Raises `ConfigurationError` for a file that
    others may read, or that holds no Ed25519 key.
    """
    try:
        signer = create_key(path)
    except FileExistsError:
        signer = load_key(path)
    return signer, vkey_of(signer, name)


def vkey_of(signer: Ed25519PrivateKey, name: str) -> str:
    """Return the verifier key (C2SP) of a signing key under the log's name."""
    return note.build_vkey(note.build_key(name, signer.public_key()))


def load_or_create_kek(path: Path) -> bytes:
    """Return the 32 bytes that wrap the data subjects' keys; create the file where it is missing.

    Raises `ConfigurationError` as `load_or_create` does.
    """
    try:
        kek = os.urandom(KEK_BYTES)
        _write_new(path, kek.hex().encode() + b"\n")
    except FileExistsError:
        try:
            kek = bytes.fromhex(_read_private(path).decode())
        except ValueError:
            kek = b""
        if len(kek) != KEK_BYTES:
            raise ConfigurationError(
                f"`{path}` does not hold {KEK_BYTES} bytes in hex; restore the key file"
            ) from None
    return kek


def create_key(path: Path) -> Ed25519PrivateKey:
    """Make a signing key in a file of its own, durably. Raises `FileExistsError`."""
    signer = Ed25519PrivateKey.generate()
    pem = signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(path, pem)
    return signer


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the signing key in a file. Raises `ConfigurationError` as `load_or_create` does."""
    try:
        key = load_pem_private_key(_read_private(path), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"`{path}` is not an unencrypted Ed25519 key in PEM; restore the key file"
        )
    return key


def _write_new(path: Path, data: bytes) -> None:
    """Put a file where none is, durably: a crash leaves all of it or nothing, never a part.

    Raises `FileExistsError`, also where another process comes first.
    """
    files = Files()
    if path.exists():
        with contextlib.suppress(OSError):  # who made it may have been killed before this
            files.sync_directory(path.parent)
        raise FileExistsError(path)
    files.make_directory(path.parent)
    fresh = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    descriptor = files.create(fresh)
    try:
        files.write(descriptor, data)
        files.sync(descriptor)
        os.link(fresh, path)
    finally:
        os.close(descriptor)
        fresh.unlink()
    files.sync_directory(path.parent)


def _read_private(path: Path) -> bytes:
    if path.stat().st_mode & _OTHERS:
        raise ConfigurationError(f"`{path}` can be read by others; run `chmod 600 {path}`")
    return path.read_bytes()
