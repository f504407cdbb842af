"""Held calls set free: fresh, once, and to a state that the log proves, whatever dies when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, get_args

import orjson
import pytest
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.core.approvals.approval import ApprovalRequest, State
from gateway.core.calls.call import Intent, Outcome, RecordedIntent, RecordedOutcome, UpstreamResult
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import ApprovalError, AuditError, PolicyError, UpstreamError
from gateway.core.kills.kill import Kill, build_kill_set, name_revocation
from gateway.core.policy.decision import ApprovalSpec, Decision, Obligation, Permit, Phase, Stage
from gateway.core.records.approval_entries import state_event
from gateway.core.tokens.token import Grant
from gateway.dispatch import Step
from tests.unit.path.world import (
    DENY,
    HOLD,
    PERMIT,
    REVISION,
    Durable,
    World,
    build_claims,
    sign,
)

pytestmark = pytest.mark.req("GW-12")

CALL = b'{"amount": 120, "order": "A-7"}'


def holding(resume: Decision | Exception = PERMIT) -> Callable[..., Decision]:
    def answer(_tool: str, phase: Phase, _document: dict[str, Any]) -> Decision:
        if phase == "resume" and isinstance(resume, Exception):
            raise resume
        found = {"call": HOLD, "resume": resume}.get(phase, PERMIT)
        assert not isinstance(found, Exception)
        return found

    return answer


async def approved(world: World) -> ApprovalRequest:
    """One refund, held and approved."""
    await world.launch()
    reply = await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    assert (reply.status, world.sent) == (202, [])
    return await world.vote(await world.held())


async def test_an_approved_call_is_sent_once_with_its_very_bytes() -> None:
    world = World(holding())
    request = await approved(world)
    await asyncio.gather(*(world.dispatcher.dispatch(request.id) for _ in range(5)))
    await world.dispatcher.dispatch(request.id)
    assert world.sent == [("billing.refund", CALL)]
    after = await world.held()
    assert (after.state, after.outcome) == ("EXECUTED", "ok")
    kinds = [record["type"] for record in world.records()]
    assert kinds == [
        "approval.request",
        "approval.vote",
        "approval.grant",
        "call.intent",
        "call.outcome",
    ]
    intent = world.records("call.intent")[0]
    assert (intent["op"], intent["approval"]) == (request.op, request.id)
    assert intent["surface"] == "approval"
    assert world.ledger.family("root-1").calls == 1
    key = world.durable.transports["billing"].sent[0].intent.idempotency_key
    assert key == request.op


async def test_a_call_still_held_by_the_same_people_goes_and_by_others_does_not() -> None:
    world = World(holding(HOLD))
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    assert (await world.held()).state == "EXECUTED"
    others = replace(HOLD, approval=ApprovalSpec(((Stage(groups=("legal",)),),)))
    world = World(holding(others))
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "approval_spec_changed", [])
    assert world.ledger.family("root-1").calls == 0
    assert world.records()[-1]["type"] == "approval.stale"


async def end_run(world: World) -> None:
    await world.durable.runs.end_run("run-1")


async def revoke(world: World) -> None:
    world.revoked.add("run-1")


async def pass_deadline(world: World) -> None:
    run = await world.durable.runs.get_run("run-1")
    assert run is not None
    world.durable.runs._runs["run-1"] = replace(run, deadline=0)  # noqa: SLF001 - time went by


async def narrow_grants(world: World) -> None:
    run = await world.durable.runs.get_run("run-1")
    assert run is not None
    world.durable.runs._runs["run-1"] = replace(run, grants=(Grant("mail"),))  # noqa: SLF001


async def forget_revocation(world: World) -> None:
    """Revoke the token. Once it is over the switch has forgotten that, and the log has not."""
    jti = (await world.held()).claims["jti"]
    kill = Kill(id=name_revocation(jti), kind="token", target=jti, at=0, reason="client_asked")
    await world.audit.record(build_kill_set(kill, "o" * 32, lambda name: name))


async def change_definition(world: World) -> None:
    transport = world.durable.transports["billing"]
    changed = orjson.loads(transport.definitions[1])
    changed["description"] = "pays anybody"
    transport.definitions[1] = orjson.dumps(changed)


async def move_endpoint(world: World) -> None:
    world.dispatcher._endpoints["billing"] = "sha256:elsewhere"  # type: ignore[index]  # noqa: SLF001


def tamper(**changes: object) -> Callable[[World], Any]:
    async def change(world: World) -> None:
        request = await world.held()
        altered = replace(request, **changes)
        world.durable.approvals._requests[request.id] = altered  # noqa: SLF001 - with the disk

    return change


FRESHNESS: list[tuple[str, Callable[[World], Any], str]] = [
    ("run ended", end_run, "authority_ended"),
    ("run revoked", revoke, "authority_ended"),
    ("token revoked and over", forget_revocation, "authority_ended"),
    ("deadline passed", pass_deadline, "authority_ended"),
    ("grant gone", narrow_grants, "tool_unknown"),
    ("definition changed", change_definition, "tool_unknown"),
    ("endpoint moved", move_endpoint, "endpoint_changed"),
    ("arguments altered", tamper(arguments=b'{"amount":9999}'), "binding_broken"),
    ("digest altered", tamper(arguments_digest="sha256:0"), "binding_broken"),
    ("tool altered", tamper(tool_id="mail.send"), "binding_broken"),
    ("definition altered", tamper(definition_digest="sha256:0"), "binding_broken"),
    ("obligations altered", tamper(obligations=(Obligation("a", {}),)), "binding_broken"),
    (
        "claims altered",
        tamper(claims={"subject": "somebody-else", "run_id": "run-1"}),
        "binding_broken",
    ),
]


@pytest.mark.parametrize(
    ("change", "reason"),
    [(change, reason) for _, change, reason in FRESHNESS],
    ids=[name for name, _, _ in FRESHNESS],
)
async def test_what_is_no_longer_what_people_agreed_to_is_not_sent(
    change: Callable[[World], Any], reason: str
) -> None:
    world = World(holding())
    request = await approved(world)
    await change(world)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", reason, [])
    assert world.ledger.family("root-1").calls == 0


async def test_a_definition_that_was_approved_anew_needs_people_anew() -> None:
    world = World(holding())
    request = await approved(world)
    await change_definition(world)
    again = World(holding(), durable=world.durable)  # its catalog pins what is offered now
    await again.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "definition_changed", [])


async def test_nobody_may_approve_means_nobody_waits() -> None:
    nobody = replace(HOLD, approval=ApprovalSpec(((Stage(groups=("legal",)),),)))
    world = World(lambda *_: nobody)
    await world.launch()
    reply = await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    assert (reply.status, reply.code) == (403, "no_eligible_approver")
    assert world.only_record()["stage"] == "hold"


async def test_the_name_on_the_wire_may_move_but_never_to_another_tool() -> None:
    world = World(holding())
    request = await approved(world)
    await tamper(wire_name="mail__send")(world)
    await world.dispatcher.dispatch(request.id)
    assert world.sent in ([], [("billing.refund", CALL)])


@pytest.mark.parametrize(
    ("resume", "reason"),
    [
        (DENY, "policy_denies"),
        (
            Permit((), (Obligation("annotate", {"type": "annotate"}),), REVISION),
            "obligations_changed",
        ),
    ],
)
async def test_policy_may_change_its_mind(resume: Decision, reason: str) -> None:
    world = World(holding(resume))
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", reason, [])
    assert world.ledger.family("root-1").calls == 0
    asked = world.policy.asked[-1]
    assert asked[2]["context"]["approval"]["id"] == request.id


@pytest.mark.parametrize(
    "trouble",
    [PolicyError("late", code="policy_timeout"), PolicyError("gone"), RuntimeError("a bug")],
)
async def test_while_policy_cannot_be_asked_an_approval_is_not_lost(trouble: Exception) -> None:
    world = World(holding(trouble))
    request = await approved(world)
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    assert ((await world.held()).state, world.sent) == ("APPROVED", [])
    again = await world.restart(holding())
    await again.dispatcher.sweep()
    await again.dispatcher.close()
    assert ((await world.held()).state, world.sent) == ("EXECUTED", [("billing.refund", CALL)])


async def test_while_the_server_is_away_an_approval_waits() -> None:
    world = World(holding())
    request = await approved(world)
    await world.durable.transports["billing"].close()
    await world.dispatcher.dispatch(request.id)
    assert (await world.held()).state == "APPROVED"
    await world.durable.transports["billing"].start()
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert (await world.held()).state == "EXECUTED"


async def test_of_all_that_wait_for_a_server_that_is_away_one_asks_whether_it_is_back() -> None:
    class Asking(World):
        asked = 0

        async def refresh(self, server: str) -> UpstreamError | None:
            self.asked += 1
            return await super().refresh(server)

    world = Asking(holding())
    await world.launch()
    for amount in (120, 130, 140):
        await world.call_rest("billing__refund", b'{"arguments":{"amount":%d}}' % amount)
    await world.durable.transports["billing"].close()
    for request in await world.durable.approvals.find():
        await world.vote(request)
        await world.dispatcher.dispatch(request.id)
    world.asked = 0
    for _ in range(4):
        await world.dispatcher.sweep()
        await world.dispatcher.close()
    assert (world.asked, world.sent) == (4, [])
    await world.durable.transports["billing"].start()
    for _ in range(2):
        await world.dispatcher.sweep()
        await world.dispatcher.close()
    assert len(world.sent) == 3


async def test_the_expiry_of_the_token_is_no_bar_and_that_of_the_approval_is() -> None:
    world = World(holding())
    request = await approved(world)
    world.clock.pass_s(400)  # the token lived 280 s
    await world.dispatcher.dispatch(request.id)
    assert (await world.held()).state == "EXECUTED"
    world = World(holding())
    request = await approved(world)
    world.clock.pass_s(900)
    await world.dispatcher.dispatch(request.id)
    await world.dispatcher.sweep()
    assert ((await world.held()).state, world.sent) == ("EXPIRED", [])
    assert world.records()[-1]["type"] == "approval.expire"


async def test_an_approval_that_expires_while_it_is_judged_is_not_sent() -> None:
    late = Durable()

    def reached(step: Step) -> None:
        if step == "judged":
            late.clock.pass_s(900)

    world = World(holding(), durable=late, reached=reached)
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    assert ((await world.held()).state, world.sent) == ("EXPIRED", [])
    assert world.ledger.family("root-1").calls == 0


@pytest.mark.parametrize(
    ("answer", "state", "outcome"),
    [
        ("done", "EXECUTED", "ok"),
        (UpstreamResult(result=b'{"content":[]}', is_error=True), "FAILED", "tool_error"),
        (UpstreamResult(error=b'{"code":-1}', is_error=True), "FAILED", "tool_error"),
        (UpstreamError("slow", delivery="unknown"), "UNKNOWN", "failed"),
        (UpstreamError("down", delivery="not_sent"), "FAILED", "not_sent"),
        (UpstreamError("html", delivery="sent", code="upstream_protocol"), "FAILED", "failed"),
    ],
)
async def test_the_state_says_how_it_ended(answer: object, state: str, outcome: str) -> None:
    world = World(holding())
    request = await approved(world)

    def handler(_arguments: dict[str, Any], _relay: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    world.handle("billing", "refund", handler)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome) == (state, outcome)
    assert (world.records()[-1]["type"] == "approval.unknown") == (state == "UNKNOWN")
    # What a restart reads from the log is what was said live.
    world.durable.approvals._requests[request.id] = replace(  # noqa: SLF001 - killed before the move
        after, state="DISPATCHED", claim_token="t"
    )
    await world.restart(holding())
    again = await world.held()
    assert again.state == state
    if state != "UNKNOWN":
        assert again.outcome == outcome


async def test_a_call_that_only_its_agent_may_redeem_is_not_taken_up() -> None:
    redeem = replace(HOLD, approval=replace(HOLD.approval, execute="on_redeem"))
    world = World(lambda *_: redeem)
    await approved(world)
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert ((await world.held()).state, world.sent) == ("APPROVED", [])


async def test_what_is_not_approved_is_not_dispatched() -> None:
    world = World(holding())
    await world.launch()
    await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    held = await world.held()
    await world.dispatcher.dispatch(held.id)
    await world.dispatcher.dispatch("no such request")
    assert ((await world.held()).state, world.sent) == ("PENDING", [])
    await world.vote(held, decision="deny")
    await world.dispatcher.dispatch(held.id)
    assert ((await world.held()).state, world.sent) == ("DENIED", [])


async def test_the_same_call_again_joins_the_one_that_waits() -> None:
    world = World(holding())
    await world.launch()
    bodies = [b'{"arguments":%b}' % CALL, b'{"arguments":{"order":"A-7","amount":120.0}}']
    replies = [await world.call_rest("billing__refund", body) for body in bodies]
    assert replies[0].json()["approval_id"] == replies[1].json()["approval_id"]
    assert replies[0].headers["location"] == replies[1].headers["location"]


async def test_a_call_that_was_refused_because_the_log_could_not_tell_of_it_does_not_wait() -> None:
    world = World(holding())
    await world.launch()
    world.durable.audit.overload()
    refused = await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    assert (refused.status, refused.code) == (503, "audit_overloaded")
    world.durable.audit.overload(overloaded_now=False)
    held = await world.held()
    with pytest.raises(ApprovalError):
        await world.vote(held)
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert ((await world.held()).state, world.sent) == ("CANCELLED", [])
    kinds = [record["type"] for record in world.records()]
    assert kinds == ["approval.request", "approval.cancel"]
    again = await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    assert again.status == 202
    assert again.json()["approval_id"] != held.id


# --- crashes


class KilledError(BaseException):
    """The process is gone: nothing after this runs."""


class Saboteur:
    """Counts the durable steps of a dispatch and dies, or fails, before or after one of them."""

    def __init__(self, at: int, when: str, error: BaseException) -> None:
        self.at, self.when, self.error = at, when, error
        self.count = 0
        self.armed = False
        self.struck = False

    async def around(self, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the step returns
        if not self.armed:
            return await step()
        self.count += 1
        mine = self.count == self.at
        if mine and self.when == "before":
            self.struck = True
            raise self.error
        found = await step()
        if mine:
            self.struck = True
            raise self.error
        return found


class SabotagedAudit(MemoryAuditLog):
    saboteur: Saboteur

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        step = super().record_intent
        return await self.saboteur.around(lambda: step(intent))  # type: ignore[no-any-return]

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        step = super().record_outcome
        return await self.saboteur.around(lambda: step(outcome))  # type: ignore[no-any-return]

    async def record(self, entry: Entry) -> Receipt:
        step = super().record
        return await self.saboteur.around(lambda: step(entry))  # type: ignore[no-any-return]


class SabotagedStore(MemoryApprovals):
    saboteur: Saboteur

    async def move(self, request_id: str, **given: Any) -> ApprovalRequest | None:  # noqa: ANN401
        step = super().move
        return await self.saboteur.around(lambda: step(request_id, **given))  # type: ignore[no-any-return]

    async def get(self, request_id: str) -> ApprovalRequest | None:
        step = super().get
        return await self.saboteur.around(lambda: step(request_id))  # type: ignore[no-any-return]

    async def relayed(self, event_ids: Any) -> None:  # noqa: ANN401 - ids
        step = super().relayed
        await self.saboteur.around(lambda: step(event_ids))


def build_sabotaged(saboteur: Saboteur) -> Durable:
    log = SabotagedAudit()
    log.saboteur = saboteur
    durable = Durable(log)
    store = SabotagedStore(clock=durable.clock)
    store.saboteur = saboteur
    durable.approvals = store
    return durable


async def settle(world: World) -> ApprovalRequest:
    """Start again over what is left, as often as it takes, and let the sweep do its work."""
    for _ in range(3):
        world = await world.restart(holding())
        await world.dispatcher.sweep()
        await world.dispatcher.close()
    return await world.held()


def check_end(world: World, after: ApprovalRequest) -> None:
    """At most one effect; every effect has its intent; the state is what the log proves."""
    intents = world.records("call.intent")
    outcomes: Mapping[int, Any] = {r["intent"]: r for r in world.records("call.outcome")}
    assert len(world.sent) <= 1
    assert len(intents) <= 1
    assert len(world.sent) <= len(intents)
    if not intents:
        assert after.state not in {"EXECUTED", "FAILED", "UNKNOWN"}
    elif intents[0]["seq"] in outcomes:
        assert after.state == "EXECUTED"
        assert outcomes[intents[0]["seq"]]["status"] == "ok"
    else:
        assert after.state == "UNKNOWN"
    events = [record["event"] for record in world.records() if "event" in record]
    assert len(events) == len(set(events))


@pytest.mark.parametrize("step", get_args(Step))
async def test_killed_at_any_named_step_it_ends_as_the_log_says(step: Step) -> None:
    def reached(at: Step) -> None:
        if at == step:
            raise KilledError

    world = World(holding(), reached=reached)
    request = await approved(world)
    with pytest.raises(KilledError):
        await world.dispatcher.dispatch(request.id)
    after = await settle(world)
    check_end(world, after)
    assert after.state == "EXECUTED"  # no step left doubt about what was sent
    assert len(world.sent) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, 14))
async def test_killed_around_any_durable_step_there_is_at_most_one_effect(
    at: int, when: str
) -> None:
    saboteur = Saboteur(at, when, KilledError())
    world = World(holding(), durable=build_sabotaged(saboteur))
    request = await approved(world)
    saboteur.armed = True
    try:
        await world.dispatcher.dispatch(request.id)
    except KilledError:
        assert saboteur.struck
    saboteur.armed = False
    after = await settle(world)
    check_end(world, after)
    assert after.state in {"EXECUTED", "UNKNOWN"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "error",
    [AuditError("disk"), AuditError("busy", code="audit_overloaded"), ApprovalError("locked")],
    ids=["audit", "overloaded", "store"],
)
@pytest.mark.parametrize("at", range(1, 14))
async def test_a_failing_log_or_store_never_makes_a_second_effect(
    at: int, error: Exception, when: str
) -> None:
    saboteur = Saboteur(at, when, error)
    world = World(holding(), durable=build_sabotaged(saboteur))
    request = await approved(world)
    saboteur.armed = True
    world.dispatcher.schedule(request.id)
    world.dispatcher.schedule(request.id)  # once at a time
    await world.dispatcher.close()
    saboteur.armed = False
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    after = await settle(world)
    assert len(world.sent) <= 1
    assert len(world.sent) <= len(world.records("call.intent"))
    if world.sent:
        assert after.state in {"EXECUTED", "UNKNOWN", "FAILED"}
    assert after.state not in {"CLAIMED", "DISPATCHED"}


async def test_a_log_that_fails_before_the_intent_gives_the_approval_back_at_once() -> None:
    saboteur = Saboteur(1, "before", AuditError("busy", code="audit_overloaded"))
    durable = build_sabotaged(saboteur)

    def reached(step: Step) -> None:
        saboteur.armed = step == "claimed"

    world = World(holding(), durable=durable, reached=reached)
    request = await approved(world)
    # A vote event waits in the outbox, so that the relay at dispatch has something to write.
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    assert saboteur.struck
    assert ((await durable.approvals.get(request.id)).state, world.sent) == ("APPROVED", [])  # type: ignore[union-attr]
    assert world.ledger.family("root-1").calls == 0
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert ((await world.held()).state, len(world.sent)) == ("EXECUTED", 1)


async def test_a_store_that_fails_before_the_point_of_no_return_costs_nothing() -> None:
    saboteur = Saboteur(1, "before", ApprovalError("locked"))
    durable = build_sabotaged(saboteur)

    def reached(step: Step) -> None:
        saboteur.armed = step == "judged"

    world = World(holding(), durable=durable, reached=reached)
    request = await approved(world)
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    assert saboteur.struck
    assert ((await durable.approvals.get(request.id)).state, world.sent) == ("APPROVED", [])  # type: ignore[union-attr]
    assert world.ledger.family("root-1").calls == 0
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert ((await world.held()).state, len(world.sent)) == ("EXECUTED", 1)
    assert world.ledger.family("root-1").calls == 1


async def test_a_store_that_fails_after_the_call_was_sent_takes_its_result_once_it_works() -> None:
    saboteur = Saboteur(1, "before", ApprovalError("locked"))
    durable = build_sabotaged(saboteur)

    def reached(step: Step) -> None:
        saboteur.armed = step == "executed"

    world = World(holding(), durable=durable, reached=reached)
    request = await approved(world)
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    assert saboteur.struck
    assert (await world.held()).state == "DISPATCHED"
    await world.dispatcher.sweep()
    reply = await world.request("GET", f"/v1/calls/{request.op}", token=sign(build_claims()))
    assert reply.json()["status"] == "completed"
    assert "refunded" in str(reply.json()["result"])
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert len(world.sent) == 1
    assert world.ledger.family("root-1").calls == 1


async def test_a_call_that_was_stopped_while_the_store_failed_is_looked_at_again() -> None:
    saboteur = Saboteur(1, "before", ApprovalError("locked"))
    durable = build_sabotaged(saboteur)

    def reached(step: Step) -> None:
        if step == "relayed" and not saboteur.struck:
            saboteur.armed = True
            world.revoked.add("run-1")

    world = World(holding(), durable=durable, reached=reached)
    request = await approved(world)
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    assert ((await world.held()).state, world.sent) == ("DISPATCHED", [])
    world.revoked.clear()
    for _ in range(2):  # it is given back, then taken up
        await world.dispatcher.sweep()
        await world.dispatcher.close()
    assert ((await world.held()).state, len(world.sent)) == ("EXECUTED", 1)
    assert world.ledger.family("root-1").calls == 1


async def test_an_approved_call_whose_intent_fits_into_no_record_ends() -> None:
    labels = [f"label{number:03}" + "x" * 56 for number in range(250)]
    parts = [tuple(labels[at : at + 16]) for at in range(0, 250, 16)]
    duties = tuple(
        Obligation("add_label", {"type": "add_label", "labels": list(part)}) for part in parts
    )
    hold = replace(HOLD, obligations=duties)
    world = World({("billing.refund", "call"): hold, ("billing.refund", "resume"): hold})
    request = await approved(world)
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("FAILED", "not_sent", [])
    assert world.ledger.family("root-1").calls == 0


async def test_dispatch_ends_before_the_gateway_does() -> None:
    world = World(holding())
    request = await approved(world)
    gate = asyncio.Event()

    async def handler(_arguments: dict[str, Any], _relay: object) -> str:
        await gate.wait()
        return "done"

    world.handle("billing", "refund", handler)
    world.dispatcher.schedule(request.id)
    closing = asyncio.create_task(world.dispatcher.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    assert (await world.held()).state == "EXECUTED"


# --- asking after a held call


async def test_only_the_agent_and_run_that_asked_learn_of_a_held_call() -> None:
    world = World(holding())
    await world.launch()
    await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    held = await world.held()
    arguments = orjson.dumps({"approval_id": held.id})
    name = "countersign_approval_status"
    own = await world.call_mcp(name, arguments)
    assert own.json()["result"]["structuredContent"]["status"] == "pending_approval"
    strangers = [
        build_claims(subject="other-bot"),
        build_claims(run_id="run-2"),
        build_claims(subject="other-bot", client_id="refund-bot", on_behalf_of="olga"),
    ]
    unknown = await world.call_mcp(name, orjson.dumps({"approval_id": "0" * 32}))
    for claims in strangers:
        reply = await world.call_mcp(name, arguments, claims=claims)
        assert reply.code == unknown.code == "approval_not_found"
        path = f"/v1/calls/{held.op}"
        assert (await world.request("GET", path, token=sign(claims))).status == 404
    assert len(world.records("call.refused")) == 2 * len(strangers) + 1


async def test_asking_wakes_up_when_the_call_ends() -> None:
    world = World(holding())
    request = await approved(world)
    asking = asyncio.create_task(world.desk.status(build_claims(), request.id, 20))
    await asyncio.sleep(0)
    world.dispatcher.schedule(request.id)
    found = await asking
    assert found is not None
    assert found.state == "EXECUTED"
    await world.dispatcher.close()
    assert await world.desk.status(build_claims(), request.id, 20) == await world.held()
    assert await world.desk.status(build_claims(), "nothing", 20) is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (b"{}", "arguments_invalid"),
        (b'{"approval_id":5}', "arguments_invalid"),
        (b'{"approval_id":"x","wait_seconds":true}', "arguments_invalid"),
        (b'{"approval_id":"x","wait_seconds":-1}', "arguments_invalid"),
        (b'{"approval_id":"x","wait_seconds":"5"}', "arguments_invalid"),
        (b'{"approval_id":"x"}', "approval_not_found"),
    ],
)
async def test_asking_wrongly_leaves_a_record_and_reads_nothing(
    world: World, arguments: bytes, code: str
) -> None:
    reply = await world.call_mcp("countersign_approval_status", arguments)
    assert reply.code == code
    assert world.only_record()["reason"] == code


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"state": "DENIED"}, "denied", "an approver denied"),
        ({"state": "EXPIRED"}, "expired", "in time"),
        ({"state": "CANCELLED"}, "cancelled", "cancelled"),
        ({"state": "STALE"}, "stale", "changed after approval"),
        ({"state": "UNKNOWN"}, "unknown", "do not repeat"),
        ({"state": "FAILED"}, "failed", "answered with an error"),
        ({"state": "FAILED", "result": b'{"code":1}'}, "failed", "answered with an error"),
        ({"state": "FAILED", "result": b'{"code":1e400}'}, "failed", "answered with an error"),
        ({"state": "FAILED", "outcome": "tool_error"}, "failed", "answered with an error"),
        ({"state": "FAILED", "outcome": "failed"}, "failed", "may have run"),
        ({"state": "UNKNOWN", "outcome": "failed"}, "unknown", "do not repeat"),
        ({"state": "FAILED", "outcome": "not_sent"}, "failed", "not executed; ask again"),
        ({"state": "FAILED", "outcome": "resolved_not_ran"}, "failed", "not executed; ask again"),
        ({"state": "EXECUTED", "outcome": "withheld"}, "executed", "does not allow its result"),
        ({"state": "EXECUTED", "outcome": "ok"}, "executed", "result is not kept"),
    ],
)
async def test_how_an_ended_call_is_told(changes: dict[str, Any], status: str, says: str) -> None:
    world = World(holding())
    await world.launch()
    await world.call_rest("billing__refund", b'{"arguments":%b}' % CALL)
    await tamper(**changes)(world)
    held = await world.held()
    arguments = orjson.dumps({"approval_id": held.id})
    result = (await world.call_mcp("countersign_approval_status", arguments)).json()["result"]
    assert result["isError"] is True
    assert result["structuredContent"] == {"status": status, "approval_id": held.id}
    assert says in result["content"][0]["text"]


async def test_the_result_of_an_executed_call_is_told_as_it_came() -> None:
    world = World(holding())
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    arguments = orjson.dumps({"approval_id": request.id})
    result = (await world.call_mcp("countersign_approval_status", arguments)).json()["result"]
    assert result["content"] == [{"type": "text", "text": "refunded"}]
    await tamper(state="FAILED", result=b'{"content":[],"isError":true}')(world)
    result = (await world.call_mcp("countersign_approval_status", arguments)).json()["result"]
    assert (result["content"], result["isError"]) == ([], True)


@pytest.mark.req("GW-12", "GW-18")
async def test_votes_that_the_log_does_not_know_free_nothing() -> None:
    world = World(holding())
    request = await approved(world)  # as if written into the store by somebody with the disk
    events = await world.durable.approvals.outbox()
    await world.durable.approvals.relayed([event.event_id for event in events])
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "approval_unrecorded", [])


@pytest.mark.req("GW-12", "GW-18")
@pytest.mark.parametrize("end", ["DENIED", "CANCELLED", "EXPIRED", "STALE", "UNKNOWN"])
async def test_a_request_that_the_log_saw_ending_is_not_revived(end: State) -> None:
    world = World(holding())
    request = await approved(world)
    told = state_event(request, "cancel", end)
    await world.audit.record(replace(told.entry, event_id=told.event_id))
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "already_ended", [])
