"""What every credential broker promises, be it in memory, in this process or behind a socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec import Struct

from connectors.auth_binding import UpstreamAuth
from connectors.credentials import CredentialMaker
from connectors.http_pool import HttpPool
from connectors.oauth_upstream import TokenFetcher
from connectors.secret_sources import SecretSources
from gateway.adapters.broker.broker_memory import MemoryBroker
from gateway.adapters.broker.broker_server import BrokerServer
from gateway.adapters.broker.broker_socket import SocketBroker
from gateway.brokering import CachingBroker
from gateway.core.credentials import (
    CredentialAsk,
    CredentialFailure,
    UpstreamCredential,
)
from gateway.core.ports import CredentialBroker
from tests.unit.connectors.calls import HandClock

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09", "TOK-12")]

HEADER = CredentialAsk(server="header")
SECRETS = {"HEADER": "header-secret", "QUERY": "query secret/1", "BASIC": "basic-secret"}
WANTED = {
    "header": UpstreamCredential(
        headers=(("Authorization", "Bearer header-secret"),), secrets=("header-secret",)
    ),
    "query": UpstreamCredential(
        query=(("key", "query%20secret%2F1"),), secrets=("query secret/1", "secret/1")
    ),
    "basic": UpstreamCredential(headers=(("Authorization", "Basic Z3c6YmFzaWMtc2VjcmV0"),)),
}
BINDINGS = {
    "header": UpstreamAuth(scheme="Bearer {secret}", value_from="env:HEADER"),
    "query": UpstreamAuth(kind="query", parameter="key", value_from="env:QUERY"),
    "basic": UpstreamAuth(kind="basic", user="gw", value_from="env:BASIC"),
    "gone": UpstreamAuth(value_from="env:GONE"),
}


class Case(Struct):
    """A broker under test, how to change the secret behind `header`, and how to take it away."""

    broker: CredentialBroker
    change: Callable[[str], None]
    stop: Callable[[], Awaitable[None]]


def memory() -> Case:
    broker = MemoryBroker({CredentialAsk(server=name): one for name, one in WANTED.items()})

    def change(secret: str) -> None:
        broker.has[HEADER] = UpstreamCredential(
            headers=(("Authorization", f"Bearer {secret}"),), secrets=(secret,)
        )

    async def stop() -> None:
        for name in BINDINGS:
            broker.failures[name] = CredentialFailure(reason="unreachable")

    return Case(broker, change, stop)


def local(pool: HttpPool, environ: dict[str, str]) -> CachingBroker:
    sources = SecretSources(environ)

    async def secret(reference: str, now_ns: int) -> str:
        return (await sources.read(reference, now_ns)).value

    maker = CredentialMaker(BINDINGS, sources=sources, tokens=TokenFetcher(pool, secret=secret))
    return CachingBroker(maker.fetch, forget=maker.forget)


@pytest.fixture(params=["memory", "local", "socket"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    if request.param == "memory":
        yield memory()
        return
    environ = dict(SECRETS)
    async with HttpPool() as pool:
        inner = local(pool, environ)

        async def stop() -> None:
            environ.clear()
            await server.close()

        server = BrokerServer(inner, clock=HandClock(), uids={os.getuid()})
        broker: CachingBroker = inner
        if request.param == "socket":
            await server.start(tmp_path / "broker.sock")
            broker = SocketBroker(tmp_path / "broker.sock", uid=os.getuid(), timeout_s=2)
        yield Case(broker, lambda secret: environ.update(HEADER=secret), stop)
        await broker.close()
        await server.close()
        await inner.close()


def must(found: UpstreamCredential | CredentialFailure) -> UpstreamCredential:
    assert isinstance(found, UpstreamCredential), found
    return found


@pytest.mark.parametrize("server", list(WANTED))
async def test_each_kind_is_put_where_its_binding_says(case: Case, server: str) -> None:
    found = must(await case.broker.obtain(CredentialAsk(server=server), 0))
    assert found.shows_same(WANTED[server])


async def test_nothing_is_held_before_it_was_asked_for_and_the_same_object_afterwards(
    case: Case,
) -> None:
    assert case.broker.held(HEADER, 0) is None
    found = await case.broker.obtain(HEADER, 0)
    assert case.broker.held(HEADER, 0) is found
    assert await case.broker.obtain(HEADER, 0) is found


@pytest.mark.parametrize("server", ["gone", "nobody-knows"])
async def test_what_is_not_there_is_a_failure_and_no_other_credential(
    case: Case, server: str
) -> None:
    await case.broker.obtain(HEADER, 0)
    found = await case.broker.obtain(CredentialAsk(server=server), 0)
    assert isinstance(found, CredentialFailure)
    assert found.reason == "missing"
    assert case.broker.held(CredentialAsk(server=server), 0) is None


async def test_a_rejected_credential_is_not_held_any_more_and_fetched_anew(case: Case) -> None:
    first = must(await case.broker.obtain(HEADER, 0))
    case.change("another-secret")
    assert case.broker.reject(HEADER, first, 0)
    assert case.broker.held(HEADER, 0) is None
    second = must(await case.broker.obtain(HEADER, 0))
    assert second.headers == (("Authorization", "Bearer another-secret"),)


async def test_rejecting_again_at_once_asks_nobody(case: Case) -> None:
    first = must(await case.broker.obtain(HEADER, 0))
    assert case.broker.reject(HEADER, first, 0)
    again = must(await case.broker.obtain(HEADER, 0))
    assert not case.broker.reject(HEADER, again, 1)
    assert case.broker.reject(HEADER, again, 10_000_000_000)


async def test_one_that_was_renewed_meanwhile_is_not_thrown_away(case: Case) -> None:
    first = must(await case.broker.obtain(HEADER, 0))
    case.change("another-secret")
    case.broker.reject(HEADER, first, 0)
    second = must(await case.broker.obtain(HEADER, 0))
    assert case.broker.reject(HEADER, first, 1)  # a second call that had sent the first one
    assert case.broker.held(HEADER, 1) is second


async def test_a_broker_that_fails_gives_a_failure_and_never_raises(case: Case) -> None:
    await case.stop()
    found = await case.broker.obtain(HEADER, 0)
    assert isinstance(found, CredentialFailure)


async def test_many_who_ask_at_once_get_the_same(case: Case) -> None:
    found = await asyncio.gather(*(case.broker.obtain(HEADER, 0) for _ in range(50)))
    assert len({id(one) for one in found}) == 1


async def test_nothing_that_is_handed_out_shows_itself(case: Case) -> None:
    for server in WANTED:
        shown = repr(await case.broker.obtain(CredentialAsk(server=server), 0))
        assert not any(secret in shown for secret in SECRETS.values())


async def test_a_held_credential_is_found_without_asking_anybody(case: Case) -> None:
    found = must(await case.broker.obtain(HEADER, 0))
    await case.stop()
    assert case.broker.held(HEADER, 0) is found
