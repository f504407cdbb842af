"""Where the ring of token keys is kept: one JSON file, replaced as a whole, for its owner only.

It holds no private key. It does hold which keys are believed, so nobody else may write it.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
from msgspec import Struct

from gateway.adapters.audit.audit_files import Files
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.tokens.key_ring import KeyRing

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class KeyRingStore(Protocol):
    """Keeps one ring."""

    def load(self) -> KeyRing | None:
        """Return what was saved last, None at the first start. Raises `ConfigurationError`."""
        ...

    def save(self, ring: KeyRing) -> None:
        """Keep this ring, durably, in place of the one before.

        Raises `CountersignError` (retryable) where it cannot; then either of the two is kept.
        """
        ...


class _Stored(Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    ring: KeyRing


_read: Final = msgspec.json.Decoder(_Stored)


class KeyRingFile:
    """The ring of the deployment `environment` in the file `path`."""

    def __init__(self, path: Path, *, environment: str, files: Files | None = None) -> None:
        self._path: Final = path
        self._environment: Final = environment
        self._files: Final = files or Files()

    def load(self) -> KeyRing | None:
        """Return the ring. Raises `ConfigurationError`, also for one of another environment."""
        path = self._path
        try:
            if path.stat().st_mode & _OTHERS_WRITE:
                raise ConfigurationError(
                    f"`{path}` can be changed by others; run `chmod 600 {path}`"
                )
            stored = _read.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ConfigurationError(
                f"`{path}` is no ring of token keys; restore it, or move it away to begin anew"
            ) from None
        found = stored.ring.environment
        if found != self._environment:
            raise ConfigurationError(
                f"`{path}`: these token keys belong to environment `{found}`, not "
                f"`{self._environment}`; give each environment keys and a ring of its own"
            )
        if len(stored.ring.find("active")) > 1:
            raise ConfigurationError(f"`{path}` names two active keys; restore the file")
        return stored.ring

    def save(self, ring: KeyRing) -> None:
        """Keep this ring, durably."""
        try:
            self._files.make_directory(self._path.parent)
            self._files.replace(self._path, msgspec.json.encode(_Stored(1, ring)))
            self._files.sync_directory(self._path.parent)
        except OSError as error:
            raise CountersignError(
                f"`{self._path}` cannot be written: {error.strerror}; check its disk, then retry",
                code="key_ring_unavailable",
                retryable=True,
            ) from None


class MemoryKeyRing:
    """The twin of `KeyRingFile` for tests and try-outs. Lost on exit."""

    def __init__(self) -> None:
        self._ring: KeyRing | None = None

    def load(self) -> KeyRing | None:
        """Return what was saved last."""
        return self._ring

    def save(self, ring: KeyRing) -> None:
        """Keep this ring."""
        self._ring = ring
