"""With what identity providers may sign, and under which names."""

from __future__ import annotations

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from fastapi import FastAPI
from structlog.testing import capture_logs

from gateway.adapters.keys.issuer_tokens import IssuerTokens
from gateway.core.errors import CountersignError, CredentialError
from gateway.core.oauth.federation import TrustedIssuer
from tests.fixed import FixedClock
from tests.unit.tokens.proofs import Holder

pytestmark = pytest.mark.req("TOK-02")

ISSUER = "https://idp.example"
EDWARDS = Holder(Ed25519PrivateKey.generate())
P256 = Holder()
RSA = Holder(generate_private_key(65_537, 2_048))


async def read(holder: Holder, alg: str) -> str:
    """Have a token read that `holder` signed under the name `alg`; return whose it is."""
    provider = FastAPI()
    provider.get("/jwks")(lambda: {"keys": [{**holder.public(), "kid": "k"}]})
    issuer = TrustedIssuer(
        issuer=ISSUER, launcher="flow", audience="gateway", jwks_uri=f"{ISSUER}/jwks"
    )
    token = holder.sign({"alg": alg, "kid": "k"}, orjson.dumps({"iss": ISSUER, "sub": "olga"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(provider)) as http:
        signed = await IssuerTokens([issuer], http=http, clock=FixedClock()).read(token.decode())
    return str(signed.claims["sub"])


async def test_an_issuer_that_is_away_is_told_to_whoever_runs_the_gateway() -> None:
    issuer = TrustedIssuer(issuer=ISSUER, launcher="flow", audience="gateway")
    token = P256.sign({"alg": "ES256", "kid": "k"}, orjson.dumps({"iss": ISSUER})).decode()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(FastAPI())) as http:
        tokens = IssuerTokens([issuer], http=http, clock=FixedClock())
        with capture_logs() as logs, pytest.raises(CountersignError):
            await tokens.read(token)
    assert [(line["event"], line["provider"]) for line in logs] == [
        ("identity_provider_unavailable", ISSUER)
    ]


async def test_a_withdrawn_key_is_forgotten_in_an_hour_whatever_the_clock_is_set_to() -> None:
    provider, clock = FastAPI(), FixedClock()
    published = [{**P256.public(), "kid": "k"}]
    provider.get("/jwks")(lambda: {"keys": published})
    issuer = TrustedIssuer(
        issuer=ISSUER, launcher="flow", audience="gateway", jwks_uri=f"{ISSUER}/jwks"
    )
    token = P256.sign({"alg": "ES256", "kid": "k"}, orjson.dumps({"iss": ISSUER})).decode()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(provider)) as http:
        tokens = IssuerTokens([issuer], http=http, clock=clock)
        await tokens.read(token)
        published.clear()
        clock.set_by(-86_400)
        await tokens.read(token)
        clock.now_s += 3_601
        with pytest.raises(CredentialError):
            await tokens.read(token)


@pytest.mark.parametrize(
    ("holder", "alg"),
    [(P256, "ES256"), (RSA, "RS256"), (EDWARDS, "Ed25519"), (EDWARDS, "EdDSA")],
    ids=["ES256", "RS256", "Ed25519", "EdDSA"],
)
async def test_a_provider_may_sign_so(holder: Holder, alg: str) -> None:
    assert await read(holder, alg) == "olga"


@pytest.mark.parametrize(
    ("holder", "alg"),
    [(P256, "EdDSA"), (EDWARDS, "ES256"), (RSA, "ES256"), (RSA, "PS256"), (RSA, "none")],
)
async def test_a_provider_may_not_sign_so(holder: Holder, alg: str) -> None:
    with pytest.raises(CredentialError):
        await read(holder, alg)
