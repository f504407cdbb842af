"""Tokens for upstreams: the gateway as an OAuth client, at an authorization server that checks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from connectors.auth_binding import UpstreamAuth
from connectors.credentials import CredentialMaker
from connectors.http_pool import HttpPool
from connectors.oauth_upstream import Asserter, TokenFetcher
from connectors.secret_sources import SecretSources
from gateway.adapters.keys.token_keys import LocalSigner, generate_token_key
from gateway.adapters.system import SystemIds
from gateway.brokering import CachingBroker
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from tests.integration.credentials.offices import Office, Reply, Request, reply_json

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09")]

S = 1_000_000_000
NOW = 1_800_000_000 * S
SECRET = "client secret/+&=%0"
GATEWAY = "https://gateway.example"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class AuthorizationServer:
    """Issues numbered tokens to the client `gw` (RFC 6749 §4.4, RFC 8693, RFC 7523).

    An assertion has to be the gateway's, of ES256, for this server, alive, and seen once.
    """

    def __init__(self, key: ECKey) -> None:
        self.key = key
        self.issued: list[str] = []
        self.subjects: list[dict[str, Any]] = []
        self.life_s = 300
        self.override: Reply | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._seen: set[str] = set()

    def __call__(self, request: Request) -> Reply:
        assert self.gate.wait(5)
        if self.override is not None:
            return self.override
        form = request.form
        if not self._knows(request):
            return reply_json({"error": "invalid_client", "error_description": SECRET}, 401)
        match form["grant_type"]:
            case "client_credentials":
                subject = "gw"
            case "urn:ietf:params:oauth:grant-type:token-exchange":
                assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
                subject = self._believe(form["subject_token"])
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                subject = self._believe(form["assertion"])
            case _:
                return reply_json({"error": "unsupported_grant_type"}, 400)
        token = f"upstream-token-{len(self.issued)}-{subject}"
        self.issued.append(token)
        body = {"access_token": token, "token_type": "Bearer", "expires_in": self.life_s}
        if form["grant_type"] == EXCHANGE:
            body["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        return reply_json(body)

    def _knows(self, request: Request) -> bool:
        if "client_secret" in request.form:
            return (request.form["client_id"], request.form["client_secret"]) == ("gw", SECRET)
        return request.basic == ("gw", "client+secret%2F%2B%26%3D%250")

    def _believe(self, assertion: str) -> str:
        found = jwt.decode(assertion, self.key, algorithms=["ES256"])
        claims = found.claims
        assert found.header["typ"] == "JWT"
        assert (claims["iss"], claims["aud"]) == (GATEWAY, "crm-idp")
        assert claims["exp"] - claims["iat"] == 60
        assert claims["iat"] == NOW // S
        assert claims["jti"] not in self._seen
        self._seen.add(claims["jti"])
        self.subjects.append(claims)
        return str(claims["sub"])


@pytest.fixture
def key() -> ECKey:
    return generate_token_key()


@pytest.fixture
def server(key: ECKey) -> AuthorizationServer:
    return AuthorizationServer(key)


@pytest.fixture
def office(server: AuthorizationServer) -> Iterator[Office]:
    with Office(server) as office:
        yield office


@pytest.fixture
async def brokers(office: Office, key: ECKey) -> AsyncIterator[CachingBroker]:
    oauth = {"token_url": f"{office.url}/token", "client_id": "gw", "client_secret_from": "env:S"}
    person = {"audience": "crm-idp", **oauth}
    bindings = {
        "crm": UpstreamAuth(
            kind="oauth_client_credentials",
            scope="crm:read crm:write",
            resource="https://crm.example/",
            **oauth,  # type: ignore[arg-type]
        ),
        "post": UpstreamAuth(kind="oauth_client_credentials", client_auth="post", **oauth),  # type: ignore[arg-type]
        "mail": UpstreamAuth(kind="token_exchange", scope="mail", **person),  # type: ignore[arg-type]
        "files": UpstreamAuth(kind="token_exchange", grant="jwt_bearer", **person),  # type: ignore[arg-type]
        "robots": UpstreamAuth(
            kind="token_exchange",
            subject="agent",
            listing="client",
            **person,  # type: ignore[arg-type]
        ),
        "wrong": UpstreamAuth(
            kind="oauth_client_credentials",
            **{**oauth, "client_secret_from": "env:WRONG"},  # type: ignore[arg-type]
        ),
    }
    sources = SecretSources({"S": SECRET, "WRONG": "another-secret"})

    async def secret(reference: str, now_ns: int) -> str:
        return (await sources.read(reference, now_ns)).value

    async with HttpPool() as pool:
        asserter = Asserter(issuer=GATEWAY, signer=LocalSigner(key), ids=SystemIds())
        tokens = TokenFetcher(pool, secret=secret, asserter=asserter)
        maker = CredentialMaker(bindings, sources=sources, tokens=tokens)
        broker = CachingBroker(maker.fetch, forget=maker.forget)
        yield broker
        await broker.close()


CRM = CredentialAsk(server="crm")


def ask(server: str, person: str | None = None, agent: str = "helper") -> CredentialAsk:
    return CredentialAsk(server=server, agent=agent, person=person)


def token_of(found: UpstreamCredential | CredentialFailure) -> str:
    assert isinstance(found, UpstreamCredential), found
    ((name, value),) = found.headers
    assert name == "Authorization"
    assert found.secrets == (value.removeprefix("Bearer "),)
    return value.removeprefix("Bearer ")


async def test_a_client_gets_a_token_for_its_resource_and_keeps_it(
    brokers: CachingBroker, office: Office
) -> None:
    for now_ns in (NOW, NOW + 200 * S):
        assert token_of(await brokers.obtain(CRM, now_ns)) == "upstream-token-0-gw"
    (asked,) = office.seen
    assert asked.form == {
        "grant_type": "client_credentials",
        "scope": "crm:read crm:write",
        "resource": "https://crm.example/",
    }
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_a_client_may_send_its_secret_in_the_body(brokers: CachingBroker) -> None:
    assert token_of(await brokers.obtain(CredentialAsk(server="post"), NOW))


async def test_a_token_is_renewed_before_it_expires_and_nobody_waits_for_it(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    await brokers.obtain(CRM, NOW)
    server.gate.clear()
    old = [brokers.held(CRM, NOW + 245 * S) for _ in range(20)]
    assert {token_of(found) for found in old if found} == {"upstream-token-0-gw"}
    server.gate.set()
    for _ in range(500):
        await asyncio.sleep(0.002)
        found = brokers.held(CRM, NOW + 245 * S)
        if found is not None and token_of(found) == "upstream-token-1-gw":
            break
    else:
        pytest.fail("it was never renewed")
    assert len(server.issued) == 2


async def test_an_expired_token_is_not_held_whatever_happens(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    await brokers.obtain(CRM, NOW)
    server.override = Reply(500, b"")
    assert brokers.held(CRM, NOW + 296 * S) is None
    assert isinstance(await brokers.obtain(CRM, NOW + 296 * S), CredentialFailure)


async def test_a_hundred_calls_at_once_ask_once(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    found = await asyncio.gather(*(brokers.obtain(CRM, NOW) for _ in range(100)))
    assert {token_of(one) for one in found} == {"upstream-token-0-gw"}
    assert len(server.issued) == 1


async def test_a_call_that_is_cancelled_takes_nobody_elses_token_away(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    server.gate.clear()
    first = asyncio.create_task(brokers.obtain(CRM, NOW))
    second = asyncio.create_task(brokers.obtain(CRM, NOW))
    await asyncio.sleep(0)
    first.cancel()
    server.gate.set()
    assert token_of(await second) == "upstream-token-0-gw"


async def test_a_failure_stands_for_a_second_and_is_then_tried_again(
    brokers: CachingBroker, server: AuthorizationServer, office: Office
) -> None:
    server.override = Reply(503, b"")
    for _ in range(5):
        found = await brokers.obtain(CRM, NOW)
        assert isinstance(found, CredentialFailure)
        assert found.reason == "unreachable"
    assert len(office.seen) == 1
    server.override = None
    assert token_of(await brokers.obtain(CRM, NOW + S))


async def test_each_person_has_a_token_of_their_own(
    brokers: CachingBroker, server: AuthorizationServer, office: Office
) -> None:
    people = ("ann", "bob", "ann", "bob")
    found = [token_of(await brokers.obtain(ask("mail", name), NOW)) for name in people]
    assert found == ["upstream-token-0-ann", "upstream-token-1-bob"] * 2
    assert [claims["act"] for claims in server.subjects] == [{"sub": "helper"}] * 2
    form = office.seen[0].form
    assert (form["grant_type"], form["audience"], form["scope"]) == (EXCHANGE, "crm-idp", "mail")


async def test_another_agent_does_not_get_the_token_of_a_person_that_one_acts_for(
    brokers: CachingBroker,
) -> None:
    first = token_of(await brokers.obtain(ask("mail", "ann", "helper"), NOW))
    assert token_of(await brokers.obtain(ask("mail", "ann", "other"), NOW)) != first


@pytest.mark.parametrize("server_id", ["mail", "files"])
async def test_a_call_for_nobody_gets_no_token_and_nothing_is_asked(
    brokers: CachingBroker, office: Office, server_id: str
) -> None:
    await brokers.obtain(ask(server_id, "ann"), NOW)
    before = len(office.seen)
    for person in (None, ""):
        found = await brokers.obtain(ask(server_id, person), NOW)
        assert isinstance(found, CredentialFailure)
        assert found.reason == "no_subject"
    assert len(office.seen) == before


async def test_an_assertion_may_be_the_grant_itself(brokers: CachingBroker, office: Office) -> None:
    assert token_of(await brokers.obtain(ask("files", "ann"), NOW)) == "upstream-token-0-ann"
    assert office.seen[0].form["grant_type"] == JWT_BEARER


async def test_an_agent_may_have_a_token_of_its_own(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    assert token_of(await brokers.obtain(ask("robots"), NOW)) == "upstream-token-0-helper"
    assert "act" not in server.subjects[0]
    found = await brokers.obtain(ask("robots", agent=""), NOW)
    assert isinstance(found, CredentialFailure)


async def test_tools_are_listed_for_nobody_or_as_the_client(brokers: CachingBroker) -> None:
    found = await brokers.obtain(CredentialAsk(server="mail", purpose="list"), NOW)
    assert isinstance(found, UpstreamCredential)
    assert (found.headers, found.secrets) == ((), ())
    found = await brokers.obtain(CredentialAsk(server="robots", purpose="list"), NOW)
    assert token_of(found) == "upstream-token-0-gw"


async def test_a_refusal_is_told_by_its_code_and_none_of_its_words(
    brokers: CachingBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await brokers.obtain(CredentialAsk(server="wrong"), NOW)
    assert isinstance(found, CredentialFailure)
    assert (found.reason, found.detail) == ("refused", "the token endpoint says `invalid_client`")
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "body",
    [
        {"access_token": "t"},
        {"access_token": "t", "token_type": "DPoP"},
        {"access_token": "", "token_type": "bearer"},
        {"access_token": "a b", "token_type": "bearer"},
        {"access_token": "a\r\nX: b", "token_type": "bearer"},
        {"access_token": "x" * 20_000, "token_type": "bearer"},
        {"access_token": "t", "token_type": "bearer", "expires_in": "soon"},
        {"access_token": "t", "token_type": "bearer", "expires_in": "-5"},
        {"access_token": "t", "token_type": "bearer", "expires_in": "9" * 5000},
        {"access_token": "t", "token_type": "bearer", "expires_in": 0},
        {"access_token": "t", "token_type": "bearer", "expires_in": True},
        [],
    ],
)
async def test_a_token_that_is_none_is_refused(
    brokers: CachingBroker, server: AuthorizationServer, body: object
) -> None:
    server.override = reply_json(body)
    found = await brokers.obtain(CRM, NOW)
    assert isinstance(found, CredentialFailure)
    assert found.reason == "malformed"


async def test_a_token_whose_life_is_not_said_is_kept_for_a_minute(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    server.override = reply_json({"access_token": "t", "token_type": "bearer"})
    found = await brokers.obtain(CRM, NOW)
    assert isinstance(found, UpstreamCredential)
    assert found.expires_ns == NOW + 55 * S


async def test_a_life_in_digits_that_are_text_is_one(
    brokers: CachingBroker, server: AuthorizationServer
) -> None:
    """Microsoft's endpoints of version 1.0 write it so."""
    server.override = reply_json(
        {"access_token": "t", "token_type": "Bearer", "expires_in": "3599"}
    )
    found = await brokers.obtain(CRM, NOW)
    assert isinstance(found, UpstreamCredential)
    assert found.expires_ns == NOW + 3594 * S


async def test_a_secret_is_not_sent_on_to_where_an_endpoint_points(
    brokers: CachingBroker, server: AuthorizationServer, office: Office
) -> None:
    server.override = Reply(307, b"")
    found = await brokers.obtain(CRM, NOW)
    assert isinstance(found, CredentialFailure)
    assert found.reason == "malformed"
    assert len(office.seen) == 1


async def test_an_endpoint_that_is_away_is_told(brokers: CachingBroker, office: Office) -> None:
    office.stop()
    found = await brokers.obtain(CRM, NOW)
    assert isinstance(found, CredentialFailure)
    assert found.reason == "unreachable"


async def test_without_a_key_nobody_is_asserted() -> None:
    auth = UpstreamAuth(kind="token_exchange", token_url="http://127.0.0.1:1/")
    async with HttpPool() as pool:

        async def secret(_reference: str, _now_ns: int) -> str:
            return SECRET

        sources = SecretSources({})
        tokens = TokenFetcher(pool, secret=secret)
        maker = CredentialMaker({"mail": auth}, sources=sources, tokens=tokens)
        found = await maker.fetch(ask("mail", "ann"), NOW)
    assert isinstance(found, CredentialFailure)
    assert found.reason == "internal"
