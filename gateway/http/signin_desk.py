"""What the sign-in pages share: who may come in, by which proof, and what is on record of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from gateway.core.approvals.sessions import SignedIn, TicketStore
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError, CountersignError, CredentialError
from gateway.core.people.accounts import (
    AccountStore,
    Change,
    IdentityProvider,
    Method,
    PasskeyChecker,
    PasswordHasher,
    build_human_change,
    build_human_refused,
    build_sign_in,
    build_sign_out,
)
from gateway.core.ports import Clock, Ids
from gateway.http.humans import Human
from gateway.http.oauth_forms import read_form
from gateway.http.pages.signin_pages import error_page
from gateway.http.problem import problem
from gateway.http.signin_address import Networks, find_address
from gateway.http.signin_limits import SignInLimits
from gateway.http.signin_sessions import People, Proof, Sessions

PER_WINDOW: Final = 20
WINDOW_NS: Final = 10_000_000_000
KNOWN_S: Final = 7_776_000
"""How long a browser is remembered as one in which somebody signed in: 90 days."""

_STATUS: Final[Mapping[str, int]] = {
    "request_invalid": 400,
    "body_invalid": 400,
    "body_too_large": 413,
    "form_foreign": 403,
    "sign_in_refused": 403,
    "provider_answer_invalid": 403,
    "passkey_invalid": 403,
    "claim_invalid": 403,
    "sign_in_again": 403,
    "sign_in_unknown": 404,
    "sign_in_often": 429,
    "sign_in_busy": 503,
    "provider_unavailable": 503,
}

Enrol = Callable[[str], Awaitable[bool]]
"""Makes a person known, durably and on record; False where the id is taken or unfit."""


class SignInLog:
    """Writes `human.*`. Past `PER_WINDOW` refusals in a window they are only counted."""

    def __init__(
        self, *, record: Callable[[Entry], Awaitable[Receipt]], clock: Clock, ids: Ids
    ) -> None:
        self._record: Final = record
        self._clock: Final = clock
        self._ids: Final = ids
        self._window = -1
        self._written = 0
        self._counted: Counter[tuple[str, str]] = Counter()

    async def signed_in(
        self, found: SignedIn, kind: str, method: Method, provider: str = ""
    ) -> None:
        """Write `human.sign_in`."""
        entry = build_sign_in(
            self._ids.new(),
            who=found.person,
            session=found.sid,
            kind=kind,
            method=method,
            acr=found.acr,
            provider=provider,
        )
        await self._record(entry)

    async def signed_out(self, found: SignedIn) -> None:
        """Write `human.sign_out`."""
        await self._record(build_sign_out(self._ids.new(), who=found.person, session=found.sid))

    async def changed(
        self, who: str, change: Change, *, by: str | None = None, session: str = ""
    ) -> None:
        """Write `human.change`."""
        entry = build_human_change(self._ids.new(), who=who, change=change, by=by, session=session)
        await self._record(entry)

    async def refused(self, method: str, reason: str, who: str | None = None) -> None:
        """Write `human.refused`, or count it where there were too many."""
        window = self._clock.monotonic_ns() // WINDOW_NS
        if window != self._window:
            self._window, self._written = window, 0
            await self.flush()
        if self._written >= PER_WINDOW:
            self._counted[method, reason] += 1
            return
        self._written += 1
        await self._record(
            build_human_refused(self._ids.new(), method=method, reason=reason, who=who)
        )

    async def flush(self) -> None:
        """Write one summary for each (method, reason) counted so far."""
        counted, self._counted = self._counted, Counter()
        try:
            for (method, reason), count in list(counted.items()):
                entry = build_human_refused(
                    self._ids.new(), method=method, reason=reason, count=count
                )
                await self._record(entry)
                del counted[method, reason]
        finally:
            self._counted.update(counted)


@dataclass(frozen=True, kw_only=True)
class SignInDeps:
    """What the pages need. `passkeys` and `passwords` are None where local accounts are off.

    `provision` makes somebody known without any role, `first_admin` where there is no admin yet.
    `shares_secret`: whether somebody else knows a person's secret, which then proves too little.
    `has_own_secret`: whether a person has one that nobody else was told. `secret_of`: the hash of
    theirs, empty for none. `is_taken`: whether an id stands for somebody, in any state.
    `is_provisioned`: whether an identity provider vouched for them first. `note_claim` keeps,
    durably and on record, whose claim is about to open a person's account, and when it was made;
    False where it must not.
    """

    sessions: Sessions
    tickets: TicketStore
    accounts: AccountStore
    humans: People
    passwords: PasswordHasher | None
    passkeys: PasskeyChecker | None
    providers: Mapping[str, IdentityProvider]
    provision: Enrol
    first_admin: Enrol
    shares_secret: Callable[[str], bool]
    is_provisioned: Callable[[str], bool]
    note_claim: Callable[[str, str, int], Awaitable[bool]]
    log: SignInLog
    limits: SignInLimits
    clock: Clock
    ids: Ids
    has_own_secret: Callable[[str], bool]
    secret_of: Callable[[str], str]
    is_taken: Callable[[str], bool]
    trusted_proxies: Networks = ()

    @property
    def local(self) -> bool:
        """Whether there are local accounts."""
        return self.passwords is not None

    def now_s(self) -> int:
        """Return the time in seconds."""
        return self.sessions.now_s()


class PageRoute(APIRoute):
    """A route for browsers: errors leave as pages, or as problem documents for scripts."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with errors told."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except CountersignError as error:
                return _tell(request, error.code, str(error))
            except RequestValidationError:
                return _tell(request, "request_invalid", "the request does not fit")

        return answer


def _tell(request: Request, code: str, text: str) -> Response:
    status = _STATUS.get(code, 503 if code.endswith(("unavailable", "overloaded")) else 500)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and code not in _STATUS:
        text = "this could not be completed; try again later"
    if request.headers.get("content-type", "").startswith("application/json"):
        return problem(status, code, text)
    return error_page("This did not work", text, status=status)


def require_own_page(deps: SignInDeps, request: Request) -> None:
    """Raise `CredentialError` unless a page of our own sent this (CSRF, login CSRF)."""
    if not deps.sessions.is_own_page(request):
        raise CredentialError(
            f"this form was not sent by this gateway's own page; open {deps.sessions.origin} anew",
            code="form_foreign",
        )


def require_own_form(deps: SignInDeps, request: Request, signed_in: SignedIn, csrf: str) -> None:
    """Raise `CredentialError` unless a form of this very session was sent."""
    if not deps.sessions.is_own_form(request, signed_in, csrf):
        raise CredentialError(
            "this form is of another session; load the page anew", code="form_foreign"
        )


async def read_fields(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises `RequestError`."""
    return {name: values[0] for name, values in (await read_form(request)).items()}


async def read_own_form(deps: SignInDeps, request: Request) -> tuple[SignedIn, dict[str, str]]:
    """Return whose form this is, and its fields. Raises `CredentialError`, `RequestError`."""
    found = await deps.sessions.current(request)
    if found is None:
        raise CredentialError("sign in first", code="sign_in_again")
    fields = await read_fields(request)
    require_own_form(deps, request, found, fields.get("csrf", ""))
    return found, fields


def address_of(deps: SignInDeps, request: Request) -> str:
    """Return where a request came from, past the proxies that are trusted to tell."""
    peer = "" if request.client is None else request.client.host
    return find_address(peer, request.headers.getlist("x-forwarded-for"), deps.trusted_proxies)


def check_rate(deps: SignInDeps, request: Request) -> None:
    """Take a try. Raises `CredentialError` `sign_in_often` where there is none."""
    wait = deps.limits.wait_other_s(address_of(deps, request), deps.clock.monotonic_ns() / 1e9)
    if wait:
        raise CredentialError(f"too many tries; try again in {wait} s", code="sign_in_often")


async def _always() -> bool:
    return True


async def let_in(
    deps: SignInDeps,
    request: Request,
    response: Response,
    proof: Proof,
    *,
    method: Method,
    provider: str = "",
    holds: Callable[[], Awaitable[bool]] = _always,
) -> SignedIn:
    """Begin the session of somebody who proved themselves, and remember the browser.

    `holds`: whether what they proved it with is still good. Raises `CredentialError` where not.
    """

    async def told(found: SignedIn) -> None:
        await deps.log.signed_in(found, "browser", method, provider)

    found = await deps.sessions.begin(request, response, proof, told)
    # Who changes what they sign in with ends the sessions that there are then. INVARIANT: this one
    # is among them, or sees that change here.
    if not await holds():
        await deps.sessions.end_one(found)
        await note_refusal(deps, method, "proof_void", proof.person)
        raise CredentialError(
            "what you signed in with was changed meanwhile; sign in again", code="sign_in_refused"
        )
    await _remember(deps, request, response, proof.person)
    return found


async def known_device(deps: SignInDeps, request: Request, person: str) -> str:
    """Return what names this browser if this person signed in with it before, else nothing."""
    secret = deps.sessions.read_cookie(request, "countersign-known")
    if not secret:
        return ""
    found = await deps.tickets.peek("known", secret, deps.now_s())
    return secret if found is not None and found == person.encode() else ""


async def _remember(deps: SignInDeps, request: Request, response: Response, person: str) -> None:
    if await known_device(deps, request, person):
        return
    secret = deps.ids.secret()
    await deps.tickets.put("known", secret, person.encode(), deps.now_s() + KNOWN_S)
    deps.sessions.set_cookie(response, "countersign-known", secret, max_age_s=KNOWN_S)


def find_human(deps: SignInDeps, person: str) -> Human | None:
    """Return somebody who may sign in; None for nobody and for somebody suspended."""
    return deps.humans.find(person)


async def note_refusal(deps: SignInDeps, method: str, reason: str, who: str | None = None) -> None:
    """Record that somebody was not let in. Raises only when nothing can be recorded at all."""
    try:
        await deps.log.refused(method, reason, who)
    except AuditError as error:
        raise CountersignError("no record could be made", code=error.code) from error


def see_other(path: str) -> RedirectResponse:
    """Return a redirect that turns a form into a page."""
    return RedirectResponse(path, 303, headers={"Cache-Control": "no-store"})
