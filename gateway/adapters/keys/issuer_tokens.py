"""Tokens of trusted issuers: signatures checked under keys that the issuer publishes (RFC 7517)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
import orjson
import structlog
from msgspec import Struct

from gateway.adapters.bounded_http import Reply, exchange
from gateway.adapters.keys.compact_jws import (
    UNREADABLE,
    PublicKey,
    decode_base64url,
    read_public_key,
    split_compact,
)
from gateway.core.errors import CountersignError, CredentialError
from gateway.core.oauth.federation import ALGORITHMS, TrustedIssuer
from gateway.core.ports import Clock

TOKEN_MAX_BYTES: Final = 16_384
DOCUMENT_MAX_BYTES: Final = 262_144
KEPT_S: Final = 3_600
REFETCH_S: Final = 60
"""How soon an unknown key makes us ask again: strangers cannot make us ask often."""

_log: Final = structlog.get_logger("gateway.federation")
_DISCOVERY: Final = "/.well-known/openid-configuration"


class SignedClaims(Struct, frozen=True):
    """What a trusted issuer has signed. Times and audiences are not looked at yet."""

    issuer: TrustedIssuer
    typ: str
    claims: Mapping[str, Any]


class _Header(Struct, frozen=True):
    alg: str
    kid: str
    typ: str = ""
    crit: Any = None


class _Keys(Struct):
    """`fetched_at` is monotonic: a clock that is set back keeps no withdrawn key alive."""

    by_id: dict[str, PublicKey]
    fetched_at: int


class IssuerTokens:
    """Believes what the issuers of the configuration have signed, and nobody else."""

    def __init__(
        self, issuers: Iterable[TrustedIssuer], *, http: httpx.AsyncClient, clock: Clock
    ) -> None:
        self._issuers = {one.issuer: one for one in issuers}
        self._http = http
        self._clock = clock
        self._kept: dict[str, _Keys] = {}

    async def read(self, token: str) -> SignedClaims:
        """Return what a token says.

        Raises `CredentialError` for one that no trusted issuer signed under a pinned algorithm, and
        `CountersignError` `provider_unavailable` where its keys cannot be had.
        """
        parts = split_compact(token.encode(), TOKEN_MAX_BYTES)
        if parts is None:
            raise CredentialError("it is no signed token")
        # 1. Whose could it be? Nothing is believed yet: this only chooses whose keys to try.
        try:
            header = msgspec.json.decode(decode_base64url(parts.header) or b"", type=_Header)
            claims = msgspec.json.decode(parts.payload, type=dict[str, Any])
        except UNREADABLE:
            raise CredentialError("it is no token with a key id") from None
        issuer = self._issuers.get(str(claims.get("iss")))
        # 2. `alg: none`, HS256 with a public key as the secret, extensions that must be understood.
        if issuer is None or header.alg not in ALGORITHMS or header.crit is not None:
            raise CredentialError("no trusted issuer signs like this")
        # 3. Forged and altered ones.
        key = await self._key(issuer, header.kid)
        if key is None or header.alg not in key.algorithms:
            raise CredentialError("no key of the issuer signed it")
        if not key.check(parts.signature, parts.signed):
            raise CredentialError("its signature does not match")
        return SignedClaims(issuer, header.typ, claims)

    async def _key(self, issuer: TrustedIssuer, key_id: str) -> PublicKey | None:
        now_s = self._clock.monotonic_ns() // 1_000_000_000
        kept = self._kept.get(issuer.issuer)
        if kept is not None:
            age_s = now_s - kept.fetched_at
            if (key_id in kept.by_id and age_s < KEPT_S) or age_s < REFETCH_S:
                return kept.by_id.get(key_id)
        by_id = await self._fetch(issuer)
        self._kept[issuer.issuer] = _Keys(by_id, now_s)
        return by_id.get(key_id)

    async def _fetch(self, issuer: TrustedIssuer) -> dict[str, PublicKey]:
        uri = issuer.jwks_uri or await self._discover(issuer)
        found = await self._get(issuer, uri)
        keys = found.get("keys")
        named: dict[str, PublicKey] = {}
        for jwk in keys if isinstance(keys, list) else ():
            if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
                continue
            key, key_id = read_public_key(jwk), jwk.get("kid")
            if key is not None and isinstance(key_id, str):
                named[key_id] = key
        return named

    async def _discover(self, issuer: TrustedIssuer) -> str:
        found = await self._get(issuer, issuer.issuer.rstrip("/") + _DISCOVERY)
        uri = found.get("jwks_uri")
        # Another issuer's document, or a step down to cleartext.
        if found.get("issuer") != issuer.issuer or not isinstance(uri, str):
            raise _unavailable(issuer, "its metadata does not fit its issuer")
        if urlsplit(uri).scheme not in {"https", urlsplit(issuer.issuer).scheme}:
            raise _unavailable(issuer, "its keys are not offered safely")
        return uri

    async def _get(self, issuer: TrustedIssuer, url: str) -> dict[str, Any]:
        reply = await exchange(
            self._http,
            "GET",
            url,
            headers={"accept": "application/json"},
            max_bytes=DOCUMENT_MAX_BYTES,
        )
        if not isinstance(reply, Reply) or reply.status != httpx.codes.OK:
            raise _unavailable(issuer, "it gave no answer")
        try:
            found = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise _unavailable(issuer, "its answer cannot be read")
        return found


def _unavailable(issuer: TrustedIssuer, why: str) -> CountersignError:
    """Tell whoever runs the gateway, too: agents are told no more than to try again later."""
    _log.warning("identity_provider_unavailable", provider=issuer.issuer, problem=why)
    return CountersignError(
        f"the identity provider cannot be used: {why}; try again later",
        code="provider_unavailable",
        retryable=True,
    )
