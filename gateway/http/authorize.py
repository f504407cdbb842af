"""`GET` and `POST /oauth/authorize`: a person lets an app act for them (OAuth 2.1 §4.1).

GET reads the request, has the person sign in, and asks. POST carries the answer and the request
itself, which is read from the start again: nothing is kept between the two, so there is nothing to
fix or to swap. A code leaves only after its record is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core.approvals.sessions import SignedIn
from gateway.core.errors import CountersignError, RequestError
from gateway.core.oauth import authorization as rules
from gateway.core.oauth import metadata as oauth
from gateway.core.oauth.apps import App, Apps
from gateway.core.oauth.authorization import Asked, Code, Consent, Rejected, Unanswerable
from gateway.core.oauth.client_documents import DocumentSource, NoDocument
from gateway.core.ports import AuditLog, Clock, Ids
from gateway.core.records.authorization_records import build_granted, build_refused
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.grants import EffectOf
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.token import Grant
from gateway.http.consent_page import Question, ToolSeen, consent_page, kept_choices, place_of
from gateway.http.oauth_forms import read_form
from gateway.http.pages.markup import fill, page

QUERY_MAX_CHARS: Final = 3_800
FIELDS_MAX: Final = 32
FORM_FIELDS_MAX: Final = 512

_FAILED: Final = "This did not work"
_CROSS_SITE: Final = frozenset(("cross-site", "same-site"))


class SessionDoor(Protocol):
    """Who is signed in at a browser (`gateway.http.signin_sessions.Sessions`)."""

    async def current(self, request: Request) -> SignedIn | None:
        """Return who is signed in by this browser, or None."""
        ...

    def sign_in_url(self, next_path: str) -> str:
        """Return the path to send a browser to for a sign-in, and from there on."""
        ...

    def is_own_form(self, request: Request, signed_in: SignedIn, csrf: str) -> bool:
        """Whether a form is of the gateway's own page and of this very session."""
        ...


@dataclass(frozen=True, kw_only=True)
class AuthorizeDeps:
    """What the pages need. `deadline_s`: how long what is consented to lives, in seconds.

    `documents`: where apps that name themselves by URL are described; None: nowhere. `tools` are
    those of the catalog. `refuse` records a refusal of somebody not yet known.
    """

    site: Site
    apps: Apps
    documents: DocumentSource | None
    sessions: SessionDoor
    store: rules.AuthorizationStore
    audit: AuditLog
    clock: Clock
    ids: Ids
    effect_of: EffectOf
    tools: Callable[[], Iterable[ToolSeen]]
    refuse: Callable[[str, str], Awaitable[None]]
    deadline_s: int = rules.DEADLINE_S


class _Ready(Struct, frozen=True):
    """A request that a person can be asked about."""

    app: App
    asked: Asked
    grants: tuple[Grant, ...]
    who: SignedIn
    query: str


def build_authorize_router(deps: AuthorizeDeps) -> APIRouter:
    """Build the two routes."""
    router = APIRouter(tags=["oauth"])
    desk = AuthorizeDesk(deps)

    @router.get(oauth.AUTHORIZE_PATH, include_in_schema=False)
    async def ask(request: Request) -> Response:
        """Ask the person."""
        return await _forgiving(desk.ask(request))

    @router.post(oauth.AUTHORIZE_PATH, include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Take the person's answer."""
        return await _forgiving(desk.answer(request))

    return router


class AuthorizeDesk:
    """Asks people, and turns their consent into codes. See `AuthorizeDeps`."""

    def __init__(self, deps: AuthorizeDeps) -> None:
        self._deps = deps

    async def ask(self, request: Request) -> Response:
        """Show the page of consent, or send the browser on: to sign in, or back with an error."""
        ready = await self._prepare(request, request.url.query)
        return ready if isinstance(ready, Response) else self._page(ready)

    async def answer(self, request: Request) -> Response:
        """Turn a consent into a code at the app's redirect URI, or a refusal into an error."""
        try:
            form = await read_form(request, max_fields=FORM_FIELDS_MAX)
        except RequestError as error:
            await self._deps.refuse("read", error.code)
            return _error_page(f"The answer cannot be read: {error}.", 400)
        one = {name: values[0] for name, values in form.items()}
        ready = await self._prepare(request, one.get("request", ""))
        if isinstance(ready, Response):
            return ready
        # 1. Other sites' pages that answer in the person's name (CSRF), and stale ones.
        if not self._deps.sessions.is_own_form(request, ready.who, one.get("csrf", "")):
            await self._record_refusal(ready, "form_foreign")
            return _error_page("This form is not one of this session. Start again at the app.", 403)
        # 2. People who decline, or leave nothing ticked.
        if one.get("decision") != "allow":
            await self._record_refusal(ready, "declined")
            return self._reject(ready, "access_denied", "the person declined")
        offered = rules.choices(ready.grants, self._deps.effect_of)
        kept = kept_choices(one, offered)
        if not kept:
            return self._page(ready, error="Leave at least one thing ticked, or decline.")
        return await self._grant(ready, rules.narrow(ready.grants, kept, self._deps.effect_of))

    async def _prepare(self, request: Request, query: str) -> _Ready | Response:
        """Read a request; find its app and who sits at the browser. Else say where to go."""
        deps = self._deps
        # 1. Requests that two parsers may read differently.
        parameters = _read_query(query)
        if parameters is None:
            await deps.refuse("read", "request_invalid")
            return _error_page("The app's request cannot be read.", 400)
        who = await deps.sessions.current(request)
        here = f"{oauth.AUTHORIZE_PATH}?{query}"
        app = await self._find_app(parameters, who)
        if app is None:
            return self._sign_in(request, here)
        # 2. Unknown apps and redirect URIs: nobody is sent anywhere (open redirect).
        unknown = isinstance(app, Unanswerable)
        found = app if isinstance(app, Unanswerable) else rules.find_redirect(parameters, app)
        if isinstance(app, Unanswerable) or isinstance(found, Unanswerable):
            await deps.refuse("authenticate", "client_invalid" if unknown else "request_invalid")
            why = found.description if isinstance(found, Unanswerable) else ""
            return _error_page(f"The app that sent you here cannot be served: {why}.", 400)
        # 3. Links to this host that lead on to wherever an app that names itself has said: a broken
        # request is told to an app once somebody is signed in, and goes on to such a one only by
        # their own press (RFC 9700 §4.11.2).
        if who is None:
            return self._sign_in(request, here)
        asked = rules.read_request(parameters, app, found, deps.site.public_url)
        if isinstance(asked, Rejected):
            return self._tell_back(asked, app)
        grants = rules.of_server(app.grants, asked.server)
        if not rules.choices(grants, deps.effect_of):
            why = "there is nothing this app may have here"
            refused = Rejected(asked.redirect_uri, asked.state, "access_denied", why)
            return self._tell_back(refused, app)
        ready = _Ready(app, asked, grants, who, query)
        if not app.is_for(who.person):
            await self._record_refusal(ready, "person_forbidden")
            return _error_page("This app may not act for you. Ask who runs this gateway.", 403)
        return ready

    async def _find_app(
        self, parameters: dict[str, list[str]], who: SignedIn | None
    ) -> App | Unanswerable | None:
        """Return the app that asks, or why there is none; None if that takes somebody signed in.

        Fetching a document is a request that whoever wrote the URL has the gateway make. Strangers
        cannot: only for somebody signed in is anything fetched.
        """
        deps = self._deps
        named = parameters.get("client_id", ())
        if len(named) != 1:
            return Unanswerable("send `client_id` exactly once")
        client_id = named[0]
        if (app := deps.apps.get(client_id)) is not None:
            return app
        if deps.documents is None or "://" not in client_id:
            return Unanswerable("no app of this `client_id` is known here")
        if who is None:
            return None
        found = await deps.documents.fetch(client_id)
        if isinstance(found, NoDocument):
            return Unanswerable(f"the document at its `client_id` {found.reason}")
        return deps.apps.stranger(
            found.client_id, name=found.name, redirect_uris=found.redirect_uris, site=found.host
        )

    async def _grant(self, ready: _Ready, grants: tuple[Grant, ...]) -> Response:
        deps = self._deps
        now_s = deps.clock.now_ns() // 1_000_000_000
        code = deps.ids.secret()
        consent = Consent(
            client_id=ready.app.id,
            redirect_uri=ready.asked.redirect_uri,
            challenge=ready.asked.challenge,
            resource=ready.asked.resource,
            scopes=ready.asked.scopes,
            agent=ready.app.agent,
            person=ready.who.person,
            grants=grants,
            expires_at=now_s + rules.CODE_TTL_S,
            deadline=now_s + min(deps.deadline_s, deps.site.run_max_s),
            jkt=ready.asked.jkt,
        )
        # INVARIANT: the record is durable before the code leaves.
        await deps.audit.record(build_granted(consent, ready.app, deps.ids.new()))
        await deps.store.put_code(Code(code_hash=hash_secret(code), consent=consent))
        asked = ready.asked
        return _redirect(
            rules.answer_url(asked.redirect_uri, deps.site.issuer, asked.state, code=code)
        )

    def _page(self, ready: _Ready, error: str = "") -> Response:
        question = Question(
            app=ready.app,
            asked=ready.asked,
            grants=ready.grants,
            person=ready.who.person,
            csrf=ready.who.csrf,
            query=ready.query,
            deadline_s=min(self._deps.deadline_s, self._deps.site.run_max_s),
        )
        return consent_page(
            question,
            tools=self._deps.tools,
            effect_of=self._deps.effect_of,
            path=oauth.AUTHORIZE_PATH,
            error=error,
        )

    def _sign_in(self, request: Request, here: str) -> Response:
        """Send the browser to sign in, and back here.

        A browser that comes from another site leaves strict cookies behind. One step from a page
        of our own brings them along, so nobody signs in twice.
        """
        if request.headers.get("sec-fetch-site") in _CROSS_SITE:
            text = fill('<p><a href="{here}">Go on</a></p>', here=here)
            return page("One moment", text, go_on_to=here)
        return _redirect(self._deps.sessions.sign_in_url(here))

    async def _record_refusal(self, ready: _Ready, reason: str) -> None:
        deps = self._deps
        entry = build_refused(ready.app.id, reason, deps.ids.new(), person=ready.who.person)
        await deps.audit.record(entry)

    def _reject(self, ready: _Ready, error: str, description: str) -> Response:
        asked = ready.asked
        return self._back(Rejected(asked.redirect_uri, asked.state, error, description))

    def _back(self, rejected: Rejected) -> Response:
        return _redirect(self._back_url(rejected))

    def _tell_back(self, rejected: Rejected, app: App) -> Response:
        """Send an error back that nobody has pressed anything for."""
        if not app.is_stranger:
            return self._back(rejected)
        told = fill(
            '<p>{name} asked for what it cannot have: {why}.</p>\n<p><a href="{url}">Go on to '
            "{place}</a></p>",
            name=app.name,
            why=rejected.description,
            url=self._back_url(rejected),
            place=place_of(rejected.redirect_uri),
        )
        return page(_FAILED, told, status=400)

    def _back_url(self, rejected: Rejected) -> str:
        return rules.answer_url(
            rejected.redirect_uri,
            self._deps.site.issuer,
            rejected.state,
            error=rejected.error,
            error_description=rejected.description.replace("`", "'"),
        )


def _read_query(query: str) -> dict[str, list[str]] | None:
    """Return the parameters of a query string; None for what has no one meaning."""
    if len(query) > QUERY_MAX_CHARS or not query.isascii():
        return None
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        return None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


async def _forgiving(story: Awaitable[Response]) -> Response:
    """Tell a story; what breaks inside is for the operators' log, and nothing was granted."""
    try:
        return await story
    except CountersignError:
        return _error_page("This could not be completed. Try again later.", 503)


def _redirect(url: str) -> Response:
    headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=303, headers=headers)


def _error_page(text: str, status: int) -> Response:
    return page(_FAILED, fill("<p>{text}</p>", text=text), status=status)
