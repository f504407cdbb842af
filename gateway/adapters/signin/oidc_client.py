"""Sign-in at an OpenID Connect provider: code, PKCE, state, nonce (`core.accounts`).

What goes over the wire is built and judged by Authlib and joserfc; the requests are our own bounded
ones. Nothing is fetched before the first sign-in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
import orjson
import structlog
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec import Struct

from gateway.adapters.bounded_http import Reply, exchange
from gateway.core.errors import ConfigurationError, CountersignError, CredentialError
from gateway.core.people.accounts import Asked, Identity
from gateway.core.ports import Clock

ALGORITHMS: Final = ["ES256", "RS256"]
SKEW_S: Final = 60
KEPT_S: Final = 3_600
REFETCH_S: Final = 60
DOCUMENT_MAX_BYTES: Final = 262_144
TIMEOUT_S: Final = 10.0
_DISCOVERY: Final = "/.well-known/openid-configuration"
_log: Final = structlog.get_logger("gateway.signin")
_NEEDED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class OidcSettings(Struct, frozen=True, kw_only=True):
    """One provider. `secret` is read for each request; None for a public client.

    `person_claim` is the claim whose value is the person's id here. `strong_acr` are the provider's
    words for what counts as `strong` here.
    """

    id: str
    label: str
    issuer: str
    client_id: str
    secret: Callable[[], str] | None
    redirect_uri: str
    scopes: tuple[str, ...] = ("openid",)
    person_claim: str = "sub"
    strong_acr: tuple[str, ...] = ()
    provisions: bool = False


class OidcProvider:
    """One identity provider. Its documents are kept for an hour."""

    def __init__(self, settings: OidcSettings, *, http: httpx.AsyncClient, clock: Clock) -> None:
        self._settings: Final = settings
        self._http: Final = http
        self._clock: Final = clock
        self._metadata: dict[str, Any] = {}
        self._metadata_at = -KEPT_S
        self._keys: KeySet | None = None
        self._keys_at = -KEPT_S

    @property
    def label(self) -> str:
        """What people call it."""
        return self._settings.label

    @property
    def provisions(self) -> bool:
        """Whether somebody unknown here is let in, without any role."""
        return self._settings.provisions

    async def begin(self, state: str, asked: Asked) -> str:
        """Return the URL to send the browser to."""
        metadata = await self._discover()
        extra: dict[str, str] = {}
        if asked.acr == "strong" and self._settings.strong_acr:
            extra["acr_values"] = " ".join(self._settings.strong_acr)
        if asked.max_age_s is not None:
            extra["max_age"] = str(asked.max_age_s)
        if asked.acr or asked.max_age_s is not None:
            extra["prompt"] = "login"  # being signed in there already proves nothing new
        url: str = prepare_grant_uri(
            metadata["authorization_endpoint"],
            client_id=self._settings.client_id,
            response_type="code",
            redirect_uri=self._settings.redirect_uri,
            scope=" ".join(self._settings.scopes),
            state=state,
            nonce=asked.nonce,
            code_challenge=create_s256_code_challenge(asked.verifier),
            code_challenge_method="S256",
            **extra,
        )
        return url

    async def finish(self, asked: Asked, answer: dict[str, str]) -> Identity:
        """Return who it was, by the parameters that the browser brought back."""
        metadata = await self._discover()
        # 1. A mix-up: another provider's answer, brought to this one's place (RFC 9207).
        told = answer.get("iss")
        always = metadata.get("authorization_response_iss_parameter_supported") is True
        if told != metadata["issuer"] and (told is not None or always):
            raise _invalid("the answer is another provider's")
        # 2. Somebody who did not sign in there.
        if "error" in answer or not answer.get("code"):
            raise CredentialError("the provider did not sign you in", code="sign_in_refused")
        # 3. A code of somebody else's sign-in: PKCE ties it to ours.
        tokens = await self._redeem(metadata, answer["code"], asked.verifier)
        # 4. Forged, foreign and replayed ID tokens.
        claims = await self._verify(metadata, tokens, asked)
        return self._identify(claims, asked)

    async def _redeem(
        self, metadata: Mapping[str, Any], code: str, verifier: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._settings.secret is None:
            form["client_id"] = self._settings.client_id
        elif "client_secret_basic" in methods:
            headers["authorization"] = _basic(self._settings.client_id, self._read_secret())
        else:
            form |= {"client_id": self._settings.client_id, "client_secret": self._read_secret()}
        body = urlencode(form).encode()
        status, tokens = await self._ask("POST", metadata["token_endpoint"], body, headers)
        if tokens.get("error") == "invalid_client":
            raise self._unavailable("it does not take the gateway's client secret")
        if status != httpx.codes.OK or not isinstance(tokens.get("id_token"), str):
            raise CredentialError("the provider does not honour the code", code="sign_in_refused")
        return tokens

    async def _verify(
        self, metadata: Mapping[str, Any], tokens: Mapping[str, Any], asked: Asked
    ) -> CodeIDToken:
        id_token: str = tokens["id_token"]
        try:
            token = await self._decode(metadata, id_token)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": metadata["issuer"]},
                    "aud": {"essential": True, "value": self._settings.client_id},
                    "nonce": {"essential": True, "value": asked.nonce},
                },
                {
                    "nonce": asked.nonce,
                    "client_id": self._settings.client_id,
                    "access_token": tokens.get("access_token"),
                },
            )
            claims.validate(now=self._now_s(), leeway=SKEW_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _invalid(f"its ID token does not fit ({type(error).__name__})") from None
        return claims

    async def _decode(self, metadata: Mapping[str, Any], id_token: str) -> jwt.Token:
        try:
            return jwt.decode(id_token, await self._key_set(metadata), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            # A key that the provider began to use since. Strangers cannot make us ask often.
            if self._up_s() - self._keys_at < REFETCH_S:
                raise
            self._keys = None
            return jwt.decode(id_token, await self._key_set(metadata), algorithms=ALGORITHMS)

    def _identify(self, claims: CodeIDToken, asked: Asked) -> Identity:
        settings, now_s = self._settings, self._now_s()
        person = claims.get(settings.person_claim)
        if not isinstance(person, str) or not person:
            raise _invalid(f"its ID token has no text `{settings.person_claim}`")
        # 5. An address that anybody could have typed there.
        if settings.person_claim == "email" and claims.get("email_verified") is not True:
            raise _invalid("the address is not verified there")
        # 6. An old sign-in where a fresh one was asked for.
        at = _read_time(claims.get("auth_time"))
        if asked.max_age_s is not None and (
            at is None or now_s - at > asked.max_age_s + SKEW_S or at > now_s + SKEW_S
        ):
            raise _invalid("it does not say that you signed in just now")
        acr, amr = claims.get("acr"), claims.get("amr")
        words = amr if isinstance(amr, list) else []
        return Identity(
            person=person,
            # Without its word for when, it was long ago: no step-up is met by that.
            auth_time=0 if at is None else min(at, now_s),
            acr="strong" if acr in settings.strong_acr else "session",
            amr=tuple(word for word in words if isinstance(word, str))[:8],
        )

    # Documents

    async def _discover(self) -> dict[str, Any]:
        if self._up_s() - self._metadata_at < KEPT_S:
            return self._metadata
        issuer = self._settings.issuer
        status, found = await self._ask("GET", issuer.rstrip("/") + _DISCOVERY)
        fits = found.get("issuer") == issuer and all(
            isinstance(found.get(name), str) and _is_safe(found[name], issuer) for name in _NEEDED
        )
        if status != httpx.codes.OK or not fits:
            raise self._unavailable("its metadata does not fit its issuer")
        self._metadata, self._metadata_at = found, self._up_s()
        return found

    async def _key_set(self, metadata: Mapping[str, Any]) -> KeySet:
        if self._keys is None or self._up_s() - self._keys_at >= KEPT_S:
            status, found = await self._ask("GET", metadata["jwks_uri"])
            try:
                if status != httpx.codes.OK:
                    raise ValueError("no key set")  # noqa: TRY301 - told like one without keys
                self._keys = KeySet.import_key_set({"keys": _usable(found)})
            except (JoseError, ValueError, KeyError, TypeError):
                raise self._unavailable("its keys cannot be read") from None
            self._keys_at = self._up_s()
        return self._keys

    async def _ask(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        reply = await exchange(
            self._http,
            method,
            url,
            content=body,
            headers={"accept": "application/json", **(headers or {})},
            timeout_s=TIMEOUT_S,
            max_bytes=DOCUMENT_MAX_BYTES,
        )
        if not isinstance(reply, Reply):
            raise self._unavailable(f"it gave no answer ({reply.reason})")
        try:
            found = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            found = None
        return reply.status, found if isinstance(found, dict) else {}

    def _read_secret(self) -> str:
        assert self._settings.secret is not None  # noqa: S101 - a public client is told apart before
        try:
            return self._settings.secret()
        except ConfigurationError as error:  # where it is concerns no stranger
            _log.error("identity_provider_secret", provider=self._settings.id, problem=str(error))
            raise self._unavailable("its client secret cannot be read") from None

    def _unavailable(self, why: str) -> CountersignError:
        """Tell whoever runs the gateway, too: those who cannot sign in may not know whom to ask."""
        _log.warning("identity_provider_unavailable", provider=self._settings.id, problem=why)
        return CountersignError(
            f"the identity provider cannot be used: {why}; try again later",
            code="provider_unavailable",
            retryable=True,
        )

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000

    def _up_s(self) -> int:
        """By what documents age: a clock that is set back keeps no withdrawn key alive."""
        return self._clock.monotonic_ns() // 1_000_000_000


def _basic(client_id: str, secret: str) -> str:
    """Return the header of RFC 6749 §2.3.1: both parts form-encoded first."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _usable(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the keys that can have signed: of the pinned kinds, and not for encryption."""
    keys = [key for key in found["keys"] if isinstance(key, dict)]
    kinds = [("RSA", None), ("EC", "P-256")]
    return [
        key
        for key in keys
        if key.get("use", "sig") == "sig" and (key.get("kty"), key.get("crv")) in kinds
    ]


def _is_safe(url: str, issuer: str) -> bool:
    """Whether an endpoint is as safe to talk to as its issuer: no step down to cleartext."""
    return urlsplit(url).scheme in {"https", urlsplit(issuer).scheme}


def _read_time(value: object) -> int | None:
    """Return seconds since the epoch; None for what is no time, such as the `Infinity` of JSON."""
    if not isinstance(value, int | float) or not 0 <= value < _TIME_MAX:
        return None
    return int(value)


_TIME_MAX: Final = 2**53


def _invalid(why: str) -> CredentialError:
    return CredentialError(
        f"the provider's answer was refused: {why}", code="provider_answer_invalid"
    )
