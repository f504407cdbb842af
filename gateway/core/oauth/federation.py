"""People that another issuer vouches for, and what of that is believed (RFC 8693, RFC 7523).

An enterprise's identity provider tells who a person is and never what an agent may do: that is what
the *launcher* of the configuration may give, whose word the issuer's token stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.canonical import canonicalize
from gateway.core.oauth import metadata as oauth
from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.token import Run

ALGORITHMS: Final = ("ES256", "RS256", "Ed25519", "EdDSA")
"""As providers name them. `EdDSA` (RFC 8037) with Ed25519 keys only; RFC 9864 renames it."""
ASSERTION_TYP: Final = "oauth-id-jag+jwt"
ACCESS_TOKEN_TYP: Final = "at+jwt"  # noqa: S105 - the type's name
SKEW_S: Final = 60
ASSERTION_LIFE_MAX_S: Final = 600
RUN_S: Final = 3_600
"""How long an agent may work for somebody on one token of an identity provider."""

USER_ORIGIN: Final = "user"
ANYBODY: Final = "*"


class TrustedIssuer(Struct, frozen=True, kw_only=True):
    """An identity provider whose word about people is taken.

    `launcher` is the client under whose limits agents then act. `audience`: what its tokens must
    be for; of identity assertions always this gateway's own issuer. `person_claim` holds the id.
    """

    issuer: str
    launcher: str
    audience: str
    jwks_uri: str = ""
    person_claim: str = "sub"


class Vouched(Struct, frozen=True):
    """A person, by a genuine and live token of a trusted issuer. `name`: SHA-256 of what it is.

    `scopes` and `server` are the limits that the issuer set to what may be done with it, if any.
    """

    person: str
    name: bytes
    expires_at: int
    scopes: frozenset[str] | None = None
    server: str | None = None


def read_user_token(
    issuer: TrustedIssuer, typ: str, claims: Mapping[str, Any], now_s: int
) -> Vouched | str:
    """Return the person that an access or ID token is about, or say why it is not believed."""
    # 1. An assertion or another kind of token, taken for one that the person had.
    if typ.lower().removeprefix("application/") not in {ACCESS_TOKEN_TYP, "jwt", ""}:
        return "its type is not that of an access or ID token"
    # 2. A token for another service, brought here by that service.
    if not _names(claims.get("aud"), issuer.audience):
        return "it is for another audience"
    return _read(issuer, claims, now_s)


def read_assertion(
    issuer: TrustedIssuer,
    typ: str,
    claims: Mapping[str, Any],
    now_s: int,
    *,
    own_issuer: str,
    client_id: str,
    public_url: str,
) -> Vouched | str:
    """Return the person that an identity assertion (ID-JAG) is about, or say why not."""
    # 1. A person's ID token, sent by whoever saw it.
    if typ.lower().removeprefix("application/") != ASSERTION_TYP:
        return f"its type is not `{ASSERTION_TYP}`"
    # 2. An assertion for another authorization server, or another client.
    if claims.get("aud") not in (own_issuer, [own_issuer]):
        return "it is for another authorization server"
    if claims.get("client_id") != client_id:
        return "it is for another client"
    # 3. One that could be tried for hours, or twice.
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        return "it has no `jti`"
    found = _read(issuer, claims, now_s)
    if isinstance(found, Vouched) and found.expires_at > now_s + ASSERTION_LIFE_MAX_S + SKEW_S:
        return f"it is good for more than {ASSERTION_LIFE_MAX_S} s"
    return found if isinstance(found, str) else _limit(found, claims, public_url)


def _limit(vouched: Vouched, claims: Mapping[str, Any], public_url: str) -> Vouched | str:
    """Return who is vouched for, with the limits of an assertion. No limit of it goes unheard."""
    scopes, server = None, None
    if "authorization_details" in claims:
        return "its `authorization_details` cannot be kept to"
    if "scope" in claims:
        scopes = frozenset(str(claims["scope"]).split(" ")) & {*oauth.SCOPES}
        if not scopes:
            return "it has no scope of this gateway"
    if "resource" in claims:
        resource = claims["resource"]
        if not isinstance(resource, str) or not oauth.is_resource(resource, public_url):
            return "it is for another resource"
        server = oauth.server_of(resource, public_url)
    return replace(vouched, scopes=scopes, server=server)


def build_user_run(
    vouched: Vouched, agent: Agent, launcher: Launcher, site: Site, now_s: int
) -> Run:
    """Return the run in which `agent` acts for a person.

    One for each token and agent: exchanging it again gives the same run and the same budget.
    """
    name = canonicalize(["countersign.user-run/v1", vouched.name.hex(), agent.id, launcher.id])
    return Run(
        id=hashlib.sha256(name).hexdigest()[:32],
        agent=agent.id,
        launcher=launcher.id,
        grants=tuple(one for one in launcher.grants if vouched.server in {None, one.server}),
        allowed_values={},
        created_at=now_s,
        deadline=now_s + min(RUN_S, site.run_max_s),
        credential_hash="",
        origin=USER_ORIGIN,
        on_behalf_of=vouched.person,
        max_depth=site.max_depth,
    )


def find_misfit(vouched: Vouched, agent: Agent, launcher: Launcher) -> str | None:
    """Say why `agent` may not act for this person under `launcher`, or return None."""
    if agent.id not in launcher.may_launch:
        return "this agent may not act for people of this issuer"
    if not {ANYBODY, vouched.person} & {*launcher.humans}:
        return "agents may not act for this person"
    return None


def _read(issuer: TrustedIssuer, claims: Mapping[str, Any], now_s: int) -> Vouched | str:
    if claims.get("iss") != issuer.issuer:
        return "another issuer says this"
    person, expires_at = claims.get(issuer.person_claim), _read_time(claims.get("exp"))
    if not isinstance(person, str) or not 0 < len(person) <= _PERSON_MAX_CHARS:
        return f"`{issuer.person_claim}` names nobody"
    # An address that anybody could have typed there.
    if issuer.person_claim == "email" and claims.get("email_verified") is not True:
        return "the address is not verified there"
    if expires_at is None or now_s >= expires_at + SKEW_S:
        return "it has expired"
    started = [_read_time(claims[name]) for name in ("iat", "nbf") if name in claims]
    if not all(at is not None and at <= now_s + SKEW_S for at in started):
        return "it is not valid yet"
    name = canonicalize([issuer.issuer, str(claims.get("jti", "")), person, expires_at])
    return Vouched(person, hashlib.sha256(name).digest(), expires_at)


_PERSON_MAX_CHARS: Final = 128


def _names(audience: object, expected: str) -> bool:
    return audience == expected or (isinstance(audience, list) and expected in audience)


def _read_time(value: object) -> int | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _TIME_MAX:
        return None
    return int(value)


_TIME_MAX: Final = 2**53
