"""People at the REST API: generated secrets, and credentials of command lines they signed in.

Separate from agents by construction: what authenticates here is the hash of a person's generated
secret or session; no access token that the gateway issues is ever looked at.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.sessions import CREDENTIAL_PREFIX, SignedIn
from gateway.core.errors import ConfigurationError, CredentialError


class Human(Struct, frozen=True):
    """An authenticated person. Roles are also the groups that approval specs name.

    `acr`: how surely they are known (`core.sessions.LEVELS`); a bearer secret proves `session`.
    `session`: which one they act in, empty for a bearer secret. `auth_time`: when they proved it,
    in seconds, and `amr` by what; 0 and nothing for a bearer secret, which tells nothing of now.
    """

    id: str
    roles: tuple[str, ...]
    acr: str = "session"
    session: str = ""
    auth_time: int = 0
    amr: tuple[str, ...] = ()


class HumanEntry(Struct, frozen=True):
    """Somebody known here. `secret_hash` is `sha256:` and the hex SHA-256 of a 256-bit secret.

    A plain hash suffices because the secret is generated, never chosen (DESIGN §4). None for who
    has no secret and comes in another way.
    """

    id: str
    roles: tuple[str, ...]
    secret_hash: str | None


class Humans:
    """Everybody who may use the admin API now; whoever is suspended is not among them.

    Who they are can change at any time (`put`, `drop`), and counts from the next look on. Raises
    `ConfigurationError` for an unusable entry.
    """

    def __init__(self, entries: Iterable[HumanEntry] = ()) -> None:
        self._people: dict[str, Human] = {}
        self._hashes: dict[str, bytes] = {}
        self._roles: dict[str, tuple[str, ...]] = {}
        for entry in entries:
            self.put(entry)

    def put(self, entry: HumanEntry) -> None:
        """Know a person from now on, in place of what was known of them."""
        stored = None if entry.secret_hash is None else _read_hash(entry.id, entry.secret_hash)
        self.drop(entry.id)
        self._people[entry.id] = Human(entry.id, tuple(entry.roles))
        self._roles[entry.id] = tuple(entry.roles)
        if stored is not None:
            self._hashes[entry.id] = stored

    def drop(self, person_id: str) -> None:
        """Know a person no longer; nobody known is fine."""
        for known in (self._people, self._hashes, self._roles):
            known.pop(person_id, None)

    def find(self, person_id: str) -> Human | None:
        """Return a person by id; None for nobody, and for somebody suspended."""
        return self._people.get(person_id)

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
        for person_id, stored in self._hashes.items():
            if hmac.compare_digest(stored, given):
                found = self._people[person_id]
        if found is None:
            raise CredentialError("this credential is not known here; ask an operator")
        return found

    def everyone(self) -> Mapping[str, tuple[str, ...]]:
        """Return person id → roles, as they are whenever it is read."""
        return MappingProxyType(self._roles)


Admit = Callable[[str | None], Awaitable[Human]]
"""Takes an `Authorization` header; returns the person or raises `CredentialError`, recorded."""


Credentials = Callable[[str], Awaitable[SignedIn | None]]
"""Takes the credential of a command line that somebody signed in; returns who that is."""


def build_admit(
    humans: Humans,
    refuse: Callable[[str, str], Awaitable[None]],
    credentials: Credentials | None = None,
) -> Admit:
    """Return what lets people in, and has every credential that is nobody's recorded.

    Who tries secrets at the door of the approvers is what an auditor wants to know. `refuse` may
    sum refusals up, so that a stranger cannot fill the log.
    """

    async def admit(authorization: str | None) -> Human:
        try:
            signed_in = await _find_signed_in(humans, authorization, credentials)
            return humans.authenticate(authorization) if signed_in is None else signed_in
        except CredentialError as error:
            await refuse("authenticate", error.code)
            raise

    return admit


async def _find_signed_in(
    humans: Humans, authorization: str | None, credentials: Credentials | None
) -> Human | None:
    scheme, _, secret = (authorization or "").partition(" ")
    secret = secret.strip()
    if credentials is None or scheme.lower() != "bearer":
        return None
    if not secret.startswith(CREDENTIAL_PREFIX):
        return None
    found = await credentials(secret)
    human = None if found is None else humans.find(found.person)
    # Roles are those of now, not of the sign-in; so is being known at all.
    if human is None or found is None:
        return None
    return replace(
        human, acr=found.acr, session=found.sid, auth_time=found.auth_time, amr=found.amr
    )


def _read_hash(person_id: str, secret_hash: str) -> bytes:
    kind, _, digits = secret_hash.partition(":")
    try:
        stored = bytes.fromhex(digits)
    except ValueError:
        stored = b""
    if kind != "sha256" or len(stored) != hashlib.sha256().digest_size:
        raise ConfigurationError(
            f"humans: secret_hash of `{person_id}` is not `sha256:` and 64 hex digits"
        )
    return stored
