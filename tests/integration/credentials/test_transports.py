"""What transports do with credentials: sent to the upstream, and let out to nobody else."""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from msgspec.structs import replace

from connectors.credential_use import Credentials
from connectors.http_pool import HttpPool
from connectors.mcp_http import McpHttpTransport
from connectors.mcp_stdio import McpStdioTransport
from gateway.adapters.broker.broker_memory import MemoryBroker
from gateway.brokering import CachingBroker
from gateway.core.calls.call import RecordedIntent
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from tests.integration.connectors.servers import build_sdk_server, legacy_only, serve
from tests.integration.credentials.offices import Office, Reply, Request, Upstream, reply_json
from tests.unit.connectors.calls import HandClock, build_intent

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09")]

SECRET = "upstream-secret-0123456789"
ASK = CredentialAsk(server="srv")
DESK = Path(__file__).with_name("telling_server.py")


def bearer(secret: str) -> UpstreamCredential:
    return UpstreamCredential(headers=(("Authorization", f"Bearer {secret}"),), secrets=(secret,))


def shows(*secrets: str) -> Callable[[Request], bool]:
    """Accept requests that show any of these."""
    wanted = {f"Bearer {secret}" for secret in secrets}
    return lambda request: request.headers.get("authorization") in wanted


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(shows(SECRET))


@pytest.fixture
def office(upstream: Upstream) -> Iterator[Office]:
    with Office(upstream) as office:
        yield office


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker({ASK: bearer(SECRET)})


@pytest.fixture
async def transport(office: Office, broker: MemoryBroker) -> AsyncIterator[McpHttpTransport]:
    async with HttpPool() as pool:
        made = McpHttpTransport(
            "srv",
            f"{office.url}/mcp",
            limits=Limits(),
            pool=pool,
            credentials=Credentials(broker, HandClock()),
        )
        yield made
        await made.close()


async def refusal(transport: McpHttpTransport, tool: str = "echo") -> tuple[str, str]:
    with pytest.raises(UpstreamError) as caught:
        await transport.call(build_intent(tool), None)
    assert SECRET not in str(caught.value)
    return caught.value.code, caught.value.delivery


class SlowBroker(MemoryBroker):
    """Holds nothing; while it is asked, somebody pulls the switch."""

    stopped: str | None = None

    def held(self, ask: CredentialAsk, now_ns: int) -> UpstreamCredential | None:  # noqa: ARG002 - none is held
        return None

    async def obtain(
        self, ask: CredentialAsk, now_ns: int
    ) -> UpstreamCredential | CredentialFailure:
        self.stopped = "killed"
        return await super().obtain(ask, now_ns)


@pytest.mark.req("TOK-06")
async def test_a_kill_while_the_credential_is_fetched_stops_the_call(office: Office) -> None:
    broker = SlowBroker({ASK: bearer(SECRET)})
    async with HttpPool() as pool:
        credentials = Credentials(broker, HandClock())
        transport = McpHttpTransport(
            "srv", f"{office.url}/mcp", limits=Limits(), pool=pool, credentials=credentials
        )
        await transport.start()
        broker.stopped, seen = None, len(office.seen)
        recorded = build_intent("echo")
        intent = replace(recorded.intent, find_stop=lambda: broker.stopped)
        with pytest.raises(UpstreamError) as caught:
            await transport.call(replace(recorded, intent=intent), None)
        assert (caught.value.code, caught.value.delivery) == ("killed", "not_sent")
        assert len(office.seen) == seen
        await transport.close()


async def test_every_request_shows_the_credential(
    transport: McpHttpTransport, office: Office
) -> None:
    await transport.list_tools()
    await transport.call(build_intent("echo"), None)
    await transport.call(build_intent("echo"), None)
    assert len(office.seen) == 4
    assert {one.headers["authorization"] for one in office.seen} == {f"Bearer {SECRET}"}


async def test_nothing_of_the_agents_own_credential_reaches_an_upstream(
    transport: McpHttpTransport, office: Office
) -> None:
    intent = build_intent("echo", {"value": "x"}, traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
    assert intent.intent.resolved.call.raw.credential == b"agent-token"
    await transport.call(intent, None)
    for request in office.seen:
        assert b"agent-token" not in request.raw
        assert set(request.headers) <= {
            "host", "authorization", "content-type", "accept", "accept-encoding", "user-agent",
            "mcp-protocol-version", "mcp-method", "mcp-name", "content-length",
        }  # fmt: skip


async def test_a_parameter_is_added_to_the_url_of_every_request(
    transport: McpHttpTransport, upstream: Upstream, office: Office, broker: MemoryBroker
) -> None:
    upstream.accepts = lambda request: request.path == "/mcp?key=a%20secret%2F1"
    broker.has[ASK] = UpstreamCredential(
        query=(("key", "a%20secret%2F1"),), secrets=("a secret/1",)
    )
    await transport.call(build_intent("echo"), None)
    assert {one.path for one in office.seen} == {"/mcp?key=a%20secret%2F1"}


# No credential


async def test_without_a_credential_nothing_is_sent(
    transport: McpHttpTransport, office: Office, broker: MemoryBroker
) -> None:
    broker.failures["srv"] = CredentialFailure(reason="unreachable", detail="x")
    assert await refusal(transport) == ("upstream_credential_unavailable", "not_sent")
    with pytest.raises(UpstreamError):
        await transport.list_tools()
    assert office.seen == []


async def test_a_credential_that_expired_is_not_sent_any_more(
    transport: McpHttpTransport, office: Office, broker: MemoryBroker
) -> None:
    broker.has[ASK] = replace(bearer(SECRET), expires_ns=0)
    await transport.call(build_intent("echo"), None)  # it is asked for anew for each request
    sent = len(office.seen)
    broker.failures["srv"] = CredentialFailure(reason="refused")
    assert await refusal(transport) == ("upstream_credential_unavailable", "not_sent")
    assert len(office.seen) == sent


# 401


async def test_a_call_that_was_refused_unexecuted_goes_again_with_a_fresh_credential(
    transport: McpHttpTransport, upstream: Upstream, broker: MemoryBroker
) -> None:
    await transport.call(build_intent("echo"), None)
    upstream.accepts = shows("renewed-secret-0123456789")
    broker.has[ASK] = bearer("renewed-secret-0123456789")
    answer = await transport.call(build_intent("echo"), None)
    assert not answer.is_error
    assert upstream.calls == ["echo", "echo"]


@pytest.mark.parametrize("said", [b"", b" \n", b'"Unauthorized"', b'{"message":"Unauthorized"}'])
async def test_a_refusal_may_say_nothing_and_call_it_json(
    transport: McpHttpTransport,
    upstream: Upstream,
    office: Office,
    broker: MemoryBroker,
    said: bytes,
) -> None:
    await transport.call(build_intent("echo"), None)
    honest, broker.has[ASK] = office.answer, bearer("fresh-secret-0123456789")
    upstream.accepts = shows("fresh-secret-0123456789")

    def answer(request: Request) -> Reply:
        if upstream.accepts(request):
            return honest(request)
        return Reply(401, said, "application/json")

    office.answer = answer
    assert not (await transport.call(build_intent("echo"), None)).is_error


async def test_of_several_that_were_refused_at_once_each_goes_again(
    upstream: Upstream, office: Office
) -> None:
    stale, fresh = bearer(SECRET), bearer("renewed-secret-0123456789")
    has = [stale]

    async def fetch(_ask: CredentialAsk, _now_ns: int) -> UpstreamCredential:
        return has[0]

    async with HttpPool() as pool:
        credentials = Credentials(CachingBroker(fetch), HandClock())
        url = f"{office.url}/mcp"
        made = McpHttpTransport("srv", url, limits=Limits(), pool=pool, credentials=credentials)
        await made.call(build_intent("echo"), None)
        has[0] = fresh
        both, renewed, order = threading.Barrier(2), threading.Event(), itertools.count()

        def accepts(request: Request) -> bool:
            if shows("renewed-secret-0123456789")(request):
                renewed.set()
                return True
            both.wait(10)
            if next(order):  # the last to hear of it hears once the other has gone again
                renewed.wait(10)
            return False

        upstream.accepts = accepts
        calls = (made.call(build_intent("echo"), None) for _ in range(2))
        answers = await asyncio.gather(*calls)
        await made.close()
    assert [answer.is_error for answer in answers] == [False, False]
    assert upstream.calls == ["echo"] * 3


async def test_it_goes_again_once_at_most(
    transport: McpHttpTransport, upstream: Upstream, office: Office, broker: MemoryBroker
) -> None:
    await transport.call(build_intent("echo"), None)
    upstream.accepts, sent = shows("nobodys"), len(office.seen)
    assert await refusal(transport) == ("upstream_credential_refused", "sent")
    assert len(office.seen) == sent + 2
    assert await refusal(transport) == ("upstream_credential_refused", "sent")
    assert len(office.seen) == sent + 3  # a moment later, nothing new is asked for
    assert upstream.calls == ["echo"]


async def test_a_server_that_refuses_from_the_start_is_told_as_not_sent(
    transport: McpHttpTransport, upstream: Upstream
) -> None:
    upstream.accepts = shows("nobodys")
    assert await refusal(transport) == ("upstream_credential_refused", "not_sent")


@pytest.mark.parametrize(
    "reply",
    [
        reply_json({"jsonrpc": "2.0", "id": 2, "result": {"content": []}}, 401),
        Reply(403, b"forbidden", "text/plain"),
        Reply(500, b"unauthorized", "text/plain"),
        Reply(401, b'{"truncated', "application/json"),
    ],
)
async def test_what_is_less_certain_than_a_whole_401_is_not_sent_again(
    transport: McpHttpTransport, upstream: Upstream, office: Office, reply: Reply
) -> None:
    await transport.call(build_intent("echo"), None)
    office.answer, sent = lambda _request: reply, len(office.seen)
    code, delivery = await refusal(transport)
    assert code != "upstream_credential_refused"
    assert delivery != "not_sent"
    assert len(office.seen) == sent + 1


# Answers that repeat it


@pytest.mark.parametrize("tool", ["tell_request", "tell_error"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(b"ab" + text.encode()).decode(),
        lambda text: text.encode().hex(),
        lambda text: quote(text, safe=""),
    ],
)
async def test_an_answer_that_repeats_the_credential_is_withheld(
    transport: McpHttpTransport, upstream: Upstream, tool: str, wrap: Callable[[str], str]
) -> None:
    upstream.wrap = wrap
    assert await refusal(transport, tool) == ("result_withheld", "sent")


async def test_a_notification_that_repeats_it_is_dropped(transport: McpHttpTransport) -> None:
    heard: list[bytes] = []
    answer = await transport.call(build_intent("tell_stream"), heard.append)
    assert not answer.is_error
    assert [orjson.loads(line)["params"]["data"] for line in heard] == ["working on it"]


async def test_an_error_page_that_repeats_it_is_not_repeated(transport: McpHttpTransport) -> None:
    assert await refusal(transport, "tell_http") == ("upstream_unavailable", "unknown")


async def test_a_credential_that_was_just_replaced_is_still_looked_for(
    transport: McpHttpTransport, upstream: Upstream, broker: MemoryBroker
) -> None:
    await transport.call(build_intent("echo"), None)
    upstream.accepts = shows("renewed-secret-0123456789")
    broker.has[ASK] = bearer("renewed-secret-0123456789")
    await transport.call(build_intent("echo"), None)
    upstream.wrap = lambda _text: f"earlier you said {SECRET}"
    assert await refusal(transport, "tell_request") == ("result_withheld", "sent")


async def test_a_listing_that_repeats_it_is_not_offered(
    transport: McpHttpTransport, office: Office
) -> None:
    await transport.list_tools()
    tool = {"name": "x", "description": f"say {SECRET}", "inputSchema": {"type": "object"}}

    def answer(request: Request) -> Reply:
        number = orjson.loads(request.body)["id"]
        return reply_json({"jsonrpc": "2.0", "id": number, "result": {"tools": [tool]}})

    office.answer = answer
    with pytest.raises(UpstreamError) as caught:
        await transport.list_tools()
    assert caught.value.code == "result_withheld"


# One for each person


def intent_of(person: str | None, agent: str = "agent") -> RecordedIntent:
    intent = build_intent("echo")
    resolved = intent.intent.resolved
    claims = replace(resolved.call.claims, on_behalf_of=person, subject=agent)
    call = replace(resolved.call, claims=claims)
    return replace(intent, intent=replace(intent.intent, resolved=replace(resolved, call=call)))


@pytest.fixture(scope="module")
def sessions() -> Iterator[str]:
    """The SDK's server as it was before 2026: it keeps sessions."""
    with serve(legacy_only(build_sdk_server().streamable_http_app())) as url:
        yield f"{url}/mcp"


async def test_each_person_has_a_credential_and_a_session_of_their_own(sessions: str) -> None:
    broker = MemoryBroker(
        {
            CredentialAsk(server="srv", agent="agent", person=name): bearer(f"token-of-{name}-0123")
            for name in ("ann", "bob")
        }
    )
    seen: dict[str, set[str]] = {}
    async with HttpPool() as pool:
        transport = McpHttpTransport(
            "srv",
            sessions,
            limits=Limits(),
            pool=pool,
            credentials=Credentials(broker, HandClock(), per="person"),
        )
        for name in ("ann", "bob", "ann", "bob"):
            await transport.call(intent_of(name), None)
        for lane in transport._lanes.all():  # noqa: SLF001 - nothing else tells the sessions
            if lane.era is not None:
                person = str(lane.ask.person)
                seen.setdefault(person, set()).add(lane.era.headers["Mcp-Session-Id"])
        await transport.close()
    assert set(seen) == {"ann", "bob"}
    assert len(seen["ann"] | seen["bob"]) == 2


async def test_a_call_for_nobody_is_refused_and_never_uses_anothers_credential(
    office: Office, upstream: Upstream
) -> None:
    upstream.accepts = lambda _request: True
    ann = CredentialAsk(server="srv", agent="agent", person="ann")
    shared = CredentialAsk(server="srv")
    broker = MemoryBroker({ann: bearer(SECRET), shared: bearer("shared-secret-0123")})
    async with HttpPool() as pool:
        transport = McpHttpTransport(
            "srv",
            office.url,
            limits=Limits(),
            pool=pool,
            credentials=Credentials(broker, HandClock(), per="person"),
        )
        await transport.call(intent_of("ann"), None)
        sent = len(office.seen)
        with pytest.raises(UpstreamError) as caught:
            await transport.call(intent_of(None), None)
        await transport.close()
    assert (caught.value.code, caught.value.delivery) == (
        "upstream_credential_unavailable",
        "not_sent",
    )
    assert len(office.seen) == sent


# stdio

VARIABLE = UpstreamCredential(env=(("KEY", SECRET),), secrets=(SECRET,))


@pytest.fixture
async def desk() -> AsyncIterator[McpStdioTransport]:
    made = build_desk(MemoryBroker({ASK: VARIABLE}))
    yield made
    await made.close()


def build_desk(broker: MemoryBroker, *arguments: str) -> McpStdioTransport:
    return McpStdioTransport(
        "srv",
        [sys.executable, "-S", str(DESK), *arguments],
        limits=Limits(),
        clock=HandClock(),
        credentials=Credentials(broker, HandClock()),
    )


async def test_a_process_gets_the_credential_in_its_environment(desk: McpStdioTransport) -> None:
    answer = await desk.call(build_intent("length"), None)
    assert str(len(SECRET)).encode() in (answer.result or b"")


async def test_a_process_that_repeats_it_is_not_heard(desk: McpStdioTransport) -> None:
    heard: list[bytes] = []
    with pytest.raises(UpstreamError) as caught:
        await desk.call(build_intent("tell"), heard.append)
    assert (caught.value.code, caught.value.delivery) == ("result_withheld", "sent")
    assert heard == []


async def test_what_a_process_was_started_with_is_looked_for_as_long_as_it_lives() -> None:
    broker = MemoryBroker()
    desk = build_desk(broker)
    for number in range(3):  # the secret changes twice while the process of the first run lives on
        secret = f"upstream-secret-{number}"
        shown = UpstreamCredential(env=(("KEY", secret),), secrets=(secret,))
        broker.has[ASK] = shown
        await broker.close()  # what it held has expired
        await desk.call(build_intent("length", run_id=f"run-{number}"), None)
    with pytest.raises(UpstreamError) as caught:
        await desk.call(build_intent("tell", run_id="run-0"), None)
    await desk.close()
    assert caught.value.code == "result_withheld"


async def test_a_process_that_fails_to_start_with_it_on_its_lips_is_not_quoted() -> None:
    desk = build_desk(MemoryBroker({ASK: VARIABLE}), "die")
    with pytest.raises(UpstreamError) as caught:
        await desk.start()
    await desk.close()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "repeats the gateway's credential" in str(caught.value)


async def test_without_a_credential_no_process_is_started() -> None:
    broker = MemoryBroker()
    desk = build_desk(broker)
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            await desk.call(build_intent("length"), None)
        assert caught.value.code == "upstream_credential_unavailable"
    assert desk.processes == 0
    broker.has[ASK] = VARIABLE
    assert not (await desk.call(build_intent("length"), None)).is_error
    await desk.close()


async def test_calls_at_once_start_one_process_with_it(desk: McpStdioTransport) -> None:
    answers = await asyncio.gather(*(desk.call(build_intent("length"), None) for _ in range(5)))
    assert {answer.is_error for answer in answers} == {False}
    assert desk.processes == 1
