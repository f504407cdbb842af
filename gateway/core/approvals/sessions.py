"""People who are signed in: how long, how surely, and where they may be sent next. Pure.

What the rest of the gateway builds on (made by `gateway.http.signin_sessions.Sessions`)::

    SignedIn(person, sid, auth_time, acr, amr, csrf, expires_at)
    await sessions.current(request) -> SignedIn | None
    await sessions.require_fresh(request, acr="strong", max_age_s=300) -> SignedIn | None
    sessions.sign_in_url(next_path, acr="", max_age_s=None) -> str     # where to send a browser
    sessions.is_own_form(request, signed_in, csrf) -> bool             # before anything changes

A session is known by a secret of 256 bits that is kept nowhere: the store has its SHA-256, and the
token of its forms is derived from it. So whoever reads the state can neither act as anybody nor
forge a form.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

Kind = Literal["browser", "cli"]
"""Where a session's secret lives: in a cookie, or in a file of the command line. Never both."""

CREDENTIAL_PREFIX: Final = "csh_"
"""How a command line's session credential begins, which tells it from a `humans:` secret."""

LEVELS: Final = ("chat", "session", "strong")
"""How surely somebody is who they say, weakest first.

`session`: a password, or an identity provider's word. `strong`: a passkey, or an `acr` of a
provider that the configuration calls strong. A name outside of this list is met by nobody.
"""

FEDERATED: Final = "fed"
"""In `amr`: somebody else's word. Such sessions change nothing that its person signs in with."""

FRESH_S: Final = 900
"""How long ago somebody may have proved themselves who changes their own account."""

HOME: Final = "/account"
NEXT_MAX_CHARS: Final = 8_192
_LOCAL: Final = re.compile(r"/(?:[!#-\[\]-~][!-\[\]-~]*)?")
"""Printable ASCII after one `/`, with no backslash and no quote first: what browsers agree on."""


class SignedIn(Struct, frozen=True, kw_only=True):
    """Somebody who is signed in. Times in seconds since the epoch.

    `sid` names the session in lists and records and opens nothing. `csrf` belongs into every form.
    """

    person: str
    sid: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]
    csrf: str
    expires_at: int


class Session(Struct, frozen=True, kw_only=True):
    """A session as it is stored. `id_hash`: hex SHA-256 of its secret."""

    id_hash: str
    sid: str
    kind: Kind
    person: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]
    created_at: int
    seen_at: int
    expires_at: int
    idle_s: int


class SessionStore(Protocol):
    """Durable sessions. Raises `CountersignError` `state_unavailable`."""

    async def put(self, session: Session) -> None:
        """Store a new session."""
        ...

    async def get(self, id_hash: str) -> Session | None:
        """Return a session, over or not."""
        ...

    async def touch(self, id_hash: str, seen_at: int) -> None:
        """Note that a session was used; it lives on by its idle time."""
        ...

    async def end(self, id_hash: str) -> None:
        """Forget a session. One that never was is fine."""
        ...

    async def end_all(self, person: str, *, but: str = "", sid: str = "") -> int:
        """Forget somebody's sessions but the one of id hash `but`; only `sid` where given."""
        ...

    async def find(self, person: str) -> list[Session]:
        """Return somebody's sessions, newest first."""
        ...

    async def forget_over(self, now_s: int) -> None:
        """Forget every session that is over."""
        ...


class TicketStore(Protocol):
    """Things that are good once: claims, states, challenges, codes. Known by a secret's hash."""

    async def put(self, purpose: str, secret: str, body: bytes, expires_at: int) -> None:
        """Store a ticket."""
        ...

    async def take(self, purpose: str, secret: str, now_s: int) -> bytes | None:
        """Use a ticket up: of all who ask, at any time, one gets its body."""
        ...

    async def peek(self, purpose: str, secret: str, now_s: int) -> bytes | None:
        """Return a ticket's body and leave it."""
        ...

    async def swap(
        self, purpose: str, secret: str, *, before: bytes, after: bytes, now_s: int
    ) -> bool:
        """Replace a ticket's body if it is still `before`; say whether it was."""
        ...

    async def count(self, purpose: str, now_s: int) -> int:
        """Return how many tickets of a purpose live."""
        ...

    async def drop(self, purpose: str) -> None:
        """Forget all tickets of a purpose."""
        ...

    async def forget_over(self, now_s: int) -> None:
        """Forget every ticket that is over."""
        ...


def hash_of(secret: str) -> str:
    """Return what stands for a generated secret in the state: a plain hash, for it is random."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_of(secret: str) -> str:
    """Return the token of a session's forms. It tells nothing of the session's secret."""
    return hmac.digest(secret.encode(), b"cs/csrf/v1", "sha256").hex()


def is_live(session: Session, now_s: int) -> bool:
    """Whether a session still stands, by its absolute and by its idle time."""
    return now_s < min(session.expires_at, session.seen_at + session.idle_s)


def as_seen(session: Session, secret: str) -> SignedIn:
    """Return what the holder of `secret` is, by the session that it opens."""
    return SignedIn(
        person=session.person,
        sid=session.sid,
        auth_time=session.auth_time,
        acr=session.acr,
        amr=session.amr,
        csrf=csrf_of(secret),
        expires_at=session.expires_at,
    )


def is_assured(acr: str, wanted: str) -> bool:
    """Whether `acr` is at least `wanted`. What is not in `LEVELS` fails closed on either side."""
    if acr not in LEVELS or wanted not in LEVELS:
        return False
    return LEVELS.index(acr) >= LEVELS.index(wanted)


def is_fresh(signed_in: SignedIn, acr: str, max_age_s: int | None, now_s: int) -> bool:
    """Whether somebody proved themselves as surely as `acr` and not longer ago than `max_age_s`."""
    young = max_age_s is None or now_s - signed_in.auth_time <= max_age_s
    return young and (not acr or is_assured(signed_in.acr, acr))


def local_path(text: str | None) -> str:
    r"""Return `text` if it is a path of this gateway, else `HOME`.

    Stops open redirects: another host (`//host`, `/\host`, `https:`), what browsers strip before
    they look (tabs, line ends), and what would end a header.
    """
    if text is None or len(text) > NEXT_MAX_CHARS or not _LOCAL.fullmatch(text):
        return HOME
    try:
        parts = urlsplit(text)
    except ValueError:
        return HOME
    return HOME if parts.scheme or parts.netloc or text.startswith("//") else text
