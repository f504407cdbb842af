"""What both stores of held calls promise, example by example."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.approval import (
    ApprovalRequest,
    State,
    Vote,
    build_binding,
    spec_digest,
)
from gateway.core.canonical import digest
from gateway.core.errors import ApprovalError
from gateway.core.policy.decision import ApprovalSpec, Obligation, Reason, Stage
from gateway.core.ports import ApprovalStore
from gateway.core.records.approval_entries import state_event, vote_events
from tests.fixed import FixedClock

Store = SqlApprovals | MemoryApprovals

NOW = 1_800_000_000
TTL = 10
PENDING_MAX = 3
SPEC = ApprovalSpec(stages=((Stage(groups=("manager",)),), (Stage(groups=("finance",)),)))
GROUPS = {
    "ann": ("approver", "manager"),
    "bob": ("approver", "finance"),
    "cid": ("approver", "finance", "manager"),
    "dan": ("approver", "sales"),
    "olga": ("approver", "manager", "finance"),
    "human:Ann": ("approver", "manager"),
}


def build_request(number: int, **changes: Any) -> ApprovalRequest:  # noqa: ANN401 - any field
    arguments = b'{"amount": %d}' % number
    request = ApprovalRequest(
        id=f"{number:032x}",
        op=f"op-{number}",
        state="PENDING",
        version=1,
        agent="bot",
        run_id="run-1",
        root_jti="root-1",
        on_behalf_of="olga",
        launcher="lars",
        server="billing",
        tool="refund",
        tool_id="billing.refund",
        wire_name="billing__refund",
        definition_digest="sha256:dd",
        endpoint_digest="sha256:ee",
        arguments=arguments,
        arguments_digest=digest(arguments),
        join_digest=digest(arguments),
        obligations=(Obligation("redact", {"type": "redact", "paths": ["/iban"]}),),
        reasons=(Reason("large_refund", "more than 100", "refunds"),),
        spec=SPEC,
        spec_digest=spec_digest(SPEC),
        policy_revision="sha256:bb",
        binding="",
        nonce=f"nonce-{number}",
        separation=("bot", "lars", "olga"),
        created_at=NOW,
        expires_at=NOW + TTL,
        claims={"sub": "bot", "grants": [{"server": "billing", "max": 1.5}]},
        meta={"surface": "mcp"},
        actor_chain=("bot",),
        updated_at=NOW,
    )
    request = replace(request, **changes)
    binding = build_binding(request, issuer="i", environment="test", log_origin="o")
    return replace(request, binding=binding)


def build_vote(request: ApprovalRequest, voter: str, decision: str, now_s: int = NOW) -> Vote:
    return Vote(
        request_id=request.id,
        voter=voter,
        decision="approve" if decision == "approve" else "deny",
        binding=request.binding,
        groups=GROUPS[voter],
        reason="because",
        voted_at=now_s,
    )


async def create(store: Store, request: ApprovalRequest) -> ApprovalRequest:
    return await store.create(request, state_event(request, "request", "PENDING"))


async def cast(store: Store, vote: Vote, now_s: int = NOW) -> ApprovalRequest:
    request = await store.get(vote.request_id) or build_request(0)
    number = len(await store.votes(vote.request_id))
    events = vote_events(request, vote, event_id=f"{vote.request_id}:vote:{number}")
    return await store.vote(vote, now_s, events)


async def approve(store: Store, request: ApprovalRequest) -> ApprovalRequest:
    await cast(store, build_vote(request, "ann", "approve"))
    return await cast(store, build_vote(request, "bob", "approve"))


async def move(
    store: Store,
    request: ApprovalRequest,
    target: State,
    token: str | None = "t",
    **changes: Any,  # noqa: ANN401 - any field
) -> ApprovalRequest | None:
    return await store.move(
        request.id,
        source=request.state,
        target=target,
        now_s=NOW,
        event=None,
        claim_token=token,
        changes=changes,
    )


async def types(store: Store) -> list[str]:
    return [event.entry.type for event in await store.outbox()]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture(params=["sql", "memory"])
async def store(
    request: pytest.FixtureRequest, clock: FixedClock, tmp_path: Path
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryApprovals(clock=clock, pending_max=PENDING_MAX)
        return
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="o")
    yield SqlApprovals(state, clock=clock, pending_max=PENDING_MAX)
    await state.close()


def test_both_stores_keep_the_port(store: Store) -> None:
    port: ApprovalStore = store
    assert port is store


@pytest.mark.req("GW-12")
async def test_a_stored_request_comes_back_as_it_was(store: Store) -> None:
    request = build_request(1)
    assert await create(store, request) == request
    assert await store.get(request.id) == request
    assert await types(store) == ["approval.request"]


async def test_a_request_is_found_by_the_operation_that_it_holds(
    store: Store, clock: FixedClock
) -> None:
    request = await create(store, build_request(1))
    await create(store, build_request(2))
    assert await store.get_by_op("op-1") == request
    clock.now_s = NOW + TTL
    expired = await store.get_by_op("op-1")
    assert expired is not None
    assert (expired.id, expired.state) == (request.id, "EXPIRED")


async def test_what_nobody_stored_is_not_there(store: Store) -> None:
    assert await store.get_by_op("nothing") is None
    assert await store.get("nothing") is None
    assert await store.find() == []
    assert await store.votes("nothing") == []


async def test_a_request_starts_pending(store: Store) -> None:
    with pytest.raises(ApprovalError, match="starts `PENDING`"):
        await create(store, build_request(1, state="APPROVED"))


@pytest.mark.req("GW-12")
async def test_a_retry_joins_the_live_request_and_writes_nothing(store: Store) -> None:
    first = await create(store, build_request(1))
    retry = build_request(2, join_digest=first.join_digest)
    assert (await create(store, retry)).id == first.id
    await approve(store, first)
    joined = await create(store, retry)
    assert (joined.id, joined.state) == (first.id, "APPROVED")
    assert (await types(store)).count("approval.request") == 1


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent", "other"),
        ("run_id", "run-2"),
        ("tool_id", "billing.payout"),
        ("join_digest", "sha256:00"),
    ],
)
async def test_another_agent_run_tool_or_argument_joins_nothing(
    field: str, value: str, store: Store
) -> None:
    first = await create(store, build_request(1))
    changes: dict[str, Any] = {"join_digest": first.join_digest, field: value}
    assert (await create(store, build_request(2, **changes))).id != first.id


@pytest.mark.req("GW-12")
async def test_a_decided_or_expired_request_is_joined_by_nobody(store: Store) -> None:
    first = await create(store, build_request(1))
    await cast(store, build_vote(first, "ann", "deny"))
    second = await create(store, build_request(2, join_digest=first.join_digest))
    assert second.id != first.id
    later = NOW + TTL
    third = build_request(
        3, join_digest=first.join_digest, created_at=later, expires_at=later + TTL
    )
    assert (await create(store, third)).id == third.id


@pytest.mark.req("GW-12")
async def test_the_pending_requests_of_one_agent_are_capped_and_none_is_dropped(
    store: Store,
) -> None:
    for number in range(PENDING_MAX):
        await create(store, build_request(number))
    with pytest.raises(ApprovalError) as raised:
        await create(store, build_request(9))
    assert raised.value.code == "too_many_pending"
    await create(store, build_request(10, agent="other"))
    assert len(await store.find(states=["PENDING"])) == PENDING_MAX + 1
    await create(store, build_request(11, created_at=NOW + TTL, expires_at=NOW + 2 * TTL))


@pytest.mark.req("GW-12")
async def test_the_last_vote_needed_approves(store: Store) -> None:
    request = await create(store, build_request(1))
    assert (await cast(store, build_vote(request, "bob", "approve"))).state == "PENDING"
    approved = await cast(store, build_vote(request, "ann", "approve"))
    assert (approved.state, approved.version) == ("APPROVED", 2)
    assert [vote.voter for vote in await store.votes(request.id)] == ["bob", "ann"]
    assert await types(store) == [
        "approval.request",
        "approval.vote",
        "approval.vote",
        "approval.grant",
    ]


@pytest.mark.req("GW-12")
async def test_a_denial_denies(store: Store) -> None:
    request = await create(store, build_request(1))
    assert (await cast(store, build_vote(request, "ann", "deny"))).state == "DENIED"
    assert (await types(store))[-2:] == ["approval.vote", "approval.deny"]


@pytest.mark.req("GW-12")
async def test_the_same_vote_again_is_the_same_vote(store: Store) -> None:
    request = await create(store, build_request(1))
    first = await cast(store, build_vote(request, "ann", "approve"))
    assert await cast(store, build_vote(request, "human:Ann", "approve")) == first
    await cast(store, build_vote(request, "bob", "approve"))
    assert (await cast(store, build_vote(request, "ann", "approve"))).state == "APPROVED"
    assert len(await store.votes(request.id)) == 2
    assert (await types(store)).count("approval.vote") == 2


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    ("voter", "decision", "code"),
    [
        ("ann", "deny", "approval_conflict"),
        ("olga", "approve", "approval_forbidden"),
        ("olga", "deny", "approval_forbidden"),
        ("dan", "approve", "approval_forbidden"),
    ],
)
async def test_a_refused_vote_leaves_no_trace(
    voter: str, decision: str, code: str, store: Store
) -> None:
    request = await create(store, build_request(1))
    await cast(store, build_vote(request, "ann", "approve"))
    before = (await store.get(request.id), await store.votes(request.id), await types(store))
    with pytest.raises(ApprovalError) as raised:
        await cast(store, build_vote(request, voter, decision))
    assert raised.value.code == code
    after = (await store.get(request.id), await store.votes(request.id), await types(store))
    assert after == before


@pytest.mark.req("GW-12")
async def test_a_vote_on_another_binding_is_refused(store: Store) -> None:
    request = await create(store, build_request(1))
    with pytest.raises(ApprovalError) as raised:
        await cast(store, replace(build_vote(request, "ann", "approve"), binding="sha256:00"))
    assert raised.value.code == "approval_conflict"


async def test_a_vote_on_nothing_is_refused(store: Store) -> None:
    with pytest.raises(ApprovalError) as raised:
        await cast(store, build_vote(build_request(7), "ann", "approve"))
    assert raised.value.code == "approval_not_found"


@pytest.mark.req("GW-12")
async def test_a_vote_at_the_second_of_expiry_comes_too_late(store: Store) -> None:
    request = await create(store, build_request(1))
    with pytest.raises(ApprovalError, match="`EXPIRED`"):
        await cast(store, build_vote(request, "ann", "approve"), now_s=NOW + TTL)


@pytest.mark.req("GW-12")
async def test_of_two_votes_at_once_none_is_lost(store: Store) -> None:
    request = await create(store, build_request(1))
    votes = [build_vote(request, name, "approve") for name in ("ann", "bob")]
    events = [
        vote_events(request, vote, event_id=f"vote-{number}") for number, vote in enumerate(votes)
    ]
    states = await asyncio.gather(
        *(store.vote(vote, NOW, event) for vote, event in zip(votes, events, strict=True))
    )
    assert sorted(one.state for one in states) == ["APPROVED", "PENDING"]


@pytest.mark.req("GW-12")
async def test_of_two_claims_at_once_one_wins(store: Store) -> None:
    approved = await approve(store, await create(store, build_request(1)))
    claims = await asyncio.gather(*(move(store, approved, "CLAIMED", token) for token in "ab"))
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    stored = await store.get(approved.id)
    assert stored is not None
    assert (stored.state, stored.claim_token) == ("CLAIMED", winners[0].claim_token)


@pytest.mark.req("GW-12")
async def test_a_call_goes_through_its_whole_life(store: Store) -> None:
    approved = await approve(store, await create(store, build_request(1)))
    claimed = await move(store, approved, "CLAIMED", lease_until=NOW + 5)
    assert claimed is not None
    assert (claimed.claim_token, claimed.lease_until) == ("t", NOW + 5)
    assert await move(store, claimed, "DISPATCHED", "stolen") is None
    dispatched = await move(store, claimed, "DISPATCHED")
    assert dispatched is not None
    executed = await move(store, dispatched, "EXECUTED", outcome="ok", result=b'{"ok":true}')
    assert executed is not None
    assert executed == await store.get(approved.id)
    assert (executed.outcome, executed.result, executed.claim_token) == ("ok", b'{"ok":true}', None)
    assert await move(store, dispatched, "FAILED") is None


async def test_a_lost_lease_gives_the_request_back(store: Store) -> None:
    approved = await approve(store, await create(store, build_request(1)))
    claimed = await move(store, approved, "CLAIMED", lease_until=NOW + 5)
    assert claimed is not None
    released = await move(store, claimed, "APPROVED")
    assert released is not None
    assert (released.claim_token, released.lease_until) == (None, None)
    assert await move(store, claimed, "DISPATCHED") is None
    assert await move(store, released, "CLAIMED", "u") is not None


async def test_a_move_of_nothing_moves_nothing(store: Store) -> None:
    assert await move(store, build_request(5), "CANCELLED") is None


async def test_a_move_writes_its_event_only_when_it_moves(store: Store) -> None:
    request = await create(store, build_request(1))
    event = state_event(request, "cancel", "CANCELLED", by="ann", reason="not now")
    for _ in range(2):
        await store.move(request.id, source="PENDING", target="CANCELLED", now_s=NOW, event=event)
    assert await types(store) == ["approval.request", "approval.cancel"]


@pytest.mark.req("GW-12")
async def test_an_illegal_move_raises_and_changes_nothing(store: Store) -> None:
    request = await create(store, build_request(1))
    for target in ("APPROVED", "DENIED", "CLAIMED", "DISPATCHED", "EXECUTED", "STALE"):
        with pytest.raises(ApprovalError) as raised:
            await move(store, request, target)
        assert raised.value.code == "approval_illegal_move"
    assert await store.get(request.id) == request


@pytest.mark.req("GW-12")
async def test_expiry_is_seen_before_it_is_swept(store: Store, clock: FixedClock) -> None:
    request = await create(store, build_request(1))
    clock.now_s = NOW + TTL
    seen = await store.get(request.id)
    assert seen is not None
    assert seen.state == "EXPIRED"
    assert [one.id for one in await store.find(states=["EXPIRED"])] == [request.id]
    assert await store.find(states=["PENDING"]) == []
    assert [one.state for one in await store.find()] == ["EXPIRED"]


@pytest.mark.req("GW-12")
async def test_the_sweep_expires_what_is_due_and_tells_it_once(
    store: Store, clock: FixedClock
) -> None:
    due = await create(store, build_request(1))
    await approve(store, await create(store, build_request(2)))
    claimed = await move(
        store, await approve(store, await create(store, build_request(3))), "CLAIMED"
    )
    fresh = await create(store, build_request(4, expires_at=NOW + 2 * TTL))
    denied = await create(store, build_request(5))
    await cast(store, build_vote(denied, "ann", "deny"))
    assert claimed is not None
    assert await store.expire_due(NOW + TTL - 1) == []
    swept = await store.expire_due(NOW + TTL)
    assert [one.state for one in swept] == ["EXPIRED"] * 3
    assert await store.expire_due(NOW + TTL) == []
    told = [event.entry for event in await store.outbox() if event.entry.type == "approval.expire"]
    assert sorted(entry.op for entry in told) == ["op-1", "op-2", "op-3"]
    assert (await store.get(fresh.id)) == fresh
    assert due.id in {one.id for one in swept}
    assert await move(store, claimed, "DISPATCHED") is None


async def test_requests_are_found_by_state_oldest_first(store: Store) -> None:
    for number, age in ((1, 2), (2, 3), (3, 1)):
        await create(store, build_request(number, created_at=NOW - age))
    await cast(store, build_vote(build_request(1, created_at=NOW - 2), "ann", "deny"))
    assert [one.op for one in await store.find()] == ["op-2", "op-1", "op-3"]
    assert [one.op for one in await store.find(states=["PENDING"])] == ["op-2", "op-3"]
    assert [one.op for one in await store.find(states=["DENIED", "PENDING"], limit=2)] == [
        "op-2",
        "op-1",
    ]


async def test_requests_are_found_behind_another_whatever_became_of_that(store: Store) -> None:
    for number, age in ((1, 2), (2, 3), (3, 2)):
        await create(store, build_request(number, created_at=NOW - age))
    everything = [one.id for one in await store.find()]
    first = (await store.find())[0]
    await cast(store, build_vote(first, "ann", "deny"))
    behind = await store.find(states=["PENDING"], after=first.id, limit=1)
    assert [one.id for one in behind] == everything[1:2]
    assert [one.id for one in await store.find(after=behind[-1].id)] == everything[2:]
    assert await store.find(after=everything[-1]) == []
    assert await store.find(after="nobody") == []


async def test_relayed_events_are_forgotten_and_the_others_kept_in_order(store: Store) -> None:
    for number in (1, 2, 3):
        await create(store, build_request(number))
    first, second, third = await store.outbox()
    assert [event.entry.op for event in await store.outbox(limit=2)] == ["op-1", "op-2"]
    await store.relayed([second.event_id, "unknown"])
    assert await store.outbox() == [first, third]


@pytest.mark.req("GW-12")
async def test_no_person_and_no_comment_stands_in_a_field(store: Store) -> None:
    request = await create(store, build_request(1))
    await cast(store, build_vote(request, "ann", "deny"))
    vote = (await store.outbox())[1].entry
    assert {opening.path: opening.value for opening in vote.openings} == {
        "voter": b"ann",
        "reason": b"because",
    }
    assert {opening.subject for opening in vote.openings} == {"ann"}
    assert (vote.fields["decision"], vote.fields["stage"]) == ("deny", 1)
    for event in await store.outbox():
        assert event.entry.event_id == event.event_id
        assert "ann" not in str(event.entry.fields)
        assert "because" not in str(event.entry.fields)
