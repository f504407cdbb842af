"""A held call has the authority of who asked for it, and of who is not on their side. No more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.calls.call import Outcome, RecordedOutcome, UpstreamResult
from gateway.core.errors import ApprovalError, AuditError
from gateway.core.kills.kill import Kill, build_kill_set, name_revocation
from gateway.core.policy.decision import Decision, Deny, Phase, Reason
from gateway.core.tokens.token import Ancestor, Claims, Grant
from gateway.dispatch import LEASE_S
from tests.unit.path.test_dispatch import Saboteur, build_sabotaged
from tests.unit.path.world import HOLD, PERMIT, REVISION, Durable, World, build_claims

pytestmark = pytest.mark.req("GW-12")

CALL = b'{"arguments":{"amount":120}}'


def holds(_tool: str, phase: Phase, _document: object) -> Decision:
    return HOLD if phase == "call" else PERMIT


def handed_on(*actors: str) -> dict[str, Any]:
    return {"actors": actors, "depth": len(actors), "max_depth": len(actors)}


async def hold(world: World, claims: Claims | None = None, body: bytes = CALL) -> None:
    await world.launch(claims)
    assert (await world.call_rest("billing__refund", body, claims=claims)).status == 202


async def approved(world: World, claims: Claims | None = None) -> ApprovalRequest:
    await hold(world, claims)
    return await world.vote(await world.held())


@pytest.mark.parametrize(
    "voter", ["refund-bot", "desktop", "planner", "otto", "olga", "lars", "petra"]
)
async def test_nobody_on_the_side_of_who_asked_can_agree(voter: str) -> None:
    world = World(holds)
    world.owners = {"planner": ("petra",)}
    await hold(world, build_claims(client_id="desktop", **handed_on("planner")))
    request = await world.held()
    with pytest.raises(ApprovalError) as caught:
        await world.vote(request, voter)
    assert (caught.value.code, (await world.held()).state) == ("approval_forbidden", "PENDING")
    assert (await world.vote(request, "fiona")).state == "APPROVED"


async def test_who_asked_for_whom_is_kept_with_what_people_agree_to() -> None:
    world = World(holds)
    await hold(world, build_claims(**handed_on("planner", "boss")))
    request = await world.held()
    assert request.actor_chain == ("refund-bot", "planner", "boss")
    others = replace(request, actor_chain=("refund-bot",))
    assert world.desk.binding_of(others) != request.binding


async def test_that_a_call_is_held_is_in_the_log_before_its_caller_is_told() -> None:
    world = World(holds)
    await hold(world)
    assert [record["type"] for record in world.records()] == ["approval.request"]


def suspend(world: World) -> None:
    world.suspended.add("refund-bot")


def cut(world: World) -> None:
    world.cut_runs.add("run-1")


def forget_the_run(world: World) -> None:
    del world.durable.runs._runs["run-1"]  # noqa: SLF001 - as after an old state was put back


def reach_the_deadline(world: World) -> None:
    run = world.durable.runs._runs["run-1"]  # noqa: SLF001 - as it was launched
    late = replace(run, deadline=world.clock.ns // 1_000_000_000)
    world.durable.runs._runs["run-1"] = late  # noqa: SLF001 - time went by


@pytest.mark.req("TOK-11")
@pytest.mark.parametrize("end", [suspend, cut, forget_the_run, reach_the_deadline])
async def test_what_was_approved_is_not_sent_once_nobody_may_ask_for_it(
    end: Callable[[World], None],
) -> None:
    world = World(holds)
    request = await approved(world)
    end(world)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "authority_ended", [])


@pytest.mark.req("TOK-06")
@pytest.mark.parametrize("jti", ["child", "parent", "root-1"])
async def test_what_was_asked_under_a_token_ends_with_each_token_above_it(jti: str) -> None:
    world = World(holds)
    above: dict[str, Any] = {
        "parent_jti": "parent",
        "ancestors": (Ancestor("root-1", (Grant("billing"),)),),
    }
    claims = build_claims(jti="child", **above, **handed_on("planner", "boss"))
    request = await approved(world, claims)
    # Once a token is over the switch has forgotten that it was revoked, and the log has not.
    kill = Kill(id=name_revocation(jti), kind="token", target=jti, at=0, reason="client_asked")
    await world.audit.record(build_kill_set(kill, "o" * 32, lambda name: name))
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, world.sent) == ("STALE", "authority_ended", [])


@pytest.mark.req("TOK-04")
async def test_held_calls_of_a_token_that_may_call_once_are_sent_once() -> None:
    world = World(holds)
    once = build_claims(grants=(Grant("billing", max_calls=1),))
    await world.launch()  # the run itself may do more
    for amount in (b"120", b"130"):
        await hold(world, once, b'{"arguments":{"amount":%b}}' % amount)
    for request in await world.durable.approvals.find():
        await world.vote(request)
        await world.dispatcher.dispatch(request.id)
    states = {request.state for request in await world.durable.approvals.find()}
    assert (states, len(world.sent)) == ({"EXECUTED", "STALE"}, 1)


@pytest.mark.req("POL-01")
async def test_policy_is_told_what_people_agreed_to() -> None:
    world = World(holds)
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    (asked,) = [document for _, phase, document in world.policy.asked if phase == "resume"]
    told = {"id": request.id, "state": "APPROVED", "spec_digest": request.spec_digest}
    assert asked["context"]["approval"] == told


# --- how it ends


async def test_a_held_call_whose_result_is_withheld_was_executed() -> None:
    def withholding(_tool: str, phase: Phase, _document: object) -> Decision:
        if phase == "result":
            return Deny((Reason("secret"),), REVISION)
        return HOLD if phase == "call" else PERMIT

    world = World(withholding, concerns_result=True)
    request = await approved(world)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, after.result) == ("EXECUTED", "withheld", None)
    assert len(world.sent) == 1


async def test_whoever_asked_is_told_the_error_that_the_tool_answered_with() -> None:
    world = World(holds)
    request = await approved(world)
    error = UpstreamResult(error=b'{"code":-1,"message":"closed"}', is_error=True)
    world.handle("billing", "refund", lambda *_: error)
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.result) == ("FAILED", b'{"code":-1,"message":"closed"}')


async def test_of_a_call_that_was_sent_nobody_says_that_it_was_not() -> None:
    durable = Durable()
    world = World(holds, durable=durable)
    request = await approved(world)

    async def fail(outcome: Outcome) -> RecordedOutcome:
        raise AuditError("the disk is gone")

    record_outcome, durable.audit.record_outcome = durable.audit.record_outcome, fail  # type: ignore[method-assign]
    await world.dispatcher.dispatch(request.id)
    after = await world.held()
    assert (after.state, after.outcome, len(world.sent)) == ("DISPATCHED", None, 1)
    durable.audit.record_outcome = record_outcome  # type: ignore[method-assign]
    again = await world.restart(holds)
    await again.dispatcher.sweep()
    await again.dispatcher.close()
    assert ((await world.held()).state, len(world.sent)) == ("UNKNOWN", 1)


async def test_votes_that_the_log_does_not_take_hold_up_a_call_and_charge_nothing() -> None:
    saboteur = Saboteur(1, "before", AuditError("the disk is full"))
    durable = build_sabotaged(saboteur)

    async def vote_on_another() -> None:
        (other,) = [one for one in await durable.approvals.find() if one.state == "PENDING"]
        await world.vote(other)
        saboteur.armed = True

    world = World(holds, durable=durable)
    request = await approved(world)
    await hold(world, body=b'{"arguments":{"amount":130}}')
    move = durable.approvals.move

    async def moving(request_id: str, **given: Any) -> ApprovalRequest | None:  # noqa: ANN401
        moved = await move(request_id, **given)
        if given["target"] == "DISPATCHED":
            await vote_on_another()
        return moved

    durable.approvals.move = moving  # type: ignore[method-assign]
    with pytest.raises(AuditError):
        await world.dispatcher.dispatch(request.id)
    durable.approvals.move = move  # type: ignore[method-assign]
    found = await durable.approvals.get(request.id)
    assert found is not None
    assert (saboteur.struck, found.state, world.sent) == (True, "APPROVED", [])
    assert world.ledger.family("root-1").calls == 0


async def test_a_claim_that_could_not_be_given_back_is_taken_up_when_its_lease_is_over() -> None:
    saboteur = Saboteur(1, "before", ApprovalError("locked"))

    def stumbling(_tool: str, phase: Phase, _document: object) -> Decision:
        if phase == "resume" and not saboteur.struck:
            saboteur.armed = True
            raise RuntimeError("a bug")
        return HOLD if phase == "call" else PERMIT

    world = World(stumbling, durable=build_sabotaged(saboteur))
    request = await approved(world)
    world.dispatcher.schedule(request.id)
    await world.dispatcher.close()
    assert (saboteur.struck, (await world.held()).state) == (True, "CLAIMED")
    world.clock.pass_s(LEASE_S - 1)
    await world.dispatcher.sweep()
    assert (await world.held()).state == "CLAIMED"
    world.clock.pass_s(1)
    await world.dispatcher.sweep()
    await world.dispatcher.close()
    assert ((await world.held()).state, len(world.sent)) == ("EXECUTED", 1)
