"""The routes of the authorization server: tokens, JWKS and metadata (DESIGN §4; RFC 8414).

Clients prove themselves by Basic or in the body, never both. A token is asked for by a run (its id
and credential) or by an agent (its id and secret); launchers create runs and get no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.core import names
from gateway.core.oauth import metadata as oauth
from gateway.http.grants.client_credentials import ClientCredentials
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.http.oauth_forms import Failure, tell_failure
from gateway.http.problem import problem
from gateway.http.token_endpoint import GrantType, TokenEndpoint

DOCUMENT_MAX_AGE_S: Final = 300
"""How long JWKS and metadata may be cached; a next key is published longer before it signs."""


def build_grant_types(desk: IssueDesk) -> Sequence[GrantType]:
    """Return the grant types that need nothing but the desk."""
    return (ClientCredentials(desk),)


def build_oauth_router(
    deps: IssueDeps,
    grant_types: Callable[[IssueDesk], Sequence[GrantType]] = build_grant_types,
    *,
    interactive: oauth.Interactive | None = None,
) -> APIRouter:
    """Build the routes under `/oauth` and `/.well-known`.

    With `interactive` the authorization endpoint is somebody else's (`gateway.http.authorize`).
    """
    router = APIRouter(tags=["oauth"])
    desk = IssueDesk(deps)
    endpoint = TokenEndpoint(deps, desk, grant_types(desk))

    @router.post(oauth.TOKEN_PATH)
    async def token(request: Request) -> Response:
        """Turn a credential into an access token."""
        return await endpoint.answer(request)

    @router.get(oauth.JWKS_PATH)
    async def jwks() -> Response:
        """Publish the keys that tokens are signed with (RFC 7517)."""
        return _document(deps.issuer.jwks())

    @router.get(oauth.SERVER_METADATA_PATH)
    async def server_metadata() -> Response:
        """Describe the authorization server (RFC 8414)."""
        site = deps.site
        return _document(
            oauth.build_server_metadata(
                site.issuer,
                site.public_url,
                grant_types=endpoint.grant_types,
                interactive=interactive,
            )
        )

    if interactive is None:
        _add_refusing_endpoint(router)
    _add_resource_metadata(router, deps)
    return router


def _add_refusing_endpoint(router: APIRouter) -> None:
    @router.get(oauth.AUTHORIZE_PATH)
    async def authorize() -> Response:
        """Refuse: no user grants anything here. Named in the metadata for clients that insist."""
        text = "use the client_credentials grant at the token endpoint"
        return tell_failure(Failure("unsupported_response_type", text))


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
            return problem(404, "path_unknown", "no server has such an id")
        path = f"{oauth.MCP_PATH}/{server}"
        return _document(oauth.build_resource_metadata(site.issuer, site.public_url, path))


def _document(body: dict[str, Any]) -> Response:
    headers = {"Cache-Control": f"public, max-age={DOCUMENT_MAX_AGE_S}"}
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")
