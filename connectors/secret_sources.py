"""Secrets by reference: the environment, a file, the system's keyring, a vault.

Each secret is read again from time to time, so that one that was changed is used, and one that was
taken away is not.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from connectors.credential_http import CredentialProblem
from gateway.aside import Aside
from gateway.core.credentials import NEVER_NS, SET_BACK_NS

SECRET_MAX_BYTES: Final = 65_536
_NS: Final = 1_000_000_000
_FILE_REFRESH_NS: Final = _NS
_FILE_EXPIRES_NS: Final = 5 * _NS
_KEYRING_REFRESH_NS: Final = 60 * _NS
_KEYRING_EXPIRES_NS: Final = 300 * _NS
_READ_TIMEOUT_S: Final = 5.0
_MOUNTED: Final = ("/run/secrets/", "/var/run/secrets/")
"""Where container runtimes mount secrets, readable by all, for this container alone."""


class Secret(Struct, frozen=True):
    """A secret and for how long it is believed to be current (see `UpstreamCredential`)."""

    value: str
    refresh_ns: int = NEVER_NS
    expires_ns: int = NEVER_NS
    since_ns: int = 0

    def __repr__(self) -> str:
        return "Secret()"


class Vault(Protocol):
    """Reads `MOUNT/PATH#FIELD`."""

    async def read(self, where: str, now_ns: int) -> Secret:
        """Return the secret. Raises `CredentialProblem`."""
        ...


class SecretSources:
    """Reads references. `vault`: None where none is configured."""

    def __init__(self, environ: Mapping[str, str], *, vault: Vault | None = None) -> None:
        self._environ = environ
        self._vault = vault
        self._known: dict[str, Secret] = {}
        self._aside = Aside()

    async def read(self, reference: str, now_ns: int) -> Secret:
        """Return the secret at `reference`. Raises `CredentialProblem`."""
        known = self._known.get(reference)
        if known is not None and known.since_ns - SET_BACK_NS < now_ns < known.refresh_ns:
            return known
        secret = replace(await self._read(reference, now_ns), since_ns=now_ns)
        if not secret.value or not secret.value.isprintable():
            raise CredentialProblem("missing", f"the secret in `{reference}` is empty or no text")
        self._known[reference] = secret
        return secret

    def forget(self, reference: str) -> None:
        """Read it anew next time."""
        self._known.pop(reference, None)

    async def _read(self, reference: str, now_ns: int) -> Secret:
        kind, _, where = reference.partition(":")
        match kind:
            case "env":
                return Secret(read_variable(where, self._environ))
            case "file":
                value = await self._read_aside(kind, partial(read_private_file, Path(where)))
                return Secret(value, now_ns + _FILE_REFRESH_NS, now_ns + _FILE_EXPIRES_NS)
            case "keyring":
                service, _, user = where.partition("/")
                value = await self._read_aside(kind, partial(read_keyring, service, user))
                return Secret(value, now_ns + _KEYRING_REFRESH_NS, now_ns + _KEYRING_EXPIRES_NS)
            case "vault" if self._vault is not None:
                return await self._vault.read(where, now_ns)
        raise CredentialProblem(
            "missing", f"`{reference}` cannot be read; set `credentials.vault`, or VAULT_ADDR"
        )

    async def _read_aside(self, kind: str, work: Callable[[], str]) -> str:
        try:
            return await self._aside.run(work, timeout_s=_READ_TIMEOUT_S)
        except TimeoutError:
            why = f"the {kind} with the secret did not answer in time"
            raise CredentialProblem("timed_out", why) from None


def read_variable(name: str, environ: Mapping[str, str]) -> str:
    """Return an environment variable. Raises `CredentialProblem` `missing`."""
    try:
        return environ[name].strip()
    except KeyError:
        raise CredentialProblem("missing", f"variable `{name}` is not set; set it") from None


def read_private_file(path: Path) -> str:
    """Return the text of a file that strangers can neither read nor write.

    Raises `CredentialProblem` `missing`. The open file is asked for its mode, not its name: it
    cannot be exchanged in between.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = f"secret file `{path}` cannot be read: {error.strerror}; provide it"
        raise CredentialProblem("missing", why) from None
    try:
        _check_mode(path, os.fstat(descriptor))
        data = os.read(descriptor, SECRET_MAX_BYTES)
        return data.decode().strip()
    except (OSError, UnicodeDecodeError):
        raise CredentialProblem("missing", f"secret file `{path}` cannot be read") from None
    finally:
        os.close(descriptor)


def _check_mode(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise CredentialProblem("missing", f"`{path}` is no file; name one that holds the secret")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"`{path}` can be changed by others; run `chmod 600 {path}`"
        raise CredentialProblem("missing", why)
    if found.st_mode & stat.S_IROTH and not str(path).startswith(_MOUNTED):
        why = f"`{path}` can be read by everybody; run `chmod 600 {path}`"
        raise CredentialProblem("missing", why)


def read_keyring(service: str, user: str) -> str:
    """Ask the system's keyring. Raises `CredentialProblem`. It may ask a person, and block."""
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        why = "the keyring cannot be read; install `countersign[keyring]`"
        raise CredentialProblem("missing", why) from None
    try:
        value = keyring.get_password(service, user)
    except Exception as error:  # noqa: BLE001 - each backend has its own; messages may name values
        why = f"the keyring failed: {type(error).__name__}; unlock it, or choose a backend"
        raise CredentialProblem("unreachable", why) from None
    if not isinstance(value, str):
        raise CredentialProblem("missing", f"the keyring has nothing for `{service}/{user}`")
    return value
