"""What stands around the path: health, origins, challenges, logs, and things nobody foresaw."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from fastapi import APIRouter, Request
from msgspec.structs import replace
from starlette.responses import Response

from gateway.adapters.system import SystemClock, SystemIds
from gateway.core.refusal import Refusal
from gateway.http.app import GatewayApp, build_api
from gateway.http.asgi import Message
from gateway.http.challenge import Challenges
from gateway.http.client_auth import read_body
from gateway.http.origin import OriginCheck
from gateway.logs import configure_logging, describe
from gateway.protocol.headers import Headers
from gateway.unbroken import Enduring, Stopper, Unbroken
from tests.unit.path.world import World

# --- the application


@pytest.mark.req("GW-14")
async def test_it_says_whether_it_lives_and_whether_it_is_ready(world: World) -> None:
    assert (await world.request("GET", "/livez")).status == 200
    ready = await world.request("GET", "/readyz")
    assert (ready.status, ready.json()) == (200, {"status": "ready", "checks": {"audit": True}})
    world.checks["audit"] = False
    ready = await world.request("GET", "/readyz")
    assert (ready.status, ready.json()["status"]) == (503, "not_ready")
    assert ready.headers["cache-control"] == "no-store"


async def test_a_path_or_method_that_there_is_not_is_told_as_a_problem(world: World) -> None:
    nothing = await world.request("GET", "/nothing")
    assert (nothing.status, nothing.code) == (404, "path_unknown")
    assert "`/openapi.json`" in nothing.json()["detail"]
    other = await world.request("DELETE", "/openapi.json")
    assert (other.status, other.code) == (405, "method_not_allowed")
    assert "GET" in other.headers["allow"]
    for reply in (nothing, other):
        assert reply.headers["content-type"] == "application/problem+json"


async def speak(world: World, kind: str, *types: str) -> list[Any]:
    incoming, sent = iter({"type": type_} for type_ in types), list[Any]()

    async def receive() -> Any:  # noqa: ANN401 - an ASGI message
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    await world.app({"type": kind}, receive, send)
    return [message["type"] for message in sent]


async def test_the_server_may_start_and_stop_it_and_nobody_gets_a_websocket(world: World) -> None:
    assert await speak(world, "lifespan", "lifespan.startup", "lifespan.shutdown") == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert await speak(world, "websocket", "websocket.connect") == ["websocket.close"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Standard error with our logging on it, as JSON; as it was afterwards."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("json", "info")
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.req("GW-14")
async def test_a_client_that_goes_away_within_its_body_is_no_mistake_of_ours(
    world: World, told: io.StringIO
) -> None:
    router = APIRouter()

    @router.post("/take")
    async def take(request: Request) -> Response:
        return Response(await read_body(request, 10))

    app, sent = (
        GatewayApp(
            mcp=world.app._mcp,  # noqa: SLF001 - the same, with one more route
            rest=world.rest,
            api=build_api([router], "0"),
            ready=dict,
            ids=world.ids,
        ),
        list[Message](),
    )

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/take", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert told.getvalue() == ""


@pytest.mark.req("GW-14")
async def test_what_nobody_foresaw_is_told_without_its_message(
    world: World, told: io.StringIO
) -> None:
    def fails() -> dict[str, bool]:
        raise KeyError("canary-secret")

    world.app._ready = fails  # noqa: SLF001 - something breaks
    reply = await world.request("GET", "/readyz")
    assert (reply.status, reply.code) == (500, "internal_error")
    line = orjson.loads(told.getvalue())
    assert line["event"] == "request_failed"
    assert line["error"].startswith("KeyError at test_edges.py:")
    assert "canary" not in told.getvalue() + reply.body.decode()


@pytest.mark.req("GW-14")
async def test_a_call_that_breaks_is_told_by_its_operation_id(
    world: World, told: io.StringIO
) -> None:
    class Broken:
        def failure(self, arguments: object) -> str | None:
            raise ValueError(f"canary {arguments}")

    tool = world.catalog.view().find("billing__refund", None)
    assert tool is not None
    world.catalog._snapshot = type(world.catalog.view())([replace(tool, schema=Broken())])  # noqa: SLF001
    await world.call_rest("billing__refund", b'{"arguments":{"amount":77}}')
    line = orjson.loads(told.getvalue())
    assert (line["event"], line["op"]) == ("call_failed", world.only_record()["op"])
    assert "77" not in line["error"].partition(":")[0]
    assert "canary" not in told.getvalue()


# --- logs


@pytest.mark.req("GW-14")
@pytest.mark.parametrize(
    "name",
    [
        "arguments",
        "token",
        "access_token",
        "client_secret",
        "Authorization",
        "body",
        "run_credential",
    ],
)
def test_members_that_could_hold_a_secret_are_dropped(told: io.StringIO, name: str) -> None:
    structlog.get_logger("t").info("something", **{name: "canary", "op": "op-1"})
    line = orjson.loads(told.getvalue())
    assert (line[name], line["op"], line["level"]) == ("[dropped]", "op-1", "info")
    assert line["timestamp"].endswith("Z")


@pytest.mark.req("GW-14")
def test_exceptions_are_told_by_type_and_place(told: io.StringIO) -> None:
    log = structlog.get_logger("t")
    try:
        int("canary")
    except ValueError as error:
        log.exception("broken")
        log.warning("broken", exc_info=error)
        log.warning("broken", exc_info=sys.exc_info())
    log.warning("whole", exc_info=None)
    lines = [orjson.loads(line) for line in told.getvalue().splitlines()]
    assert [line.get("error", "")[:28] for line in lines] == [
        *["ValueError at test_edges.py:"] * 3,
        "",
    ]
    assert "canary" not in told.getvalue()
    assert describe(ValueError("canary")) == "ValueError"


@pytest.mark.req("GW-14")
def test_libraries_are_told_among_our_lines_by_their_first_line(told: io.StringIO) -> None:
    logger = logging.getLogger("asyncio")
    logger.error("Task exception was never retrieved\nfuture: <ValueError('canary')>")
    try:
        int("canary")
    except ValueError:
        logger.exception("%s failed", "work")
    logger.info("not told")
    first, second = [orjson.loads(line) for line in told.getvalue().splitlines()]
    assert first["event"] == "Task exception was never retrieved"
    assert (first["logger"], first["level"]) == ("asyncio", "error")
    assert second["event"] == "work failed"
    assert "canary" not in told.getvalue()


def test_a_console_reads_lines_of_text(told: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", told)
    configure_logging("console", "warning")
    structlog.get_logger("t").info("hushed")
    structlog.get_logger("t").warning("told", op="op-1")
    assert "hushed" not in told.getvalue()
    assert "told" in told.getvalue()
    assert "op-1" in told.getvalue()


@pytest.mark.req("GW-14")
async def test_a_governed_call_leaves_no_value_in_the_log(world: World, told: io.StringIO) -> None:
    body = b'{"arguments":{"amount":1,"order":"canary"},"claimed":{"intent":"canary"}}'
    await world.call_rest("billing__refund", body)
    await world.call_rest("canary__tool", body)
    assert "canary" not in told.getvalue()


# --- origins


def headers_of(host: str, origin: str | None = None) -> Headers:
    one = {b"host": host.encode()}
    if origin is not None:
        one[b"origin"] = origin.encode()
    return Headers(one, {}, b"")


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:8080", None, True),
        ("localhost:9", None, True),
        ("[::1]:8080", None, True),
        ("[::1]", None, True),
        ("localhost", "http://localhost:3000", True),
        ("localhost", "https://127.0.0.1", True),
        ("localhost", "http://[::1]:5", True),
        ("evil.example", None, False),
        ("localhost.evil.example", None, False),
        ("localhost:8080:evil", None, False),
        ("localhost:pw@evil.example", None, False),
        ("127.0.0.1.evil.example:80", None, False),
        ("[::1]evil:80", None, False),
        ("", None, False),
        (":80", None, False),
        ("localhost", "null", False),
        ("localhost", "", False),
        ("localhost", "http://evil.example", False),
        ("localhost", "http://localhost.evil.example", False),
        ("localhost", "http://localhost:1@evil.example", False),
        ("localhost", "http://localhost@evil.example", False),
        ("localhost", "http://evil.example/localhost", False),
        ("localhost", "http://[", False),
        ("localhost", "file://localhost", False),
        ("localhost", "localhost", False),
    ],
)
def test_on_loopback_only_loopback_may_ask(host: str, origin: str | None, allowed: bool) -> None:  # noqa: FBT001 - a parameter
    check = OriginCheck("http://127.0.0.1:8080", dev=False)
    assert (check.refuse(headers_of(host, origin)) is None) == allowed


@pytest.mark.req("GW-06")
def test_elsewhere_only_the_public_name_may_ask() -> None:
    check = OriginCheck("https://gw.example:8443", dev=False)
    assert check.refuse(headers_of("gw.example:8443", "https://gw.example:8443")) is None
    assert check.refuse(headers_of("gw.example")) is None
    for host, origin in (
        ("localhost", None),
        ("gw.example:8443", "https://gw.example"),
        ("gw.example:8443", "http://gw.example:8443"),
        ("gw.example:8443", "http://localhost"),
        ("gw.example:1", None),
    ):
        assert check.refuse(headers_of(host, origin)) == Refusal("read", "origin_forbidden")


@pytest.mark.req("GW-10")
def test_a_challenge_says_where_to_get_a_token() -> None:
    challenges = Challenges("https://gw.example")
    assert challenges.headers("token_missing", "/mcp") == [
        (
            b"www-authenticate",
            b'Bearer resource_metadata="%b", scope="tools:list tools:call"'
            % b"https://gw.example/.well-known/oauth-protected-resource/mcp",
        )
    ]
    for code, error in (
        ("token_expired", b"invalid_token"),
        ("scope_insufficient", b"insufficient"),
    ):
        ((_, value),) = challenges.headers(code, "")
        assert b'Bearer error="' + error in value
    assert challenges.headers("tool_unknown", "") == []


# --- unbroken work, the machine's own clock


async def test_work_goes_on_when_nobody_waits_and_is_waited_for_at_the_end() -> None:
    unbroken, gate = Unbroken(), asyncio.Event()
    done: list[str] = []

    async def work(error: Exception | None) -> str:
        await gate.wait()
        done.append("done")
        if error is not None:
            raise error
        return "result"

    waiting = [
        asyncio.create_task(unbroken.finish(work(error))) for error in (None, KeyError("lost"))
    ]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert done == []
    gate.set()
    await unbroken.close()
    assert done == ["done", "done"]
    assert await unbroken.finish(work(None)) == "result"
    with pytest.raises(KeyError):
        await unbroken.finish(work(KeyError("told")))


async def test_an_enduring_task_ends_only_once_its_unbroken_work_is_done() -> None:
    unbroken, gate, never = Unbroken(), asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def inner() -> None:
        await gate.wait()
        done.append("inner")

    async def outer() -> None:
        await unbroken.finish(inner())
        done.append("outer")

    async def request() -> None:
        await unbroken.finish(outer())
        done.append("reply")
        await never.wait()

    task = Enduring(request())
    await asyncio.sleep(0)
    Stopper(task).cancel()
    closing = asyncio.create_task(unbroken.close())
    await asyncio.sleep(0)
    assert (task.done(), closing.done()) == (False, False)
    gate.set()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["inner", "outer", "reply"]


async def test_an_enduring_task_is_cancelled_at_once_outside_of_such_work_or_asked_twice() -> None:
    unbroken, never = Unbroken(), asyncio.Event()

    async def waiting() -> None:
        await never.wait()

    async def working() -> None:
        await unbroken.finish(waiting())

    for work, times in ((waiting, 1), (working, 2)):
        task = Enduring(work())
        await asyncio.sleep(0)
        for _ in range(times):
            Stopper(task).cancel(msg="graceful shutdown")
        with pytest.raises(asyncio.CancelledError):
            await task
    await unbroken.close()


async def test_a_time_limit_inside_unbroken_work_holds() -> None:
    unbroken = Unbroken()
    ended: list[str] = []

    async def work() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append("in time")

    async def request() -> None:
        await unbroken.finish(work())
        ended.append("reply")

    async with asyncio.timeout(5):
        await Enduring(request())
    assert ended == ["in time", "reply"]


def test_the_machine_tells_time_and_makes_ids_that_sort_by_it() -> None:
    clock, ids = SystemClock(), SystemIds()
    assert clock.now_ns() > 1_600_000_000 * 10**9
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    made = [ids.new() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in made)
    assert [one[:12] for one in made] == sorted(one[:12] for one in made)
    assert len(ids.secret()) == 43
    assert ids.secret() != ids.secret()


@pytest.mark.req("GW-14")
@pytest.mark.parametrize("wire", ["mcp", "rest"])
async def test_a_reply_names_the_request_under_which_the_log_has_its_call(wire: str) -> None:
    world = World()
    if wire == "mcp":
        reply = await world.call_mcp("billing__refund", b'{"amount":1}')
    else:
        reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    ops = {record["op"] for record in world.records("call.intent", "call.outcome")}
    assert ops == {reply.headers["x-request-id"]}


@pytest.mark.req("GW-14")
@pytest.mark.parametrize("path", ["/livez", "/v1/tools", "/mcp", "/no/such/page"])
async def test_every_reply_names_its_request_also_a_refusal(path: str) -> None:
    replies = [await World().request("GET", path) for _ in range(2)]
    assert all(len(reply.headers["x-request-id"]) == 32 for reply in replies)
