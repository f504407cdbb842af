"""A real authorization server (npm `oidc-provider`) gives the gateway its tokens."""

from __future__ import annotations

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from connectors.auth_binding import UpstreamAuth
from connectors.credential_use import Credentials
from connectors.credentials import CredentialMaker
from connectors.http_pool import HttpPool
from connectors.mcp_http import McpHttpTransport
from connectors.oauth_upstream import TokenFetcher
from connectors.secret_sources import SecretSources
from gateway.adapters.system import SystemClock
from gateway.brokering import CachingBroker
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from gateway.core.limits import Limits
from tests.integration.credentials.offices import Office, Request, Upstream
from tests.integration.idp.provider import Idp
from tests.unit.connectors.calls import build_intent

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09")]

RESOURCE = "https://crm.example/"


def build_broker(idp: Idp, pool: HttpPool, secret: str) -> CachingBroker:
    auth = UpstreamAuth(
        kind="oauth_client_credentials",
        token_url=idp.token_endpoint,
        client_id=idp.robot.id,
        client_secret_from="env:S",
        scope="crm:read crm:write",
        resource=RESOURCE,
    )
    sources = SecretSources({"S": secret})

    async def read(reference: str, now_ns: int) -> str:
        return (await sources.read(reference, now_ns)).value

    tokens = TokenFetcher(pool, secret=read)
    maker = CredentialMaker({"srv": auth}, sources=sources, tokens=tokens)
    return CachingBroker(maker.fetch, forget=maker.forget)


async def test_its_token_is_for_the_resource_and_reaches_the_upstream(idp: Idp) -> None:
    keys = KeySet.import_key_set(idp.jwks())  # type: ignore[arg-type]  # typed too narrowly
    seen: list[dict[str, object]] = []

    def accepts(request: Request) -> bool:
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        seen.append(jwt.decode(shown, keys, algorithms=["ES256"]).claims)
        return True

    with Office(Upstream(accepts)) as office:
        async with HttpPool() as pool:
            broker = build_broker(idp, pool, idp.robot.secret)
            transport = McpHttpTransport(
                "srv",
                office.url,
                limits=Limits(),
                pool=pool,
                credentials=Credentials(broker, SystemClock()),
            )
            for _ in range(3):
                assert not (await transport.call(build_intent("echo"), None)).is_error
            await transport.close()
            await broker.close()
    assert {(claims["aud"], claims["sub"], claims["scope"]) for claims in seen} == {
        (RESOURCE, "robot", "crm:read crm:write")
    }
    assert len({claims["jti"] for claims in seen}) == 1


async def test_it_says_how_long_its_token_lives(idp: Idp) -> None:
    now_ns = SystemClock().now_ns()
    async with HttpPool() as pool:
        broker = build_broker(idp, pool, idp.robot.secret)
        found = await broker.obtain(CredentialAsk(server="srv"), now_ns)
        await broker.close()
    assert isinstance(found, UpstreamCredential)
    assert (found.expires_ns - now_ns) // 1_000_000_000 == 295
    assert (found.refresh_ns - now_ns) // 1_000_000_000 == 240


async def test_it_refuses_a_wrong_secret(idp: Idp) -> None:
    async with HttpPool() as pool:
        broker = build_broker(idp, pool, "wrong")
        found = await broker.obtain(CredentialAsk(server="srv"), 0)
        await broker.close()
    assert isinstance(found, CredentialFailure)
    assert (found.reason, found.detail) == ("refused", "the token endpoint says `invalid_client`")
