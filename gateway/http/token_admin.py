"""What became of tokens: `/v1/tokens` for people, `/oauth/revoke` and `/oauth/introspect`.

Sources: RFC 7009 (revocation), RFC 7662 (introspection), RFC 9396 §9.1 (their details).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core.errors import CountersignError, CredentialError, RequestError
from gateway.core.oauth import metadata as oauth
from gateway.core.oauth.apps import App
from gateway.core.ports import Barred, Clock, TokenVerifier
from gateway.core.tokens.clients import Agent, Client
from gateway.core.tokens.issued import IssuedToken, IssuedTokens
from gateway.core.tokens.jwt_claims import encode
from gateway.core.tokens.token import Claims, Run
from gateway.http.admin_route import ProblemRoute, read_body, reply, require_role
from gateway.http.client_auth import BASIC_CHALLENGE
from gateway.http.humans import Admit
from gateway.http.kill_admin import (
    ADMIN,
    AUDITOR,
    OPERATOR,
    Name,
    Said,
    tell_unkept,
    view_kill,
)
from gateway.http.oauth_forms import Failure, read_form, tell_failure, tell_json
from gateway.http.openapi import takes
from gateway.kill_switch import KillSwitch

LIST_MAX: Final = 1_000
SKEW_S: Final = 60
"""How much longer than a token a revocation is kept, in seconds."""

Authenticate = Callable[[dict[str, str], Request], Awaitable[Client | Run | App | None]]
"""Returns the client that a form proves; raises `RequestError` where it proves itself twice."""

EndRefresh = Callable[[App, str], Awaitable[None]]
"""Ends what a refresh token of this app stands for; one that is not its own is left alone."""


async def _end_nothing(_app: App, _token: str) -> None:
    """Stand in where no app has refresh tokens."""


@dataclass(frozen=True, kw_only=True)
class TokenAdminDeps:
    """What the routes need. `token_max_s`, `run_max_s`: the longest that either may live.

    `refuse(stage, reason)` records a refusal of somebody not yet known.
    """

    kills: KillSwitch
    issued: IssuedTokens
    tokens: TokenVerifier
    barred: Barred
    authenticate: Authenticate
    refuse: Callable[[str, str], Awaitable[None]]
    admit: Admit
    clock: Clock
    token_max_s: int
    run_max_s: int
    end_refresh: EndRefresh = _end_nothing


class RevokeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/tokens/revoke`: one token and what was handed on from it, or a whole family."""

    reason: Said
    jti: Name | None = None
    root: Name | None = None


class TokenQuery(msgspec.Struct, frozen=True):
    """What a list is narrowed to."""

    agent: str | None = None
    client: str | None = None
    run: str | None = None

    def fits(self, token: IssuedToken) -> bool:
        """Whether a token is asked for."""
        asked = ((self.agent, token.agent), (self.client, token.client), (self.run, token.run))
        return all(wanted is None or wanted == found for wanted, found in asked)


def build_token_router(deps: TokenAdminDeps) -> APIRouter:
    """Build `/v1/tokens`."""
    router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=ProblemRoute)

    @router.get("")
    async def find(
        request: Request,
        agent: str | None = None,
        client: str | None = None,
        run: str | None = None,
    ) -> Response:
        """List live tokens, newest first, without their text."""
        await require_role(deps.admit, request, OPERATOR, ADMIN, AUDITOR)
        return reply(list_tokens(deps, TokenQuery(agent, client, run)))

    @router.post("/revoke")
    @takes(RevokeBody)
    async def revoke(request: Request) -> Response:
        """Take back a token with everything handed on from it, or all tokens of a run, for good."""
        human = await require_role(deps.admit, request, OPERATOR, ADMIN)
        body = await read_body(request, RevokeBody)
        if (body.jti is None) == (body.root is None):
            raise RequestError("name one `jti` or one `root`", code="request_invalid")
        try:
            return reply(await _take_back(deps, body, human.id))
        except CountersignError as error:
            return tell_unkept(error)

    return router


async def _take_back(deps: TokenAdminDeps, body: RevokeBody, by: str) -> dict[str, Any]:
    if body.jti is not None:
        token = deps.issued.get(body.jti)
        expires_at = _now_s(deps) + deps.token_max_s if token is None else token.expires_at
        done = await deps.kills.kill(
            "token", body.jti, by=by, reason=body.reason, until=expires_at + SKEW_S
        )
        return {**view_kill(done), "known": token is not None}
    until = _now_s(deps) + deps.run_max_s + SKEW_S
    done = await deps.kills.kill("family", body.root or "", by=by, reason=body.reason, until=until)
    known = any(one.root == body.root for one in deps.issued.live(_now_s(deps)))
    return {**view_kill(done), "known": known}


def list_tokens(deps: TokenAdminDeps, query: TokenQuery) -> dict[str, Any]:
    """Return what `GET /v1/tokens` answers."""
    now_s = _now_s(deps)
    revoked = {(one.kind, one.target) for one in deps.kills.standing()}
    found: list[dict[str, Any]] = []
    more = False
    for token in deps.issued.live(now_s):
        if query.fits(token):
            if len(found) == LIST_MAX:
                more = True
                break
            state = "revoked" if _is_revoked(token, revoked) else "live"
            found.append({**msgspec.to_builtins(token), "state": state})
    return {"tokens": found, "more": more, "complete": deps.issued.is_complete(now_s)}


def _is_revoked(token: IssuedToken, revoked: set[tuple[Any, str]]) -> bool:
    """Whether it was revoked by its own name, its parent's or its family's; for people to see."""
    names = (("token", token.jti), ("token", token.parent), ("family", token.root))
    return not revoked.isdisjoint(names)


def build_oauth_tokens_router(deps: TokenAdminDeps) -> APIRouter:
    """Build `/oauth/revoke` and `/oauth/introspect`."""
    router = APIRouter(tags=["oauth"])

    @router.post(oauth.REVOKE_PATH)
    async def revoke(request: Request) -> Response:
        """Revoke a token of the client that asks (RFC 7009)."""
        return await _told(_revoke(deps, request))

    @router.post(oauth.INTROSPECT_PATH)
    async def introspect(request: Request) -> Response:
        """Say what a token is, to those who may know (RFC 7662)."""
        return await _told(_introspect(deps, request))

    return router


async def _told(work: Awaitable[Response]) -> Response:
    try:
        return await work
    except CountersignError:
        text = "this cannot be answered now; try again later"
        return tell_failure(Failure("temporarily_unavailable", text, 503))


async def _revoke(deps: TokenAdminDeps, request: Request) -> Response:
    asked = await _read(deps, request)
    if isinstance(asked, Failure):
        return tell_failure(asked)
    who, token = asked
    if isinstance(who, App):
        await deps.end_refresh(who, token)
    claims = _verify(deps, token)
    # A token that is unknown, over or revoked already is what was asked for (RFC 7009 §2.2).
    if claims is None:
        return Response(status_code=200, headers={"Cache-Control": "no-store"})
    # Somebody else's token: whoever found it could stop its owner's work.
    if who is None or not is_own(who, claims):
        text = "this token is not of this client; report a leaked one to an operator"
        return tell_failure(Failure("unauthorized_client", text))
    until = claims.expires_at + SKEW_S
    await deps.kills.kill("token", claims.jti, reason="client_asked", until=until)
    return Response(status_code=200, headers={"Cache-Control": "no-store"})


async def _introspect(deps: TokenAdminDeps, request: Request) -> Response:
    asked = await _read(deps, request, people=True)
    if isinstance(asked, Failure):
        return tell_failure(asked)
    who, token = asked
    # A public app shows nothing but its name, which everybody knows.
    if isinstance(who, App) and not who.secret_hash:
        return tell_json({"active": False})
    claims = _verify(deps, token)
    # INVARIANT: one answer for what is not alive and for what the caller may not know.
    if claims is None or not (who is None or is_own(who, claims)):
        return tell_json({"active": False})
    token_type = "DPoP" if claims.jkt else "Bearer"
    return tell_json({"active": True, "token_type": token_type, **encode(claims)})


async def _read(
    deps: TokenAdminDeps, request: Request, *, people: bool = False
) -> tuple[Client | Run | App | None, str] | Failure:
    """Read the form and believe who asks. None for a person who may know everything."""
    # 1. Requests that two parsers may read differently, and floods of bytes.
    try:
        form = await read_form(request)
        one = {name: values[0] for name, values in form.items() if values[0]}
        who: Client | Run | App | None = None
        # 2. Strangers: they would learn which tokens are alive.
        scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
        if people and scheme == "bearer":
            await require_role(deps.admit, request, OPERATOR, ADMIN, AUDITOR)
        elif (who := await deps.authenticate(one, request)) is None:
            await deps.refuse("authenticate", "client_invalid")
            text = "the client is not known or its secret is wrong"
            return Failure("invalid_client", text, 401, {"WWW-Authenticate": BASIC_CHALLENGE})
    except RequestError as error:
        await deps.refuse("read", error.code)
        return Failure("invalid_request", str(error))
    except CredentialError:  # recorded at the door of the people
        return Failure("invalid_client", "this person may not ask", 401)
    if "token" not in one:
        return Failure("invalid_request", "`token` is missing")
    return who, one["token"]


def is_own(who: Client | Run | App, claims: Claims) -> bool:
    """Whether a token is of this run, was launched by this client, or comes from this agent."""
    if isinstance(who, Run):
        return claims.run_id == who.id
    if isinstance(who, Agent):
        return who.id == claims.subject or who.id in claims.actors
    return claims.client_id == who.id


def _verify(deps: TokenAdminDeps, token: str) -> Claims | None:
    """Return the claims of a token that is good now."""
    try:
        claims = deps.tokens.verify(token.encode("utf-8", "replace"), _now_s(deps))
    except CredentialError:
        return None
    return claims if deps.barred(claims) is None else None


def _now_s(deps: TokenAdminDeps) -> int:
    return deps.clock.now_ns() // 1_000_000_000
