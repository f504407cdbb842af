"""How people prove who they are: passwords, passkeys, an identity provider's word. Pure.

Ports for the adapters that do the work, and the records of what came of it. INVARIANT: no id, no
password and no address stands in a record; who it was is an opening under that person's key.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from gateway.core.approvals.approval import person
from gateway.core.entry import Entry, Opening

Method = Literal["password", "passkey", "oidc", "claim", "cli", "device"]
"""How somebody signed in, or tried to."""

Change = Literal[
    "password_set",
    "passkey_added",
    "passkey_removed",
    "sessions_ended",
    "claim_made",
    "claim_used",
    "provisioned",
]
"""What became different about somebody's account."""

PASSWORD_MIN_CHARS: Final = 12
PASSWORD_MAX_CHARS: Final = 256
_DISTINCT_MIN: Final = 5


class Passkey(Struct, frozen=True, kw_only=True):
    """A public key of somebody's authenticator. `credential_id` is base64url without padding."""

    credential_id: str
    person: str
    public_key: bytes
    sign_count: int
    label: str
    created_at: int


class AccountStore(Protocol):
    """Durable credentials of people. Raises `CountersignError` `state_unavailable`."""

    async def password_hash(self, person_id: str) -> str | None:
        """Return the hash of somebody's password; None for nobody and for none."""
        ...

    async def set_password(self, person_id: str, hashed: str, now_s: int) -> None:
        """Store a password's hash in place of an earlier one."""
        ...

    async def rehash_password(self, person_id: str, *, before: str | None, after: str) -> None:
        """Store another hash of the same password, if its hash is still `before`."""
        ...

    async def begin_anew(self, person_id: str, hashed: str, now_s: int) -> None:
        """Store a password's hash, and forget every passkey that there was."""
        ...

    async def passkeys(self, person_id: str) -> list[Passkey]:
        """Return somebody's passkeys, oldest first."""
        ...

    async def passkey(self, credential_id: str) -> Passkey | None:
        """Return a passkey by its id."""
        ...

    async def add_passkey(self, passkey: Passkey) -> bool:
        """Store a passkey; False where that id is taken, by anybody."""
        ...

    async def count_up(self, credential_id: str, *, before: int, after: int) -> bool:
        """Move a passkey's counter on, if it is still `before`."""
        ...

    async def remove_passkey(self, person_id: str, credential_id: str) -> bool:
        """Forget one of somebody's own passkeys; say whether there was one."""
        ...


class Verified(Struct, frozen=True):
    """Whether a password is right; `rehashed` is its new hash where parameters have changed."""

    right: bool
    rehashed: str | None = None


class PasswordHasher(Protocol):
    """Slow hashes. Never blocks the loop; raises `CountersignError` `sign_in_busy` (retryable)."""

    async def hash(self, password: str) -> str:
        """Return the hash of a new password."""
        ...

    async def verify(self, stored: str | None, password: str) -> Verified:
        """Compare a password with a hash. Without a hash it is wrong, and takes as long."""
        ...


class PasskeyChecker(Protocol):
    """WebAuthn level 2, user verification required, for one RP id and one origin.

    Challenges are texts of 256 bits. `check_*` raise `CredentialError` `passkey_invalid`.
    """

    def ask_new(self, person_id: str, challenge: str, known: list[str]) -> str:
        """Return the options for `navigator.credentials.create()`, as JSON."""
        ...

    def check_new(self, response: dict[str, Any], challenge: str) -> tuple[str, bytes, int]:
        """Return credential id, public key and counter of a new passkey."""
        ...

    def ask(self, challenge: str) -> str:
        """Return the options for `navigator.credentials.get()`, as JSON. They name nobody."""
        ...

    def check(self, response: dict[str, Any], challenge: str, passkey: Passkey) -> int:
        """Return the new counter, the assertion being by this passkey on this challenge."""
        ...


class Asked(Struct, frozen=True, kw_only=True):
    """What one sign-in at an identity provider has to come back with. Kept until it does."""

    provider: str
    nonce: str
    verifier: str
    next_path: str
    acr: str = ""
    max_age_s: int | None = None
    person: str = ""


class Identity(Struct, frozen=True, kw_only=True):
    """Whom an identity provider vouches for. `person` is the claim that names people here."""

    person: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]


class IdentityProvider(Protocol):
    """An OpenID Connect provider. Raises `CountersignError` `provider_unavailable` (retryable)."""

    @property
    def label(self) -> str:
        """Return what people call it."""
        ...

    @property
    def provisions(self) -> bool:
        """Whether somebody unknown here is let in, without any role."""
        ...

    async def begin(self, state: str, asked: Asked) -> str:
        """Return the URL to send the browser to."""
        ...

    async def finish(self, asked: Asked, answer: dict[str, str]) -> Identity:
        """Return who it was, by the parameters that the browser brought back.

        Raises `CredentialError` (`sign_in_refused`, `provider_answer_invalid`).
        """
        ...


def normal_form(password: str) -> str:
    """Return a password as it is hashed: the same on keyboards that compose letters otherwise."""
    return unicodedata.normalize("NFKC", password)


def find_password_fault(password: str, person_id: str) -> str | None:
    """Say why a new password will not do, or return None (NIST SP 800-63B: length, no recipes)."""
    if len(password) < PASSWORD_MIN_CHARS:
        return f"use at least {PASSWORD_MIN_CHARS} characters; several words are easy to remember"
    if len(password) > PASSWORD_MAX_CHARS:
        return f"use at most {PASSWORD_MAX_CHARS} characters"
    if len(set(password)) < _DISTINCT_MIN:
        return "use more different characters"
    if person_id and person_id.casefold() in password.casefold():
        return "leave your own name out of it"
    return None


# --- records


def build_sign_in(
    op: str, *, who: str, session: str, kind: str, method: Method, acr: str, provider: str = ""
) -> Entry:
    """`human.sign_in`: durable before the session is any good."""
    fields = {"session": session, "kind": kind, "method": method, "acr": acr}
    fields |= {"provider": provider} if provider else {}
    return Entry(type="human.sign_in", op=op, fields=fields, openings=_by(who))


def build_sign_out(op: str, *, who: str, session: str) -> Entry:
    """`human.sign_out`: a session was ended by the one whose it was."""
    return Entry(type="human.sign_out", op=op, fields={"session": session}, openings=_by(who))


def build_human_refused(
    op: str, *, method: str, reason: str, count: int = 1, who: str | None = None
) -> Entry:
    """`human.refused`: somebody was not let in. `who`: only of people who are known here.

    What a stranger typed as a name may be a password in the wrong field; it is not kept.
    """
    fields: dict[str, Any] = {"method": method, "reason": reason, "count": count}
    openings = () if who is None else _by(who)
    return Entry(type="human.refused", op=op, fields=fields, openings=openings)


def build_human_change(
    op: str, *, who: str, change: Change, by: str | None = None, session: str = ""
) -> Entry:
    """`human.change`: somebody's account changed; `by` another person where it was one."""
    fields = {"change": change} | ({"session": session} if session else {})
    subject, other = person(who), None if by is None else person(by)
    openings = [Opening("person", subject.encode(), subject)]
    if other is not None and other != subject:
        openings.append(Opening("by", other.encode(), other))
    return Entry(type="human.change", op=op, fields=fields, openings=tuple(openings))


def _by(who: str) -> tuple[Opening, ...]:
    name = person(who)
    return (Opening("person", name.encode(), name),)
