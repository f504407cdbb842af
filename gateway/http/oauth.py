"""The authorization server: `/oauth/token`, JWKS and metadata (DESIGN §4; RFC 6749, RFC 8414).

Clients prove themselves by Basic or in the body, never both. A token is asked for by a run (its id
and credential) or by an agent (its id and secret); launchers create runs and get no tokens.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from gateway.core import names, oauth
from gateway.core.clients import Client, Launcher
from gateway.core.errors import CountersignError, RequestError
from gateway.core.jwt_claims import encode
from gateway.core.token import Run
from gateway.http.client_auth import BASIC_CHALLENGE, Presented, read_basic, read_body
from gateway.http.issue_desk import Issued, IssueDeps, IssueDesk, Withheld

FORM_MAX_BYTES: Final = 16_384
FORM_MAX_FIELDS: Final = 32
DOCUMENT_MAX_AGE_S: Final = 300
"""How long JWKS and metadata may be cached; a next key is published longer before it signs."""

_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class _Ask(Struct, frozen=True):
    """A token request that can be read. `failure` says why it gets nothing whoever asks."""

    presented: Presented | None
    scopes: frozenset[str]
    failure: tuple[str, str] | None = None


def build_oauth_router(deps: IssueDeps) -> APIRouter:
    """Build the routes under `/oauth` and `/.well-known`."""
    router = APIRouter(tags=["oauth"])
    desk = IssueDesk(deps)

    @router.post(oauth.TOKEN_PATH)
    async def token(request: Request) -> Response:
        """Turn a run credential or an agent's secret into an access token."""
        try:
            return await _answer(deps, desk, request)
        except CountersignError:
            text = "no token can be issued now; try again later"
            return _error(503, "temporarily_unavailable", text)

    @router.get(oauth.AUTHORIZE_PATH)
    async def authorize() -> Response:
        """Refuse: no user grants anything here. Named in the metadata for clients that insist."""
        text = "use the client_credentials grant at the token endpoint"
        return _error(400, "unsupported_response_type", text)

    @router.get(oauth.JWKS_PATH)
    async def jwks() -> Response:
        """Publish the keys that tokens are signed with (RFC 7517)."""
        return _document(deps.issuer.jwks())

    @router.get(oauth.SERVER_METADATA_PATH)
    async def server_metadata() -> Response:
        """Describe the authorization server (RFC 8414)."""
        return _document(oauth.build_server_metadata(deps.site.issuer, deps.site.public_url))

    _add_resource_metadata(router, deps)
    return router


def _add_resource_metadata(router: APIRouter, deps: IssueDeps) -> None:
    site = deps.site

    @router.get(oauth.RESOURCE_METADATA_PATH)
    async def gateway() -> Response:
        """Describe the gateway as a protected resource (RFC 9728)."""
        return _document(oauth.build_resource_metadata(site.issuer, site.public_url))

    @router.get(oauth.RESOURCE_METADATA_PATH + oauth.MCP_PATH)
    async def mcp() -> Response:
        """Describe `/mcp`."""
        document = oauth.build_resource_metadata(site.issuer, site.public_url, oauth.MCP_PATH)
        return _document(document)

    @router.get(oauth.RESOURCE_METADATA_PATH + oauth.MCP_PATH + "/{server}")
    async def one_server(server: str) -> Response:
        """Describe `/mcp/<server>`, whether or not there is one: strangers learn no names."""
        if not names.is_server_id(server):
            return Response(status_code=404)
        path = f"{oauth.MCP_PATH}/{server}"
        return _document(oauth.build_resource_metadata(site.issuer, site.public_url, path))


async def _answer(deps: IssueDeps, desk: IssueDesk, request: Request) -> Response:
    """One token request, top to bottom."""
    # 1. Requests that two parsers may read differently, and floods of bytes.
    try:
        ask = _read_ask(await _read_form(request), request, deps.site.public_url)
    except RequestError as error:
        await deps.refuse("read", error.code)
        return _error(400, "invalid_request", str(error))
    # 2. Strangers.
    who = await desk.authenticate(ask.presented)
    if who is None:
        await deps.refuse("authenticate", "client_invalid")
        text = "the client is not known or its secret is wrong"
        return _error(401, "invalid_client", text, {"WWW-Authenticate": BASIC_CHALLENGE})
    # 3. Known clients that ask for what nobody gets.
    if isinstance(who, Launcher):
        return await _misuse(desk, who, ("unauthorized_client", "create a run for its agent"))
    if ask.failure is not None:
        return await _misuse(desk, who, ask.failure)
    # 4. Revoked authority and policy; then record and reply.
    return _reply(await desk.issue(who, ask.scopes))


async def _misuse(desk: IssueDesk, who: Client | Run, failure: tuple[str, str]) -> Response:
    error, text = failure
    await desk.refuse_token(who, error)
    return _error(400, error, text)


def _reply(result: Issued | Withheld) -> Response:
    if isinstance(result, Withheld):
        error = "access_denied" if result.code == "policy_denied" else "invalid_grant"
        return _error(400, error, result.detail)
    claims = result.claims
    body = {
        "access_token": result.token,
        "token_type": "Bearer",
        "expires_in": claims.expires_at - claims.issued_at,
        "scope": " ".join(sorted(claims.scopes)),
        "authorization_details": encode(claims)["authorization_details"],
    }
    return Response(orjson.dumps(body), headers=_NO_STORE, media_type="application/json")


async def _read_form(request: Request) -> dict[str, list[str]]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        raise RequestError(f"send the parameters as `{_MEDIA_TYPE}`", code="request_invalid")
    raw = await read_body(request, FORM_MAX_BYTES)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_MAX_FIELDS,
        )
    except ValueError:
        raise RequestError("the form cannot be read", code="request_invalid") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    for name, values in form.items():  # RFC 6749 §3.2; RFC 8707 §2 lets `resource` repeat
        if len(values) > 1 and name != "resource":
            raise RequestError(f"`{name[:32]}` is given twice", code="request_invalid")
    return form


def _read_ask(form: dict[str, list[str]], request: Request, public_url: str) -> _Ask:
    one = {name: values[0] for name, values in form.items() if values[0]}
    presented = _read_client(one, request)
    scopes = oauth.read_scopes(one.get("scope"))
    failure: tuple[str, str] | None = None
    if "grant_type" not in one:
        failure = ("invalid_request", "`grant_type` is missing; send `client_credentials`")
    elif one["grant_type"] != "client_credentials":
        failure = ("unsupported_grant_type", "only `client_credentials` is supported")
    elif scopes is None:
        failure = ("invalid_scope", f"the scopes are `{oauth.ALL_SCOPES}`")
    elif not all(oauth.is_resource(text, public_url) for text in form.get("resource", ())):
        failure = ("invalid_target", f"the resource is `{public_url}{oauth.MCP_PATH}`")
    elif "authorization_details" in one:
        text = "a token's details are those of its run; create a narrower run"
        failure = ("invalid_authorization_details", text)
    return _Ask(presented, scopes or frozenset(), failure)


def _read_client(one: dict[str, str], request: Request) -> Presented | None:
    header = request.headers.get("authorization")
    if header is None:
        if "client_id" not in one or "client_secret" not in one:
            return None
        return Presented(one["client_id"], one["client_secret"])
    basic = read_basic(header)
    if "client_secret" in one or (
        basic and one.get("client_id", basic.client_id) != basic.client_id
    ):
        text = "the client proves itself twice; use `Authorization` or the body"
        raise RequestError(text, code="request_invalid")
    return basic


def _error(
    status: int, error: str, description: str, headers: dict[str, str] | None = None
) -> Response:
    """Build an error of RFC 6749 §5.2."""
    body = {"error": error, "error_description": _printable(description)}
    return Response(
        orjson.dumps(body),
        status,
        headers={**_NO_STORE, **(headers or {})},
        media_type="application/json",
    )


def _printable(text: str) -> str:
    """Keep to the characters that RFC 6749 §5.2 allows."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)


def _document(body: dict[str, Any]) -> Response:
    headers = {"Cache-Control": f"public, max-age={DOCUMENT_MAX_AGE_S}"}
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")
