"""Sessions in browsers and in command lines: cookies, credentials, and whose form it is (TOK-08).

What other parts use::

    Sessions.current(request) -> SignedIn | None
    Sessions.require_fresh(request, acr=…, max_age_s=…) -> SignedIn | None
    Sessions.sign_in_url(next_path, acr="", max_age_s=None) -> str
    Sessions.is_own_form(request, signed_in, csrf) -> bool

A page that needs somebody redirects (303) to `sign_in_url` where `current` is None; after the
sign-in the browser comes back to `next_path`.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import urlencode

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway.core.approvals.sessions import (
    CREDENTIAL_PREFIX,
    Kind,
    Session,
    SessionStore,
    SignedIn,
    as_seen,
    hash_of,
    is_fresh,
    is_live,
)
from gateway.core.ports import Clock, Ids
from gateway.http.humans import Human

SIGN_IN_PATH: Final = "/signin"
_TOUCH_S: Final = 60
"""A session's use is written down at most this often; its idle time is longer."""

_SECRET_MAX_CHARS: Final = 128


class People(Protocol):
    """Who may be signed in, looked up each time: whoever is suspended or stopped is nobody."""

    def find(self, person_id: str) -> Human | None:
        """Return somebody who may act now."""
        ...

    def voids(self, person_id: str, at_s: int) -> bool:
        """Whether what a person was given at a time (seconds) ended with a stop of theirs since."""
        ...


class Lifetimes(Struct, frozen=True, kw_only=True):
    """How long people stay signed in, in seconds."""

    absolute_s: int = 43_200
    idle_s: int = 3_600
    cli_s: int = 28_800


class Proof(Struct, frozen=True, kw_only=True):
    """That somebody is who they say: found out at `auth_time`, as surely as `acr`, by `amr`.

    `sid`: the session that it was taken from, if any.
    """

    person: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]
    sid: str = ""


Told = Callable[[SignedIn], Awaitable[None]]
"""Makes the record of a sign-in; raises where there can be none."""


class Sessions:
    """Who is signed in. `origin` is the gateway's own, `https://host` without a path.

    Over https the cookies are `__Host-`: no subdomain and no cleartext page can plant one.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        humans: People,
        clock: Clock,
        ids: Ids,
        origin: str,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self._store: Final = store
        self._humans: Final = humans
        self._clock: Final = clock
        self._ids: Final = ids
        self._lifetimes: Final = lifetimes or Lifetimes()
        self.origin: Final = origin
        self.secure: Final = origin.startswith("https://")

    # Who is it

    async def current(self, request: Request) -> SignedIn | None:
        """Return who is signed in by this browser, or None: nobody, over, unknown or suspended."""
        found = await self._find(self.read_cookie(request, "countersign"), "browser")
        return None if found is None else found[1]

    async def require_fresh(
        self, request: Request, *, acr: str = "", max_age_s: int | None = None
    ) -> SignedIn | None:
        """Return who is signed in, if they proved it as surely and as lately as asked.

        None: redirect to `sign_in_url` with the same `acr` and `max_age_s`.
        """
        found = await self.current(request)
        fresh = found is not None and is_fresh(found, acr, max_age_s, self.now_s())
        return found if fresh else None

    async def by_credential(self, secret: str) -> SignedIn | None:
        """Return whose command line holds this credential, or None. No cookie is one."""
        if not secret.startswith(CREDENTIAL_PREFIX):
            return None
        found = await self._find(secret, "cli")
        return None if found is None else found[1]

    async def _find(self, secret: str | None, kind: Kind) -> tuple[Session, SignedIn] | None:
        if not secret or len(secret) > _SECRET_MAX_CHARS or not secret.isascii():
            return None
        session = await self._store.get(hash_of(secret))
        now_s = self.now_s()
        # 1. A cookie sent as a credential, or the other way round. 2. Sessions that are over.
        if session is None or session.kind != kind or not is_live(session, now_s):
            return None
        # 3. People who have been suspended since, and sessions of before they were.
        if self._humans.find(session.person) is None or self._is_void(session):
            return None
        if now_s - session.seen_at >= min(_TOUCH_S, session.idle_s // 2):
            await self._store.touch(session.id_hash, now_s)
        return session, as_seen(session, secret)

    # Beginning and ending

    async def begin(
        self, request: Request, response: Response, proof: Proof, told: Told
    ) -> SignedIn:
        """Sign somebody in at this browser: always a new secret, and the old session ends.

        Stops session fixation: what the browser brought is never what it is known by afterwards.
        INVARIANT: `told` has made the record before the session is any good.
        """
        old = self.read_cookie(request, "countersign")
        if old:
            await self._store.end(hash_of(old))
        lifetimes = self._lifetimes
        secret = self._ids.secret()
        session = self._build(secret, "browser", proof, lifetimes.absolute_s, lifetimes.idle_s)
        await told(as_seen(session, secret))
        await self._store.put(session)
        self.set_cookie(response, "countersign", secret, max_age_s=lifetimes.absolute_s)
        return as_seen(session, secret)

    async def begin_cli(self, proof: Proof, told: Told) -> tuple[str, SignedIn]:
        """Return a new credential for a command line, on record as above, and whose it is."""
        secret = CREDENTIAL_PREFIX + self._ids.secret()
        life_s = self._lifetimes.cli_s
        session = self._build(secret, "cli", proof, life_s, life_s)
        await told(as_seen(session, secret))
        await self._store.put(session)
        return secret, as_seen(session, secret)

    async def end(self, request: Request, response: Response) -> SignedIn | None:
        """Sign out at this browser; return who that was."""
        secret = self.read_cookie(request, "countersign")
        found = await self._find(secret, "browser")
        if secret:
            await self._store.end(hash_of(secret))
        self.drop_cookie(response, "countersign")
        return None if found is None else found[1]

    async def end_one(self, found: SignedIn) -> None:
        """End one session, wherever it is."""
        await self._store.end_all(found.person, sid=found.sid)

    async def end_credential(self, secret: str) -> SignedIn | None:
        """Take a command line's credential back; return whose it was."""
        found = await self._find(secret, "cli")
        if found is not None:
            await self._store.end(found[0].id_hash)
        return None if found is None else found[1]

    async def end_others(self, request: Request, signed_in: SignedIn) -> int:
        """End all of somebody's sessions but this one."""
        own = hash_of(self.read_cookie(request, "countersign"))
        return await self._store.end_all(signed_in.person, but=own)

    async def end_person(self, person: str) -> int:
        """End all of somebody's sessions, in browsers and command lines; say how many."""
        return await self._store.end_all(person)

    async def find(self, person: str) -> list[Session]:
        """Return where somebody is signed in, newest first."""
        now_s = self.now_s()
        found = await self._store.find(person)
        return [one for one in found if is_live(one, now_s) and not self._is_void(one)]

    def _is_void(self, session: Session) -> bool:
        """Whether its person was stopped since: it was perhaps why, so no way back revives it."""
        return self._humans.voids(session.person, session.created_at)

    def _build(self, secret: str, kind: Kind, proof: Proof, life_s: int, idle_s: int) -> Session:
        now_s = self.now_s()
        return Session(
            id_hash=hash_of(secret),
            sid=self._ids.new(),
            kind=kind,
            person=proof.person,
            auth_time=proof.auth_time,
            acr=proof.acr,
            amr=proof.amr,
            created_at=now_s,
            seen_at=now_s,
            expires_at=now_s + life_s,
            idle_s=idle_s,
        )

    # Forms

    def is_own_page(self, request: Request) -> bool:
        """Whether a page of the gateway's own sent this. Needed of whatever changes anything.

        `Origin` has to be ours; without one `Sec-Fetch-Site` has to say so. A request with
        neither comes from no browser that these pages are for.
        """
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site")
        if site not in (None, "same-origin"):
            return False
        return origin == self.origin if origin is not None else site == "same-origin"

    def is_own_form(self, request: Request, signed_in: SignedIn, csrf: str) -> bool:
        """Whether a form is of the gateway's own page and of this very session."""
        given = csrf.encode("utf-8", "surrogatepass")
        return self.is_own_page(request) and hmac.compare_digest(signed_in.csrf.encode(), given)

    # Addresses and cookies

    def sign_in_url(self, next_path: str, *, acr: str = "", max_age_s: int | None = None) -> str:
        """Return the path to send a browser to for a sign-in, and from there on to `next_path`."""
        asked = {"next": next_path} | ({"acr": acr} if acr else {})
        asked |= {} if max_age_s is None else {"max_age": str(max_age_s)}
        return f"{SIGN_IN_PATH}?{urlencode(asked)}"

    def cookie_name(self, name: str) -> str:
        """Return a cookie's name: bound to this very host where there is TLS."""
        return f"__Host-{name}" if self.secure else name

    def read_cookie(self, request: Request, name: str) -> str:
        """Return a cookie of ours; empty where there is none, or two that cannot be told apart.

        A name is compared as it stands. Parsers that strip more than blanks from it also take a
        cookie for ours that a sibling host could plant, since no browser saw `__Host-` before it.
        """
        wanted, found = self.cookie_name(name), set[str]()
        for header in request.headers.getlist("cookie"):
            for pair in header.split(";"):
                given, _, value = pair.strip(" \t").partition("=")
                if given == wanted:
                    found.add(value)
        secret = found.pop() if len(found) == 1 else ""
        return secret if secret.isascii() else ""

    def set_cookie(
        self, response: Response, name: str, value: str, *, max_age_s: int, strict: bool = True
    ) -> None:
        """Set a cookie that scripts cannot read and that other sites' requests do not carry."""
        response.set_cookie(
            self.cookie_name(name),
            value,
            max_age=max_age_s,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="strict" if strict else "lax",
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        """Let the browser forget a cookie."""
        self.set_cookie(response, name, "", max_age_s=0)

    def now_s(self) -> int:
        """Return the time in seconds."""
        return self._clock.now_ns() // 1_000_000_000
