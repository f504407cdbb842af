"""Where the log's signing key lives, and how the next one takes its place.

The file of the key in use is `<path>`, that of its successor `<path>.next`. A successor is on the
disk before the log names it, and the old key is destroyed only once the log's `key.rotate` record
is durable. So after a crash at any point the log itself says which of the two is in use.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_keys import create_key, load_key
from gateway.core.errors import ConfigurationError


class KeyFile:
    """The log's signing key in a file that only its owner reads (PEM, PKCS#8)."""

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self._path: Final = path
        self._next: Final = path.with_name(path.name + ".next")
        self._files: Final = files or Files()

    def candidates(self) -> list[Ed25519PrivateKey]:
        """Return the key in use, made where there is none, and its successor where a change began.

        Raises `ConfigurationError` for a file that others may read, or that holds no Ed25519 key.
        """
        try:
            found = [create_key(self._path)]
        except FileExistsError:
            found = [load_key(self._path)]
        with contextlib.suppress(FileNotFoundError, ConfigurationError):  # torn: never in use
            found.append(load_key(self._next))
        return found

    def propose(self) -> Ed25519PrivateKey:
        """Make a successor, durably. One that was proposed before and never used is forgotten."""
        self._next.unlink(missing_ok=True)
        return create_key(self._next)

    def settle(self, *, adopt: bool) -> None:
        """Take the successor that the log names, or drop one that it does not know."""
        if adopt and self._next.exists():
            self._adopt()
        elif adopt:  # it broke off after that
            self._files.sync_directory(self._path.parent)
        else:
            self._next.unlink(missing_ok=True)

    def _adopt(self) -> None:
        """Put the successor in the place of the key in use, whose bytes are overwritten.

        What the storage below keeps (snapshots, backups, worn flash cells) is out of reach here.
        """
        old = os.open(self._path, os.O_WRONLY)
        try:
            size = os.fstat(old).st_size
            self._next.replace(self._path)
            self._files.sync_directory(self._path.parent)
            self._files.write(old, bytes(size))
            self._files.sync(old)
        finally:
            os.close(old)
