from __future__ import annotations

import asyncio

import pytest

from connectors.lanes import Lane, Lanes
from gateway.brokering import CachingBroker
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from tests.unit.connectors.calls import build_intent

pytestmark = pytest.mark.req("TOK-09")

S = 1_000_000_000


def ask(number: int) -> CredentialAsk:
    return CredentialAsk(server="srv", person=str(number))


async def give(asked: CredentialAsk, now_ns: int) -> UpstreamCredential:
    return UpstreamCredential(
        headers=(("X", str(asked.person)),), refresh_ns=now_ns + S, expires_ns=now_ns + 2 * S
    )


async def test_what_is_held_is_bounded_and_the_oldest_goes_first() -> None:
    broker = CachingBroker(give, entries_max=3)
    for number in range(5):
        await broker.obtain(ask(number), 0)
    assert [broker.held(ask(number), 0) is not None for number in range(5)] == [
        False, False, True, True, True,
    ]  # fmt: skip
    await broker.close()
    assert broker.held(ask(4), 0) is None


async def test_a_clock_that_is_set_back_keeps_no_credential_alive() -> None:
    broker = CachingBroker(give)
    await broker.obtain(ask(1), 3600 * S)
    assert broker.held(ask(1), 3600 * S) is not None
    assert broker.held(ask(1), 0) is None  # how old it is nobody can tell
    assert await broker.obtain(ask(1), 0) is broker.held(ask(1), 0)


async def test_a_failure_stands_for_a_second_however_long_it_took() -> None:
    asked = 0

    async def hang(_ask: CredentialAsk, _now_ns: int) -> CredentialFailure:
        nonlocal asked
        asked += 1
        await asyncio.sleep(1.1)  # somebody who does not answer, until the time for it is over
        return CredentialFailure(reason="timed_out")

    broker = CachingBroker(hang)
    failure = await broker.obtain(ask(1), 0)
    assert await broker.obtain(ask(1), 11 * S // 10) is failure
    assert await broker.obtain(ask(1), 2 * S) is failure
    assert asked == 1


async def test_failures_and_rejections_are_bounded_too() -> None:
    async def fail(_ask: CredentialAsk, _now_ns: int) -> CredentialFailure:
        return CredentialFailure(reason="unreachable")

    broker = CachingBroker(fail, entries_max=2)
    for number in range(5):
        await broker.obtain(ask(number), 0)
        assert broker.reject(ask(number), UpstreamCredential(), 0)
    assert not broker.reject(ask(4), UpstreamCredential(), 0)
    assert broker.reject(ask(0), UpstreamCredential(), 0)  # forgotten: it may be tried again


async def test_whatever_is_raised_is_a_failure_told_by_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def explode(_ask: CredentialAsk, _now_ns: int) -> CredentialFailure:
        raise KeyError("canary-secret")

    found = await CachingBroker(explode).obtain(ask(1), 0)
    assert isinstance(found, CredentialFailure)
    assert (found.reason, found.detail.startswith("KeyError at")) == ("internal", True)
    assert "canary" not in found.detail + "".join(capsys.readouterr())


async def test_a_renewal_that_fails_leaves_the_old_one_until_it_expires() -> None:
    fails = False

    async def sometimes(
        asked: CredentialAsk, now_ns: int
    ) -> UpstreamCredential | CredentialFailure:
        return CredentialFailure(reason="unreachable") if fails else await give(asked, now_ns)

    broker = CachingBroker(sometimes)
    first = await broker.obtain(ask(1), 0)
    fails = True
    assert broker.held(ask(1), S) is first
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert broker.held(ask(1), 2 * S - 1) is first
    assert broker.held(ask(1), 2 * S) is None
    assert isinstance(await broker.obtain(ask(1), 2 * S), CredentialFailure)
    await broker.close()


async def test_who_waits_while_it_is_closed_gets_a_failure() -> None:
    async def never(_ask: CredentialAsk, _now_ns: int) -> CredentialFailure:
        await asyncio.Event().wait()
        raise AssertionError

    broker = CachingBroker(never)
    waiting = asyncio.create_task(broker.obtain(ask(1), 0))
    await asyncio.sleep(0)
    await broker.close()
    found = await waiting
    assert isinstance(found, CredentialFailure)
    assert found.reason == "internal"


def test_ways_of_their_own_are_bounded_and_the_oldest_is_told_to_end() -> None:
    dropped: list[Lane] = []
    lanes = Lanes("srv", per="agent", dropped=dropped.append, lanes_max=1)
    first = lanes.of(build_intent())
    assert lanes.of(build_intent()) is first
    assert (first.ask.agent, first.ask.person) == ("agent", None)
    lanes._others[ask(7)] = lanes._others.pop(first.ask)  # noqa: SLF001 - stands for another agent
    lanes.of(build_intent())
    assert dropped == [first]
    assert len(lanes.all()) == 2
