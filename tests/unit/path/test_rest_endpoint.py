"""`/v1/tools` and `/v1/calls`: names, keys and replies that belong to one agent and run."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.state.memory_idempotency import MemoryIdempotency
from gateway.core.entry import Receipt
from gateway.core.errors import ApprovalError, Delivery, PolicyError, UpstreamError
from gateway.core.policy.decision import Decision, Phase
from gateway.core.tokens.token import Grant
from gateway.http.rest import RecentReplies
from gateway.protocol.rest import Reply as RestReply
from tests.effort import share
from tests.unit.path.world import HOLD, PERMIT, World, build_claims, sign

pytestmark = pytest.mark.req("GW-07")

BODY = b'{"arguments":{"amount":5}}'


async def test_tools_are_listed_and_called_by_their_wire_names(world: World) -> None:
    listing = await world.request("GET", "/v1/tools", token=sign(build_claims()))
    names = [(tool["name"], tool["effect"]) for tool in listing.json()["tools"]]
    assert names == [
        ("billing__lookup", "read"),
        ("billing__refund", "money"),
        ("mail__send", "external_send"),
    ]
    reply = await world.call_rest("billing__refund", BODY)
    assert (reply.status, reply.json()["status"]) == (200, "completed")
    assert world.sent == [("billing.refund", b'{"amount":5}')]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tools/billing%5F%5Frefund/call",
        "/v1/tools/billing%255F%255Frefund/call",
        "/v1/tools/billing.refund/call",
        "/v1/tools/refund/call",
        "/v1/tools/BILLING__refund/call",
        "/v1/tools//call",
        "/v1/tools/billing__refund%00/call",
        "/v1/tools/ /call",
    ],
)
async def test_no_encoded_or_other_spelling_leads_to_a_tool(world: World, path: str) -> None:
    reply = await world.request("POST", path, BODY, token=sign(build_claims()))
    assert (reply.status, reply.code, world.sent) == (404, "tool_unknown", [])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/tools/a/b/call", 404),
        ("POST", "/v1/tools/billing__refund/call/", 404),
        ("POST", "/v1/toolsbilling__refund/call", 404),
        ("POST", "/v1/tools/billing__refund", 404),
        ("GET", "/v1/calls", 404),
        ("GET", "/v1/tools/billing__refund/call", 405),
        ("POST", "/v1/tools", 405),
        ("DELETE", "/v1/calls/1", 405),
        ("HEAD", "/v1/tools", 405),
    ],
)
async def test_what_is_no_route_is_not_served_and_what_there_is_is_told(
    world: World, method: str, path: str, status: int
) -> None:
    reply = await world.request(method, path, BODY, token=sign(build_claims()))
    assert (reply.status, world.sent) == (status, [])
    assert ("allow" in reply.headers) == (status == 405)
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["code"] == ("method_not_allowed" if status == 405 else "path_unknown")
    assert "`POST /v1/tools/{name}/call`" in problem["detail"]


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{", {}, "body_invalid"),
        (b'{"argument":{}}', {}, "params_invalid"),
        (b" " * 5_000_000, {}, "body_too_large"),
        (BODY, {"idempotency-key": "k" * 256}, "params_invalid"),
        (BODY, {"idempotency-key": "taken"}, "key_reused"),
    ],
)
async def test_a_request_that_cannot_be_read_tells_nobody_that_a_tool_exists(
    world: World, body: bytes, headers: dict[str, str], code: str
) -> None:
    claims = build_claims(grants=(Grant("mail"),))
    await world.call_rest("mail__send", b"{}", {"idempotency-key": "taken"}, claims=claims)
    told = []
    for name in ("billing__refund", "billing__nothing", "mail__send"):
        reply = await world.call_rest(name, body, headers, claims=claims)
        problem = reply.json()
        problem.pop("instance")
        told.append((reply.status, problem))
    assert told[0] == told[1] == told[2]
    assert told[0][1]["code"] == code


async def test_claims_of_the_agent_reach_policy_and_only_there(world: World) -> None:
    body = b'{"arguments":{"amount":5},"claimed":{"intent":"help","amount":1}}'
    await world.call_rest("billing__refund", body, {"traceparent": "00-1"})
    assert world.policy.asked[0][2]["context"]["claimed"] == {"intent": "help", "amount": 1}
    assert world.sent == [("billing.refund", b'{"amount":5}')]


# --- looking up


async def test_a_call_is_looked_up_by_who_made_it_and_nobody_else(world: World) -> None:
    made = await world.call_rest("billing__refund", BODY)
    path = f"/v1/calls/{made.json()['id']}"
    again = await world.request("GET", path, token=sign(build_claims(jti="jti-2")))
    assert (again.status, again.body) == (200, made.body)
    for changes in ({"subject": "other"}, {"run_id": "run-2"}, {"subject": "run-1"}):
        reply = await world.request("GET", path, token=sign(build_claims(**changes)))
        absent = await world.request("GET", "/v1/calls/0", token=sign(build_claims(**changes)))
        assert (reply.status, reply.code) == (absent.status, absent.code) == (404, "call_unknown")
    stranger = await world.request("GET", path)
    assert stranger.status == 401


@pytest.mark.req("GW-12")
async def test_a_held_call_is_looked_up_until_its_result_is_there() -> None:
    world = World({("billing.refund", "call"): HOLD, ("billing.refund", "resume"): HOLD})
    await world.launch()
    reply = await world.call_rest("billing__refund", BODY)
    where = reply.headers["location"]
    assert (reply.status, where) == (202, f"/v1/calls/{reply.json()['id']}")
    token = sign(build_claims())
    assert (await world.request("GET", where, token=token)).status == 202
    request = await world.vote(await world.held())
    await world.dispatcher.dispatch(request.id)
    ended = await world.request("GET", where, token=token)
    assert (ended.status, ended.json()["status"]) == (200, "completed")
    assert ended.json()["result"]["content"][0]["text"] == "refunded"
    assert len(world.sent) == 1


def test_replies_are_kept_within_bounds() -> None:
    recent, owner, where = RecentReplies(), ("bot", "run"), Receipt(3, bytes(32))
    big = RestReply(200, b"x" * (6 << 20))
    for number in range(4):
        recent.add(str(number), owner, big, where)
    found = [recent.get(str(number), owner) for number in range(4)]
    assert found == [None, None, (big, where), (big, where)]
    recent.add("huge", owner, RestReply(200, b"x" * (17 << 20)), where)
    assert recent.get("huge", owner) is None
    small = RestReply(200, b"x")
    for number in range(10_001):
        recent.add(f"s{number}", owner, small, where)
    assert recent.get("s0", owner) is None
    assert recent.get("s10000", owner) == (small, where)
    assert recent.get("s10000", ("bot", "other")) is None


# --- Idempotency-Key


async def keyed(world: World, key: str, body: bytes = BODY, **given: Any) -> Any:  # noqa: ANN401
    return await world.call_rest("billing__refund", body, {"idempotency-key": key}, **given)


async def test_the_same_request_gets_the_same_reply_and_one_effect(world: World) -> None:
    first = await keyed(world, "k-1")
    again = await keyed(world, "k-1")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers.pop("x-request-id") != first.headers.pop("x-request-id")
    assert again.headers == first.headers
    assert len(world.sent) == 1
    assert world.ledger.family("root-1").calls == 1
    await keyed(world, "k-2")
    assert len(world.sent) == 2


async def test_a_key_of_another_request_is_refused(world: World) -> None:
    await keyed(world, "k-1")
    for body in (b'{"arguments":{"amount":6}}', b'{"arguments":{"amount":5} }'):
        reply = await keyed(world, "k-1", body)
        assert (reply.status, reply.code) == (422, "key_reused")
    other = await world.call_rest("billing__lookup", BODY, {"idempotency-key": "k-1"})
    assert other.code == "key_reused"
    assert len(world.sent) == 1


async def test_keys_of_others_are_theirs(world: World) -> None:
    await keyed(world, "k-1")
    await keyed(world, "k-1", claims=build_claims(subject="other", jti="2", root_jti="root-2"))
    await keyed(world, "k-1", claims=build_claims(run_id="run-2", jti="3", root_jti="root-3"))
    assert len(world.sent) == 3


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_without_sense_is_refused(world: World, key: str) -> None:
    reply = await keyed(world, key)
    assert (reply.status, reply.code, world.sent) == (400, "params_invalid", [])
    assert (await keyed(world, "x" * 255)).status == 200
    assert (await keyed(world, "\xff\x00é")).status == 200


class SlowKeys(MemoryIdempotency):
    """Lets others run around each step."""

    async def begin(self, *given: Any) -> Any:  # noqa: ANN401 - as the port
        await asyncio.sleep(0)
        found = await super().begin(*given)
        await asyncio.sleep(0)
        return found


@settings(max_examples=share(20))
@given(st.integers(2, 6), st.integers(0, 5))
def test_requests_that_race_under_one_key_have_one_effect(count: int, pauses: int) -> None:
    async def scenario() -> None:
        world = World()
        world.rest._keys = SlowKeys()  # noqa: SLF001 - a slower store

        async def handler(_arguments: dict[str, Any], _relay: object) -> str:
            for _ in range(pauses):
                await asyncio.sleep(0)
            return "done"

        world.handle("billing", "refund", handler)
        replies = await asyncio.gather(*(keyed(world, "k") for _ in range(count)))
        assert len(world.sent) == 1
        statuses = sorted(reply.status for reply in replies)
        assert statuses[0] == 200
        assert set(statuses) <= {200, 409}
        ids = {reply.json().get("id", reply.json().get("instance")) for reply in replies}
        assert len({str(found).rpartition("/")[2] for found in ids}) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("steps", range(10))
async def test_a_client_that_leaves_finds_its_reply_under_its_key(steps: int) -> None:
    world = World()
    world.rest._keys = SlowKeys()  # noqa: SLF001 - a slower store

    async def handler(_arguments: dict[str, Any], _relay: object) -> str:
        await asyncio.sleep(0)
        return "done"

    world.handle("billing", "refund", handler)
    client = asyncio.create_task(keyed(world, "k"))
    for _ in range(steps):
        await asyncio.sleep(0)
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    await world.enforcement.close()
    reply = await keyed(world, "k")
    assert (reply.status, reply.json()["status"], len(world.sent)) == (200, "completed", 1)


class FailingKeys(MemoryIdempotency):
    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    async def begin(self, *given: Any) -> Any:  # noqa: ANN401 - as the port
        if self._at == "begin":
            raise ApprovalError("locked")
        return await super().begin(*given)

    async def finish(self, *given: Any) -> None:  # noqa: ANN401 - as the port
        if self._at == "finish":
            raise ApprovalError("locked")
        await super().finish(*given)


async def test_without_a_durable_key_nothing_is_called() -> None:
    world = World()
    world.rest._keys = FailingKeys("begin")  # noqa: SLF001 - a store that fails
    reply = await keyed(world, "k")
    assert (reply.status, reply.code, world.sent) == (503, "approval_unavailable", [])
    assert world.only_record()["stage"] == "hold"


async def test_a_reply_that_cannot_be_kept_still_leaves_and_the_key_stays_spent() -> None:
    world = World()
    world.rest._keys = FailingKeys("finish")  # noqa: SLF001 - a store that fails
    reply = await keyed(world, "k")
    assert (reply.status, len(world.sent)) == (200, 1)
    again = await keyed(world, "k")
    assert (again.status, again.code, len(world.sent)) == (409, "key_running", 1)
    assert again.json()["instance"].endswith(reply.json()["id"])
    assert world.records()[-1]["reason"] == "key_running"


async def test_a_refusal_under_a_key_is_the_reply_too(world: World) -> None:
    bad = b'{"arguments":{"amount":"x"}}'
    first, again = await keyed(world, "k", bad), await keyed(world, "k", bad)
    assert (first.status, again.body) == (400, first.body)
    assert again.headers["content-type"] == "application/problem+json"
    assert orjson.loads(again.body)["code"] == "arguments_invalid"


@pytest.mark.req("GW-07")
@pytest.mark.parametrize("asked", [{}, {"countersign-receipt": "1"}])
@pytest.mark.parametrize(
    ("delivery", "sent"), [("not_sent", ["again"]), ("unknown", []), ("sent", [])]
)
async def test_only_a_call_that_was_not_sent_leaves_its_key_free(
    world: World, delivery: Delivery, sent: list[str], asked: dict[str, str]
) -> None:
    def refuse(_arguments: dict[str, Any], _relay: object) -> str:
        raise UpstreamError("away", delivery=delivery)

    ran: list[str] = []

    def run(_arguments: dict[str, Any], _relay: object) -> str:
        ran.append("again")
        return "done"

    world.handle("billing", "refund", refuse)
    headers = {"idempotency-key": "k", **asked}
    first = await world.call_rest("billing__refund", BODY, headers)
    assert (first.status, first.json()["delivery"]) == (502, delivery)
    world.handle("billing", "refund", run)
    again = await world.call_rest("billing__refund", BODY, headers)
    assert (again.status, ran) == (200 if sent else 502, sent)


@pytest.mark.req("GW-07")
async def test_a_refusal_that_executed_nothing_does_not_spend_its_key() -> None:
    late = [True]

    def answer(_tool: str, _phase: Phase, _document: dict[str, Any]) -> Decision:
        if late.pop() if late else False:
            raise PolicyError("late", code="policy_timeout")
        return PERMIT

    world = World(answer)
    first = await keyed(world, "k")
    assert (first.status, first.code, world.sent) == (503, "policy_timeout", [])
    again = await keyed(world, "k")
    assert (again.status, len(world.sent)) == (200, 1)
