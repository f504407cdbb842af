"""The payload of an access token: `Claims` to and from JSON (DESIGN §4; RFC 9068, RFC 9396).

`sub` is the person for whom an agent acts, where there is one, and else the agent whose run it is;
`act` is who acts, in it whoever that one acts for (RFC 8693 §4.1).

INVARIANT: `decode(encode(claims)) == claims`, and a member that is not in the list below refuses
the token: nothing that a token says may go unheard, least of all a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.core import strict_json
from gateway.core.errors import CredentialError, RequestError
from gateway.core.tokens.grants import find_ambiguity, find_fault
from gateway.core.tokens.token import Ancestor, Budget, Claims, Constraint, Grant, Window

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
    window: Window | None = None


class _Actor(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    sub: str
    act: _Actor | None = None


class _MayAct(Struct, frozen=True, forbid_unknown_fields=True):
    sub: str


class _Key(Struct, frozen=True, forbid_unknown_fields=True):
    jkt: str


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
    max_depth: int
    workflow: str = ""
    sub_type: Literal["agent", "human"] = "agent"
    act: _Actor | None = None
    may_act: _MayAct | None = None
    cnf: _Key | None = None
    parent_jti: str = ""
    ancestors: tuple[Ancestor, ...] = ()
    budget: Budget | None = None
    allowed_values: dict[str, tuple[str, ...]] = {}
    roles: tuple[str, ...] = ()
    owner: str = ""
    origin: str = "launcher"
    version: str = ""
    narrowed: tuple[Literal["tool", "max_calls"], ...] = ()


_decoder: Final = msgspec.json.Decoder(_Payload)
_PASSED_ON: Final = (
    "client_id",
    "jti",
    "run_id",
    "sid",
    "root_jti",
    "depth",
    "workflow",
    "allowed_values",
    "roles",
    "owner",
    "origin",
    "ancestors",
    "parent_jti",
    "max_depth",
    "version",
    "narrowed",
)
"""Members of the same name and meaning on both sides."""


def encode(claims: Claims) -> dict[str, Any]:
    """Return the payload as a JSON object. `nbf` is `iat`: a token is good from its issue on."""
    person, chain = claims.on_behalf_of, (claims.subject, *claims.actors)
    payload = _Payload(
        iss=claims.issuer,
        aud=claims.audience,
        sub=chain[-1] if person is None else person,
        sub_type="agent" if person is None else "human",
        act=_nest(chain[:-1] if person is None else chain),
        may_act=_MayAct(claims.may_act) if claims.may_act else None,
        cnf=_Key(claims.jkt) if claims.jkt else None,
        budget=None if claims.budget == Budget() else claims.budget,
        iat=claims.issued_at,
        nbf=claims.issued_at,
        exp=claims.expires_at,
        scope=" ".join(sorted(claims.scopes)),
        env=claims.environment,
        authorization_details=tuple(_detail(grant, claims.audience) for grant in claims.grants),
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
    acting = tuple(_unnest(found.act))
    chain = acting if found.sub_type == "human" else (*acting, found.sub)
    if len(chain) != found.depth + 1 or found.depth > found.max_depth:
        raise CredentialError("the token's chain of actors is not as deep as it says")
    claims = Claims(
        issuer=found.iss,
        audience=found.aud,
        subject=chain[0],
        actors=chain[1:],
        on_behalf_of=found.sub if found.sub_type == "human" else None,
        may_act="" if found.may_act is None else found.may_act.sub,
        jkt="" if found.cnf is None else found.cnf.jkt,
        budget=found.budget or Budget(),
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


class _Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """One authorization detail of a request: what it leaves out is as in a token."""

    type: Literal["countersign_tool"]
    server: str
    tool: str = "*"
    locations: tuple[str, ...] = ()
    actions: tuple[Literal["call"], ...] = ("call",)
    effects: tuple[str, ...] = ()
    constraints: dict[str, Constraint] = {}
    max_calls: int | None = None
    window: Window | None = None


DETAILS_MAX: Final = 64
"""As many as a run has grants. To compare two lists takes their product, and calls wait for it."""

_DEPTH_MAX: Final = 8


def read_details(text: str, audience: str) -> tuple[Grant, ...] | str:
    """Return the grants that `authorization_details` ask for, or say why they cannot be read."""
    try:
        found = strict_json.parse(text.encode(), max_depth=_DEPTH_MAX)
        asked = msgspec.convert(found, tuple[_Asked, ...])
    except (RequestError, msgspec.ValidationError, UnicodeEncodeError) as error:
        return f"the details cannot be read: {str(error)[:200]}"
    if not asked:
        return "the details are empty; leave them out to ask for everything"
    if len(asked) > DETAILS_MAX:
        return f"more than {DETAILS_MAX} details"
    if any(not set(one.locations) <= {audience} for one in asked):
        return f"the location of every detail is `{audience}`"
    grants = tuple(_grant(one) for one in asked)
    faults = (find_fault(grant) for grant in grants)
    return next((fault for fault in faults if fault), None) or find_ambiguity(grants) or grants


def _nest(chain: tuple[str, ...]) -> _Actor | None:
    nested: _Actor | None = None
    for agent in reversed(chain):
        nested = _Actor(agent, nested)
    return nested


def _unnest(actor: _Actor | None) -> Iterator[str]:
    while actor is not None:
        yield actor.sub
        actor = actor.act


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
        window=grant.window,
    )


def _grant(detail: _Detail | _Asked) -> Grant:
    return Grant(
        server=detail.server,
        tool=detail.tool,
        effects=detail.effects,
        constraints=detail.constraints,
        max_calls=detail.max_calls,
        window=detail.window,
    )
