"""Access tokens for upstreams: client credentials, and one for each person (RFC 6749, 8693, 7523).

The gateway is a client like any other here. It proves itself with its own secret, and says with a
short-lived assertion of its own for whom it asks. The token that an agent sent is never part of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import orjson
from msgspec import Struct

from connectors.auth_binding import UpstreamAuth
from connectors.credential_http import CredentialProblem, CredentialReply, exchange
from connectors.http_pool import HttpPool
from gateway.core.credentials import CredentialAsk
from gateway.core.ports import Ids, Signer

ASSERTION_S: Final = 60
"""How long an assertion is good for, in seconds: one exchange."""

UNSAID_LIFE_S: Final = 60
"""The life of a token whose issuer names none (`expires_in` is only recommended)."""

_NS: Final = 1_000_000_000
_MARGIN_S: Final = 60
_CLOCKS_S: Final = 5
_OK: Final = 200
_SERVER_ERROR: Final = 500
_TOKEN_MAX_CHARS: Final = 16_384
_CODE: Final = re.compile(r"[a-z_]{1,40}")
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_TOKEN: Final = re.compile(r"[!-~]+")
"""`1*VSCHAR` of RFC 6749 §A.12, without blanks: it goes into a header."""

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name

Secret = Callable[[str, int], Awaitable[str]]


class AccessToken(Struct, frozen=True):
    """A bearer token, and from when on a newer one is asked for and it is not sent any more."""

    value: str
    refresh_ns: int
    expires_ns: int

    def __repr__(self) -> str:
        return "AccessToken()"


class Asserter:
    """Says for whom the gateway asks: a JWT of the gateway's own (RFC 7523 §3)."""

    def __init__(self, *, issuer: str, signer: Signer, ids: Ids) -> None:
        self._issuer = issuer
        self._signer = signer
        self._ids = ids

    async def assert_subject(self, auth: UpstreamAuth, ask: CredentialAsk, now_ns: int) -> str:
        """Return the assertion for the subject of a call. Raises `CredentialProblem` `no_subject`.

        INVARIANT: a call for nobody gets no token. There is no shared one to fall back to.
        """
        subject = ask.person if auth.subject == "person" else ask.agent
        if not subject:
            who = "person" if auth.subject == "person" else "agent"
            why = f"its credentials are each for one {who}, and the call is for none"
            raise CredentialProblem("no_subject", why)
        now_s = now_ns // _NS
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": auth.audience or auth.token_url,
            "iat": now_s,
            "nbf": now_s - _CLOCKS_S,
            "exp": now_s + ASSERTION_S,
            "jti": self._ids.new(),
        }
        if auth.subject == "person":
            claims["act"] = {"sub": ask.agent}  # RFC 8693 §4.1: who acts for the person
        header = {"alg": self._signer.alg, "typ": "JWT", "kid": self._signer.kid}
        signed = b".".join(_encode(orjson.dumps(part)) for part in (header, claims))
        return (signed + b"." + _encode(await self._signer.sign(signed))).decode()


class TokenFetcher:
    """Asks token endpoints. `secret` returns what a reference leads to."""

    def __init__(self, pool: HttpPool, *, secret: Secret, asserter: Asserter | None = None) -> None:
        self._pool = pool
        self._secret = secret
        self._asserter = asserter

    async def fetch(self, auth: UpstreamAuth, ask: CredentialAsk, now_ns: int) -> AccessToken:
        """Return a token for this binding and subject. Raises `CredentialProblem`."""
        if auth.per is None or ask.purpose == "list":
            form = {"grant_type": "client_credentials"}
        else:
            form = await self._build_exchange(auth, ask, now_ns)
        form |= {name: getattr(auth, name) for name in ("scope", "resource") if getattr(auth, name)}
        secret = await self._secret(auth.client_secret_from, now_ns)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if auth.client_auth == "basic":
            headers["Authorization"] = build_client_basic(auth.client_id, secret)
        else:
            form |= {"client_id": auth.client_id, "client_secret": secret}
        answer = await exchange(
            self._pool,
            "POST",
            auth.token_url,
            who="the token endpoint",
            headers=headers,
            body=urlencode(form).encode(),
        )
        return read_token(answer, now_ns)

    async def _build_exchange(
        self, auth: UpstreamAuth, ask: CredentialAsk, now_ns: int
    ) -> dict[str, str]:
        if self._asserter is None:
            raise CredentialProblem("internal", "the gateway has no key to sign assertions with")
        assertion = await self._asserter.assert_subject(auth, ask, now_ns)
        if auth.grant == "jwt_bearer":
            return {"grant_type": _JWT_BEARER, "assertion": assertion}
        form = {
            "grant_type": _EXCHANGE,
            "subject_token": assertion,
            "subject_token_type": _JWT,
            "requested_token_type": _ACCESS_TOKEN,
        }
        return form | ({"audience": auth.audience} if auth.audience else {})


def build_client_basic(client_id: str, secret: str) -> str:
    """Return `Authorization` of a client, each half form-encoded first (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def read_token(answer: CredentialReply, now_ns: int) -> AccessToken:
    """Return the token in a token response (RFC 6749 §5.1). Raises `CredentialProblem`.

    `now_ns` is from before the request: the token is let go of early rather than late.
    """
    if answer.status >= _SERVER_ERROR:
        why = f"the token endpoint answered with HTTP {answer.status}"
        raise CredentialProblem("unreachable", why)
    found = answer.object("the token endpoint")
    if answer.status != _OK:
        raise CredentialProblem("refused", f"the token endpoint says {_error_code(found)}")
    value, life_s = found.get("access_token"), found.get("expires_in", UNSAID_LIFE_S)
    if str(found.get("token_type", "")).lower() != "bearer":
        raise CredentialProblem("malformed", "the token endpoint gave no bearer token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value) or len(value) > _TOKEN_MAX_CHARS:
        raise CredentialProblem("malformed", "the token endpoint gave a token that is none")
    if isinstance(life_s, str) and _DIGITS.fullmatch(life_s):  # no number, yet widely written so
        life_s = int(life_s)
    if isinstance(life_s, bool) or not isinstance(life_s, int | float) or not 0 < life_s < 1 << 31:
        raise CredentialProblem("malformed", "the token endpoint gave a token without a life")
    expires_s = max(life_s - _CLOCKS_S, life_s * 0.5)
    refresh_s = max(life_s - _MARGIN_S, life_s * 0.5)
    return AccessToken(
        value, now_ns + int(min(refresh_s, expires_s) * _NS), now_ns + int(expires_s * _NS)
    )


def _error_code(found: Mapping[str, Any]) -> str:
    """Return the error code; a description could repeat what was sent."""
    code = found.get("error")
    return f"`{code}`" if isinstance(code, str) and _CODE.fullmatch(code) else "no"


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
