"""Where the private halves of token keys come from: files of the gateway's own, or URIs."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from joserfc.jwk import ECKey

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.keys.key_uris import DIR, ENV, FILE, PKCS11
from gateway.adapters.keys.pkcs11_signer import Pkcs11Signer
from gateway.adapters.keys.token_keys import (
    LocalSigner,
    create_token_key,
    load_or_create_token_key,
    load_token_key,
    read_token_key,
)
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.ports import Signer
from gateway.core.tokens.key_ring import KeyRing, RingKey

_RANDOM_BYTES: Final = 8


class Found(NamedTuple):
    """A key that can sign, and the URI that it came from."""

    source: str
    signer: Signer


class KeySource(Protocol):
    """Finds and makes private halves. Raises `ConfigurationError` for one that cannot be used."""

    @property
    def own(self) -> bool:
        """Whether the gateway makes the keys, and so destroys them."""
        ...

    async def find(self, ring: KeyRing) -> list[Found]:
        """Return the keys at a start, at least those of `ring` that sign or will."""
        ...

    async def find_again(self) -> list[Found] | None:
        """Return the keys that there are now, or None where nothing has changed."""
        ...

    async def make(self) -> Found | None:
        """Return a new key that is durable; None where others make the keys."""
        ...

    def discard(self, made: Found) -> None:
        """Destroy a key that was made and that no ring came to name."""
        ...


class OwnKeys:
    """Files of the gateway's own: the first one at `path`, its successors beside it.

    Their sources are `file:` and a name in that folder, so the folder may be moved.
    """

    own: Final = True

    def __init__(self, path: Path, *, environment: str, files: Files | None = None) -> None:
        self._path: Final = path
        self._environment: Final = environment
        self._files: Final = files or Files()

    async def find(self, ring: KeyRing) -> list[Found]:
        """Return the keys of the ring; at the first start, the one at `path`, made if need be."""
        self._sweep(ring)
        kept = [key for key in ring.find("next", "active") if key.own]
        if not kept:
            key = load_or_create_token_key(self._path, environment=self._environment)
            return [Found(f"{FILE}{self._path.name}", LocalSigner(key))]
        return [
            self._load(key) for key in kept if key.state == "active" or self._path_of(key).exists()
        ]

    async def find_again(self) -> None:
        """Return None: nobody else puts keys here."""

    async def make(self) -> Found:
        """Return a new key. Raises `CountersignError` (retryable) where the disk takes none."""
        name = f"{self._path.stem}.{os.urandom(_RANDOM_BYTES).hex()}.pem"
        path = self._path.with_name(name)
        try:
            key = create_token_key(path, environment=self._environment, files=self._files)
        except OSError as error:
            raise CountersignError(
                f"`{path.parent}` takes no new key: {error.strerror}; check its disk, then retry",
                code="key_ring_unavailable",
                retryable=True,
            ) from None
        return Found(f"{FILE}{name}", LocalSigner(key))

    def discard(self, made: Found) -> None:
        """Overwrite and remove its file."""
        with contextlib.suppress(OSError):  # `_sweep` comes back to it
            _destroy(self._path.with_name(made.source.removeprefix(FILE)), self._files)

    def _load(self, key: RingKey) -> Found:
        path = self._path_of(key)
        if not path.exists():
            raise ConfigurationError(
                f"`{path}`, the token key in use, is missing; restore it, or move the ring of "
                "token keys away to begin anew"
            )
        found = load_token_key(path, environment=self._environment)
        if found.kid != key.kid:
            raise ConfigurationError(
                f"`{path}` holds another key than the ring of token keys says; restore the file, "
                "or move the ring away to begin anew"
            )
        return Found(key.source, LocalSigner(found))

    def _sweep(self, ring: KeyRing) -> None:
        """Destroy what a crash left: keys that no ring came to name, and those already gone."""
        for key in ring.find("gone"):
            destroy_own(key, self._path.parent, self._files)
        live = {self._path_of(key) for key in ring.find("next", "active", "retired")}
        made = re.compile(
            re.escape(self._path.stem) + r"\.([0-9a-f]{16}\.)?pem(\.[0-9a-f]{16}\.new)?"
        )
        for path in self._path.parent.glob(f"{self._path.stem}.*"):
            if made.fullmatch(path.name) and path not in {self._path, *live}:
                _destroy(path, self._files)

    def _path_of(self, key: RingKey) -> Path:
        return self._path.with_name(key.source.removeprefix(FILE))


class GivenKeys:
    """The keys that a configuration names by URIs, in its order. Others make them.

    Folders are looked into again while the gateway runs.
    """

    own: Final = False

    def __init__(
        self, uris: Sequence[str], *, environment: str, environ: Mapping[str, str]
    ) -> None:
        self._environment: Final = environment
        self._environ: Final = environ
        self._found: dict[str, list[Found]] = {uri: [] for uri in uris}
        self._seen: dict[str, tuple[tuple[str, int], ...]] = {}

    async def find(self, ring: KeyRing) -> list[Found]:  # noqa: ARG002 - all are looked at
        """Return every key that is named."""
        try:
            for uri in self._found:
                self._found[uri] = await self._open(uri)
        except ConfigurationError:
            for one in self._all():
                await one.signer.close()
            raise
        return self._all()

    async def find_again(self) -> list[Found] | None:
        """Return every key where a folder has other files than before, else None."""
        changed = [
            uri
            for uri in self._found
            if uri.startswith(DIR) and _listing(uri) != self._seen.get(uri)
        ]
        for uri in changed:
            self._found[uri] = await self._open(uri)
        return self._all() if changed else None

    async def make(self) -> None:
        """Return None: the next key comes from who writes the configuration, or the folder."""

    def discard(self, made: Found) -> None:
        """Do nothing: no key is made here."""

    def _all(self) -> list[Found]:
        return [one for found in self._found.values() for one in found]

    async def _open(self, uri: str) -> list[Found]:
        try:
            if uri.startswith(PKCS11):
                return [Found(uri, await Pkcs11Signer.open(uri, environ=self._environ))]
            if uri.startswith(DIR):
                return self._load_folder(uri)
            return [Found(uri, LocalSigner(self._load(uri)))]
        except ConfigurationError as error:
            raise ConfigurationError(f"tokens.keys: {error}") from None

    def _load(self, uri: str) -> ECKey:
        if uri.startswith(FILE):
            return load_token_key(Path(uri.removeprefix(FILE)), environment=self._environment)
        name = uri.removeprefix(ENV)
        if not self._environ.get(name):
            raise ConfigurationError(
                f"the variable `{name}` is not set; put a P-256 key in PEM there"
            )
        pem = self._environ[name].encode()
        return read_token_key(pem, name, environment=self._environment)

    def _load_folder(self, uri: str) -> list[Found]:
        listing = _listing(uri)
        folder = Path(uri.removeprefix(DIR))
        if not listing:
            raise ConfigurationError(f"`{folder}` holds no key; put a P-256 key in PEM there")
        found = [
            Found(
                f"{uri}/{name}",
                # A mounted secret belongs to a group at times; to everybody never.
                LocalSigner(
                    load_token_key(
                        folder / name, environment=self._environment, others=stat.S_IRWXO
                    )
                ),
            )
            for name, _ in listing
        ]
        self._seen[uri] = listing
        return found


def destroy_own(key: RingKey, folder: Path, files: Files) -> None:
    """Overwrite and remove the file of a key that the gateway made, and no other in its place.

    Doing so twice is harmless. What the storage below keeps (snapshots, backups) is out of reach.
    """
    path = folder / key.source.removeprefix(FILE)
    if not key.own or not path.exists():
        return
    pem = path.read_bytes()
    with contextlib.suppress(ConfigurationError):
        if read_token_key(pem, str(path)).kid != key.kid:
            return
        _destroy(path, files)
        return
    if b"\0" in pem:  # no PEM text has one: the overwriting broke off
        _destroy(path, files)


def _destroy(path: Path, files: Files) -> None:
    files.overwrite(path)
    path.unlink()
    files.sync_directory(path.parent)


def _listing(uri: str) -> tuple[tuple[str, int], ...]:
    """Return names and times of a folder's keys. Hidden names are how Kubernetes swaps secrets."""
    folder = Path(uri.removeprefix(DIR))
    try:
        return tuple(
            sorted(
                (path.name, path.stat().st_mtime_ns)
                for path in folder.iterdir()
                if not path.name.startswith(".") and path.is_file()
            )
        )
    except OSError as error:
        raise ConfigurationError(f"`{folder}` cannot be read: {error.strerror}") from None
