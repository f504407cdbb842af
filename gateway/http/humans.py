"""People at the REST API: bearer credentials from the `humans:` of the configuration.

Separate from agents by construction: what authenticates here is the hash of a person's generated
secret; no token that the gateway issues is ever looked at.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from gateway.core.errors import ConfigurationError, CredentialError


class Human(Struct, frozen=True):
    """An authenticated person. Roles are also the groups that approval specs name."""

    id: str
    roles: tuple[str, ...]


class HumanEntry(Struct, frozen=True):
    """One of `humans:`. `secret_hash` is `sha256:` and the hex SHA-256 of a 256-bit secret.

    A plain hash suffices because the secret is generated, never chosen (DESIGN §4).
    """

    id: str
    roles: tuple[str, ...]
    secret_hash: str


class Humans:
    """Everybody who may use the admin API. Raises `ConfigurationError` for an unusable entry."""

    def __init__(self, entries: Iterable[HumanEntry]) -> None:
        self._people = [
            (_read_hash(entry), Human(entry.id, tuple(entry.roles))) for entry in entries
        ]

    def authenticate(self, authorization: str | None) -> Human:
        """Return the person whose secret the `Authorization` header bears.

        Raises `CredentialError`: `token_missing` or `token_invalid`, the same for a wrong secret,
        an unknown person and an agent's token.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise CredentialError("send `Authorization: Bearer <secret>`", code="token_missing")
        given = hashlib.sha256(secret.strip().encode()).digest()
        found: Human | None = None
        # Everybody is compared, without an early end: the time tells neither who it was nor that
        # it was nobody.
        for stored, human in self._people:
            if hmac.compare_digest(stored, given):
                found = human
        if found is None:
            raise CredentialError("this credential is not known here; ask an operator")
        return found

    def everyone(self) -> dict[str, tuple[str, ...]]:
        """Return person id → roles."""
        return {human.id: human.roles for _, human in self._people}


Admit = Callable[[str | None], Awaitable[Human]]
"""Takes an `Authorization` header; returns the person or raises `CredentialError`, recorded."""


def build_admit(humans: Humans, refuse: Callable[[str, str], Awaitable[None]]) -> Admit:
    """Return what lets people in, and has every credential that is nobody's recorded.

    Who tries secrets at the door of the approvers is what an auditor wants to know. `refuse` may
    sum refusals up, so that a stranger cannot fill the log.
    """

    async def admit(authorization: str | None) -> Human:
        try:
            return humans.authenticate(authorization)
        except CredentialError as error:
            await refuse("authenticate", error.code)
            raise

    return admit


def _read_hash(entry: HumanEntry) -> bytes:
    kind, _, digits = entry.secret_hash.partition(":")
    try:
        stored = bytes.fromhex(digits)
    except ValueError:
        stored = b""
    if kind != "sha256" or len(stored) != hashlib.sha256().digest_size:
        raise ConfigurationError(
            f"humans: secret_hash of `{entry.id}` is not `sha256:` and 64 hex digits"
        )
    return stored
