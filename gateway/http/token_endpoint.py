"""`POST /oauth/token`: a client proves itself, asks by a grant type, and gets a token or a reason.

Each grant type is a file in `gateway/http/grants`. What all share happens here, in this order: the
form is read strictly, the client is believed or not, what nobody gets is refused, and only then the
grant type is asked. Everything refused is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from fastapi import Request
from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from gateway.core.errors import CountersignError, RequestError
from gateway.core.oauth import metadata as oauth
from gateway.core.oauth.apps import App
from gateway.core.oauth.dpop import Possession
from gateway.core.tokens.clients import Client, Launcher
from gateway.core.tokens.issuing import Wish
from gateway.core.tokens.jwt_claims import encode, read_details
from gateway.core.tokens.token import Run
from gateway.http.client_auth import BASIC_CHALLENGE, Presented, read_client
from gateway.http.issue_desk import Issued, IssueDeps, IssueDesk, Withheld
from gateway.http.oauth_forms import Failure, read_form, tell_failure, tell_json
from gateway.http.token_proof import judge_possession, read_possession


class TokenRequest(Struct, frozen=True, kw_only=True):
    """A token request of a proven client. `one`: its parameters, those left empty left out."""

    who: Client | Run | App
    one: dict[str, str]
    wish: Wish


class GrantType(Protocol):
    """One way to ask for a token."""

    @property
    def name(self) -> str:
        """The `grant_type` that asks for it."""
        ...

    async def answer(self, ask: TokenRequest) -> Issued | Withheld | Failure:
        """Issue, or say why not. A `Failure` is recorded by the endpoint, the others are already.

        Raises `CountersignError` when no decision, no record or no state could be had.
        """
        ...


_STRANGER: Final = "the client is not known or its secret is wrong"
_ASSERTION_FAULT: Final = (
    "the assertion is none of a known client's: it is signed by a key of it, for this server "
    "alone, lives for 300 s at most and counts once"
)


class _Form(Struct, frozen=True):
    """A token request that can be read. `failure` says why it gets nothing whoever asks."""

    presented: Presented | None
    possession: Possession | None
    one: dict[str, str]
    wish: Wish
    failure: Failure | None


class TokenEndpoint:
    """Answers token requests."""

    def __init__(self, deps: IssueDeps, desk: IssueDesk, grant_types: Sequence[GrantType]) -> None:
        self._deps = deps
        self._desk = desk
        self._grant_types: Mapping[str, GrantType] = {one.name: one for one in grant_types}

    @property
    def grant_types(self) -> Sequence[str]:
        """Return the names of the grant types."""
        return tuple(self._grant_types)

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            return await self._answer(request)
        except CountersignError:
            text = "no token can be issued now; try again later"
            return tell_failure(Failure("temporarily_unavailable", text, 503))

    async def _answer(self, request: Request) -> Response:
        # 1. Requests that two parsers may read differently, and floods of bytes.
        try:
            form = self._read(await read_form(request), request)
        except RequestError as error:
            await self._deps.refuse("read", error.code)
            return tell_failure(Failure("invalid_request", str(error)))
        # 2. Strangers.
        who = await self._believe(form)
        if who is None:
            await self._deps.refuse("authenticate", "client_invalid")
            text = _ASSERTION_FAULT if "client_assertion" in form.one else _STRANGER
            challenge = {"WWW-Authenticate": BASIC_CHALLENGE}
            return tell_failure(Failure("invalid_client", text, 401, challenge))
        # 3. Known clients that ask for what nobody gets.
        failure = form.failure
        if isinstance(who, Launcher):
            failure = Failure("unauthorized_client", "create a run for its agent")
        if failure is not None:
            return await self._refuse(who, failure)
        # 4. Proofs of keys that do not hold (RFC 9449 §5); one that does binds the token.
        now_s = self._deps.clock.now_ns() // 1_000_000_000
        bound = judge_possession(self._deps.proofs, form.possession, now_s)
        if bound.failure is not None:
            return await self._refuse(who, bound.failure, bound.code)
        # 5. What this grant type asks for, revoked authority and policy; then record and reply.
        grant_type = self._grant_types[form.one["grant_type"]]
        ask = TokenRequest(who=who, one=form.one, wish=replace(form.wish, jkt=bound.jkt))
        result = await grant_type.answer(ask)
        if isinstance(result, Failure):
            return await self._refuse(who, result)
        return _reply(result, bound.headers)

    async def _believe(self, form: _Form) -> Client | Run | App | None:
        return await self._desk.believe(form.one, form.presented)

    async def _refuse(self, who: Client | Run | App, failure: Failure, code: str = "") -> Response:
        reason = code or failure.error
        if isinstance(who, App) and not who.secret_hash:
            # Its name is all that it showed, and everybody knows that: summed up like strangers'.
            await self._deps.refuse("authenticate", reason)
        else:
            await self._desk.refuse_token(who, reason)
        return tell_failure(failure)

    def _read(self, form: dict[str, list[str]], request: Request) -> _Form:
        one = {name: values[0] for name, values in form.items() if values[0]}
        presented = read_client(one, request)
        public_url = self._deps.site.public_url
        scopes = oauth.read_scopes(one.get("scope"))
        grants = None
        failure: Failure | None = None
        if "grant_type" not in one:
            failure = Failure("invalid_request", "`grant_type` is missing")
        elif one["grant_type"] not in self._grant_types:
            known = ", ".join(f"`{name}`" for name in self._grant_types)
            failure = Failure("unsupported_grant_type", f"the grant types are {known}")
        elif scopes is None:
            failure = Failure("invalid_scope", f"the scopes are `{oauth.ALL_SCOPES}`")
        elif not all(oauth.is_resource(text, public_url) for text in _targets(form)):
            failure = Failure("invalid_target", f"the resource is `{public_url}{oauth.MCP_PATH}`")
        elif (details := one.get("authorization_details")) is not None:
            found = read_details(details, public_url)
            if isinstance(found, str):
                failure = Failure("invalid_authorization_details", found)
            else:
                grants = found
        named = scopes if "scope" in one else None
        possession = read_possession(request, oauth.TOKEN_PATH)
        return _Form(presented, possession, one, Wish(scopes=named, grants=grants), failure)


def _targets(form: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return (*form.get("resource", ()), *form.get("audience", ()))


def _reply(result: Issued | Withheld, headers: Mapping[str, str]) -> Response:
    if isinstance(result, Withheld):
        error = "access_denied" if result.code == "policy_denied" else "invalid_grant"
        return tell_failure(Failure(result.error or error, result.detail))
    claims = result.claims
    body: dict[str, Any] = {
        "access_token": result.token,
        "token_type": "DPoP" if claims.jkt else "Bearer",
        "expires_in": claims.expires_at - claims.issued_at,
        "scope": " ".join(sorted(claims.scopes)),
        "authorization_details": encode(claims)["authorization_details"],
        **result.extra,
    }
    return tell_json(body, headers=headers)
