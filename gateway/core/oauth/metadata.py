"""What the gateway tells OAuth clients: metadata documents, scopes, resources.

Sources: RFC 8414 (server metadata), RFC 9728 (resource metadata), RFC 8707 (resource
indicators), RFC 9449 and RFC 7523 (what signs proofs and assertions), and the authorization page
of the MCP specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.core import names
from gateway.core.oauth import client_assertion, dpop
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST

SCOPES: Final = (SCOPE_LIST, SCOPE_CALL)
ALL_SCOPES: Final = " ".join(SCOPES)

TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - a path
REVOKE_PATH: Final = "/oauth/revoke"
INTROSPECT_PATH: Final = "/oauth/introspect"
AUTHORIZE_PATH: Final = "/oauth/authorize"
REGISTER_PATH: Final = "/oauth/register"
JWKS_PATH: Final = "/oauth/jwks.json"
_PROVING: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
SERVER_METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
RESOURCE_METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
MCP_PATH: Final = "/mcp"


class Interactive(Struct, frozen=True, kw_only=True):
    """That people can be sent to the authorization endpoint.

    `documents`: whether a client may be named by the URL of its metadata document;
    `registration`: whether clients may register themselves.
    """

    documents: bool = False
    registration: bool = False


def build_server_metadata(
    issuer: str,
    public_url: str,
    *,
    grant_types: Sequence[str] = ("client_credentials",),
    interactive: Interactive | None = None,
) -> dict[str, Any]:
    """Describe the authorization server (RFC 8414).

    Without `interactive` no user is ever sent to the authorization endpoint: it refuses every
    response type. It is named because the official MCP SDK reads no document without it.
    """
    found = _build_metadata(issuer, public_url)
    found["grant_types_supported"] = list(grant_types)
    if interactive is None:
        return found
    found["token_endpoint_auth_methods_supported"].append("none")
    found |= {
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": interactive.documents,
    }
    if interactive.registration:
        found["registration_endpoint"] = public_url + REGISTER_PATH
    return found


def _build_metadata(issuer: str, public_url: str) -> dict[str, Any]:
    beside = {"revocation": REVOKE_PATH, "introspection": INTROSPECT_PATH}
    algorithms = list(client_assertion.ALGORITHMS)
    proving = {
        "endpoint_auth_methods_supported": _PROVING,
        "endpoint_auth_signing_alg_values_supported": algorithms,
    }
    return {
        **{f"{name}_endpoint": public_url + path for name, path in beside.items()},
        **{f"{name}_{key}": value for name in beside for key, value in proving.items()},
        "issuer": issuer,
        "authorization_endpoint": public_url + AUTHORIZE_PATH,
        "token_endpoint": public_url + TOKEN_PATH,
        "jwks_uri": public_url + JWKS_PATH,
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": list(_PROVING),
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "scopes_supported": list(SCOPES),
        "authorization_details_types_supported": ["countersign_tool"],
    }


def build_resource_metadata(issuer: str, public_url: str, path: str = "") -> dict[str, Any]:
    """Describe the protected resource at `path`: ``, `/mcp` or `/mcp/<server>` (RFC 9728)."""
    return {
        "resource": public_url + path,
        "authorization_servers": [issuer],
        "jwks_uri": public_url + JWKS_PATH,
        "scopes_supported": list(SCOPES),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "resource_name": "Countersign",
    }


def is_resource(text: str, public_url: str) -> bool:
    """Whether a token may be asked for this resource: the gateway, `/mcp`, or one server there.

    Tokens always say the gateway itself in `aud`; which servers they reach is in their grants.
    """
    if text.removesuffix("/") in (public_url, public_url + MCP_PATH):
        return True
    prefix = f"{public_url}{MCP_PATH}/"
    return text.startswith(prefix) and names.is_server_id(text.removeprefix(prefix))


def server_of(resource: str, public_url: str) -> str | None:
    """Return the one server that a resource of `is_resource` names, or None."""
    prefix = f"{public_url}{MCP_PATH}/"
    return resource.removeprefix(prefix) or None if resource.startswith(prefix) else None


def read_scopes(text: str | None) -> frozenset[str] | None:
    """Return the scopes asked for, both when none are named; None when one is unknown."""
    if text is None:
        return frozenset(SCOPES)
    asked = frozenset(text.split(" "))
    return asked if asked <= set(SCOPES) else None
