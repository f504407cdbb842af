"""A kill meets a call at each stage that is still ahead of it; nothing is sent after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.calls.call import RawCall
from gateway.core.catalog import Tool
from gateway.core.kills.kill import FEED_STALE, Kill, KillSet, Kind
from gateway.core.policy.decision import Decision, Phase
from gateway.core.tokens.token import Claims
from gateway.dispatch import Step
from tests.fixed import NOW_S
from tests.unit.path.world import DENY, HOLD, PERMIT, World, build_claims

pytestmark = pytest.mark.req("TOK-06")

WHO: list[tuple[Kind, str]] = [
    ("agent", "refund-bot"),
    ("client", "refund-bot"),
    ("human", "olga"),
    ("run", "run-1"),
    ("all", "*"),
]
WHAT: list[tuple[Kind, str]] = [
    ("tool", "billing.refund"),
    ("server", "billing"),
    ("credential", "env:BILLING"),
]
Answer = Callable[[str, Phase, dict[str, Any]], Decision]


class Stoppable(World):
    """A world whose calls can be stopped, and whose look at other processes can grow old."""

    def __init__(
        self,
        answers: Answer | None = None,
        *,
        reached: Callable[[Step], None] = lambda _step: None,
    ) -> None:
        self.kills = KillSet(credentials=lambda server: (f"env:{server.upper()}",))
        self.stale = False
        super().__init__(answers, reached=reached)

    def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
        code = self.kills.find(claims, tool)
        if code is None and self.stale and tool is not None and tool.review.effect != "read":
            return FEED_STALE
        return code

    def stop(self, kind: Kind, target: str) -> None:
        self.kills.add(Kill(id=f"{kind}:{target}", kind=kind, target=target, at=NOW_S))


def stopping(world: list[Stoppable], kind: Kind, target: str, decision: Decision) -> Answer:
    """A policy that answers just after somebody pulled the switch."""

    def answer(_tool: str, _phase: Phase, _document: dict[str, Any]) -> Decision:
        world[0].stop(kind, target)
        return decision

    return answer


@pytest.mark.parametrize(("kind", "target"), [*WHO, *WHAT])
async def test_what_is_stopped_is_not_sent(kind: Kind, target: str) -> None:
    world = Stoppable()
    await world.launch()
    assert (await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')).status == 200
    world.stop(kind, target)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.status, len(world.sent)) == (403, 1)
    assert reply.code == ("killed" if (kind, target) in WHO else "tool_killed")
    (record,) = world.records("call.refused")
    assert record["reason"] == reply.code


@pytest.mark.parametrize(("kind", "target"), [*WHO, *WHAT])
async def test_a_kill_during_the_decision_stops_the_call_and_gives_back_its_charge(
    kind: Kind, target: str
) -> None:
    worlds: list[Stoppable] = []
    worlds.append(Stoppable(stopping(worlds, kind, target, PERMIT)))
    (world,) = worlds
    await world.launch()
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.status, world.sent) == (403, [])
    assert [record["type"] for record in world.records()] == ["call.refused"]
    assert world.records()[0]["stage"] == "call"
    assert world.ledger.family("root-1").calls == 0


@pytest.mark.parametrize(
    ("kind", "target", "code"),
    [("agent", "refund-bot", "killed"), ("tool", "billing.refund", "tool_killed")],
)
async def test_a_kill_during_the_decision_keeps_the_call_from_being_held(
    kind: Kind, target: str, code: str
) -> None:
    worlds: list[Stoppable] = []
    worlds.append(Stoppable(stopping(worlds, kind, target, HOLD)))
    (world,) = worlds
    await world.launch()
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.status, reply.code) == (403, code)
    assert world.only_record()["stage"] == "call"
    assert await world.durable.approvals.find() == []


async def test_a_denial_stays_a_denial() -> None:
    worlds: list[Stoppable] = []
    worlds.append(Stoppable(stopping(worlds, "agent", "refund-bot", DENY)))
    (world,) = worlds
    await world.launch()
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert reply.status == 404  # hidden from lists by the same policy
    assert world.only_record()["reason"] == "forbidden_here"


@pytest.mark.parametrize(("kind", "target"), [("agent", "refund-bot"), ("tool", "billing.refund")])
async def test_a_kill_after_the_intent_closes_it_not_sent(
    kind: Kind, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Stoppable()
    await world.launch()
    stop_after_intent(world, monkeypatch, kind, target)
    reply = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (reply.status, world.sent) == (403, [])
    intent, outcome = world.records()
    assert (intent["type"], outcome["delivery"]) == ("call.intent", "not_sent")
    assert world.ledger.family("root-1").calls == 0


def held(_tool: str, phase: Phase, _document: dict[str, Any]) -> Decision:
    return HOLD if phase == "call" else PERMIT


async def approved(world: Stoppable) -> str:
    await world.launch()
    await world.call_rest("billing__refund", b'{"arguments":{"amount":120}}')
    request = await world.vote(await world.held())
    assert request.state == "APPROVED"
    return request.id


@pytest.mark.parametrize(("kind", "target"), [*WHO, *WHAT])
async def test_an_approved_call_is_not_sent_once_its_agent_or_tool_is_stopped(
    kind: Kind, target: str
) -> None:
    world = Stoppable(held)
    request_id = await approved(world)
    world.stop(kind, target)
    await world.dispatcher.dispatch(request_id)
    after = await world.held()
    assert (after.state, world.sent) == ("STALE", [])
    expected = "authority_ended" if (kind, target) in WHO else "tool_killed"
    assert after.outcome == expected
    assert world.records()[-1]["type"] == "approval.stale"


@pytest.mark.parametrize("step", ["judged", "dispatched", "relayed"])
async def test_a_kill_during_a_dispatch_takes_it_back_and_it_is_let_go_of(step: Step) -> None:
    worlds: list[Stoppable] = []

    def reached(now: Step) -> None:
        if now == step:
            worlds[0].stop("agent", "refund-bot")

    worlds.append(Stoppable(held, reached=reached))
    (world,) = worlds
    request_id = await approved(world)
    await world.dispatcher.dispatch(request_id)
    assert ((await world.held()).state, world.sent) == ("APPROVED", [])
    assert world.records("call.intent") == []
    assert world.ledger.family("root-1").calls == 0
    await world.dispatcher.dispatch(request_id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "authority_ended", [])


async def test_a_kill_after_the_intent_of_a_held_call_closes_it_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Stoppable(held)
    request_id = await approved(world)
    stop_after_intent(world, monkeypatch, "agent", "refund-bot")
    await world.dispatcher.dispatch(request_id)
    assert ((await world.held()).state, world.sent) == ("FAILED", [])
    assert world.records("call.outcome")[0]["delivery"] == "not_sent"


def stop_after_intent(
    world: Stoppable, monkeypatch: pytest.MonkeyPatch, kind: Kind, target: str
) -> None:
    """Pull the switch just when an intent has become durable."""
    record_intent = world.audit.record_intent

    async def record(intent: Any) -> Any:  # noqa: ANN401 - as the twin
        recorded = await record_intent(intent)
        world.stop(kind, target)
        return recorded

    monkeypatch.setattr(world.audit, "record_intent", record)


async def test_an_approved_call_waits_while_nobody_knows_what_is_stopped() -> None:
    world = Stoppable(held)
    request_id = await approved(world)
    world.stale = True
    await world.dispatcher.dispatch(request_id)
    assert ((await world.held()).state, world.sent) == ("APPROVED", [])
    world.stale = False
    await world.dispatcher.dispatch(request_id)
    assert ((await world.held()).state, len(world.sent)) == ("EXECUTED", 1)


async def test_reads_go_on_while_nobody_knows_what_is_stopped_and_effects_do_not() -> None:
    world = Stoppable()
    await world.launch()
    world.stale = True
    refund = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (refund.status, refund.code) == (503, "kill_feed_stale")
    assert (await world.call_rest("billing__lookup", b'{"arguments":{}}')).status == 200
    assert [tool_id for tool_id, _ in world.sent] == ["billing.lookup"]
    assert await names(world) == {"billing.lookup", "billing.refund", "mail.send"}


async def names(world: Stoppable) -> set[str]:
    shown = await world.enforcement.list_tools(listing(world))
    assert isinstance(shown, tuple)
    return {tool.id for tool in shown}


def listing(world: Stoppable) -> RawCall:
    return world.raw(claims=build_claims())


async def test_stopped_tools_are_missing_from_lists_and_come_back_with_the_lift() -> None:
    world = Stoppable()
    await world.launch()
    everything = await names(world)
    world.stop("server", "billing")
    assert await names(world) == {"mail.send"}
    world.kills.remove("server:billing")
    assert await names(world) == everything
    world.stop("all", "*")
    refused = await world.enforcement.list_tools(listing(world))
    assert not isinstance(refused, tuple)
    assert refused.refusal.code == "killed"


async def test_a_call_waits_a_moment_for_a_look_where_the_last_one_is_too_old() -> None:
    world = Stoppable()
    await world.launch()
    world.stale = True

    async def look() -> None:
        world.stale = False

    world.authenticator._look = look  # noqa: SLF001 - as the wiring gives it
    refund = await world.call_rest("billing__refund", b'{"arguments":{"amount":1}}')
    assert (refund.status, len(world.sent)) == (200, 1)
