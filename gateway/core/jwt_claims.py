"""The payload of an access token: `Claims` to and from JSON (DESIGN §4; RFC 9068, RFC 9396).

INVARIANT: `decode(encode(claims)) == claims`, and a member that is not in the list below refuses
the token: nothing that a token says may go unheard, least of all a limit.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.core.errors import CredentialError
from gateway.core.token import Claims, Constraint, Grant

DETAIL_TYPE: Final = "countersign_tool"


class _Detail(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One grant as an authorization detail (RFC 9396)."""

    type: Literal["countersign_tool"]
    locations: tuple[str]
    server: str
    tool: str
    actions: tuple[Literal["call"]]
    effects: tuple[str, ...] = ()
    constraints: dict[str, Constraint] = {}
    max_calls: int | None = None


class _Payload(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    iss: str
    aud: str
    sub: str
    client_id: str
    jti: str
    iat: int
    nbf: int
    exp: int
    scope: str
    env: str
    authorization_details: tuple[_Detail, ...]
    run_id: str
    sid: str
    root_jti: str
    depth: int
    max_depth: Literal[0]
    workflow: str = ""
    on_behalf_of: str | None = None
    allowed_values: dict[str, tuple[str, ...]] = {}
    roles: tuple[str, ...] = ()
    owner: str = ""
    origin: str = "launcher"


_decoder: Final = msgspec.json.Decoder(_Payload)
_PASSED_ON: Final = (
    "client_id",
    "jti",
    "run_id",
    "sid",
    "root_jti",
    "depth",
    "workflow",
    "on_behalf_of",
    "allowed_values",
    "roles",
    "owner",
    "origin",
)
"""Members of the same name and meaning on both sides."""


def encode(claims: Claims) -> dict[str, Any]:
    """Return the payload as a JSON object. `nbf` is `iat`: a token is good from its issue on."""
    payload = _Payload(
        iss=claims.issuer,
        aud=claims.audience,
        sub=claims.subject,
        iat=claims.issued_at,
        nbf=claims.issued_at,
        exp=claims.expires_at,
        scope=" ".join(sorted(claims.scopes)),
        env=claims.environment,
        authorization_details=tuple(_detail(grant, claims.audience) for grant in claims.grants),
        max_depth=0,  # nobody hands a token on yet
        **{name: getattr(claims, name) for name in _PASSED_ON},
    )
    built: dict[str, Any] = msgspec.to_builtins(payload)
    return built


def decode(payload: bytes) -> tuple[Claims, int]:
    """Return the claims and `nbf` of a payload whose signature has been checked.

    Raises `CredentialError` (`token_invalid`) for a missing, unknown or mistyped member.
    """
    try:
        found = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CredentialError("the token's claims are not those of an access token") from None
    claims = Claims(
        issuer=found.iss,
        audience=found.aud,
        subject=found.sub,
        issued_at=found.iat,
        expires_at=found.exp,
        scopes=frozenset(found.scope.split()),
        environment=found.env,
        grants=tuple(_grant(detail) for detail in found.authorization_details),
        **{name: getattr(found, name) for name in _PASSED_ON},
    )
    if any(detail.locations != (found.aud,) for detail in found.authorization_details):
        raise CredentialError("the token grants tools of another gateway")
    return claims, found.nbf


def _detail(grant: Grant, audience: str) -> _Detail:
    return _Detail(
        type="countersign_tool",
        locations=(audience,),
        server=grant.server,
        tool=grant.tool,
        actions=("call",),
        effects=grant.effects,
        constraints=grant.constraints,
        max_calls=grant.max_calls,
    )


def _grant(detail: _Detail) -> Grant:
    return Grant(
        server=detail.server,
        tool=detail.tool,
        effects=detail.effects,
        constraints=detail.constraints,
        max_calls=detail.max_calls,
    )
