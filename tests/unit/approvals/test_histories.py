"""Random votes, claims, dispatches, restarts and clocks on one held call, in both stores."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_store import SqlState
from gateway.core.approvals.approval import (
    EXPIRABLE,
    TERMINAL,
    TRANSITIONS,
    ApprovalRequest,
    State,
    Vote,
    is_separated,
    person,
    tally,
)
from gateway.core.errors import ApprovalError
from gateway.core.policy.decision import ApprovalSpec, Stage
from gateway.core.records.approval_entries import state_event, vote_events
from tests.effort import share
from tests.fixed import FixedClock

T = TypeVar("T")

TTL = 10
SPEC = ApprovalSpec(stages=((Stage(groups=("manager",)),), (Stage(groups=("finance",)),)))
GROUPS = {
    "ann": ("manager",),
    "human:Ann": ("manager",),
    "bob": ("finance",),
    "cid": ("finance", "manager"),
    "dan": ("sales",),
    "olga": ("manager", "finance"),
}
MAY_HAVE_BEEN_SENT = {"APPROVED", "CLAIMED", "DISPATCHED", "EXECUTED", "FAILED", "UNKNOWN"}


class Histories(RuleBasedStateMachine):
    """One request in a `MemoryApprovals`."""

    def __init__(
        self, make_request: Callable[..., ApprovalRequest], make_vote: Callable[..., Vote]
    ) -> None:
        super().__init__()
        start = make_request().created_at
        self.request = make_request(spec=SPEC, expires_at=start + TTL)
        self.make_vote = make_vote
        self.loop = asyncio.new_event_loop()
        self.clock = FixedClock(start)
        self.numbers = itertools.count()
        self.ended: ApprovalRequest | None = None
        self.store = self.open()

    def open(self) -> MemoryApprovals | SqlApprovals:
        return MemoryApprovals(clock=self.clock)

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def seen(self) -> ApprovalRequest:
        found = self.run(self.store.get(self.request.id))
        assert found is not None
        return found

    def votes(self) -> list[Vote]:
        return self.run(self.store.votes(self.request.id))

    def recount(self) -> str:
        side, binding = self.request.separation, self.request.binding
        return tally(SPEC, self.votes(), side, binding=binding)

    def told(self) -> int:
        return len(self.run(self.store.outbox(limit=1000)))

    @initialize()
    def hold(self) -> None:
        event = state_event(self.request, "request", "PENDING")
        assert self.run(self.store.create(self.request, event)) == self.request

    @rule(
        voter=st.sampled_from(sorted(GROUPS)),
        decision=st.sampled_from(["approve"] * 5 + ["deny"]),
    )
    def vote(self, voter: str, decision: str) -> None:
        before, votes, told = self.seen(), self.votes(), self.told()
        earlier = [vote.decision for vote in votes if person(vote.voter) == person(voter)]
        vote = self.make_vote(before, voter, decision, *GROUPS[voter])
        events = vote_events(before, vote, event_id=f"vote-{next(self.numbers)}")
        try:
            after = self.run(self.store.vote(vote, self.clock.now_s, events))
        except ApprovalError:
            assert earlier != [decision]
            assert (self.seen(), self.votes(), self.told()) == (before, votes, told)
            return
        if earlier:
            assert (earlier, after, self.told()) == ([decision], before, told)
            return
        assert before.state == "PENDING"
        assert after.state == self.recount()
        assert self.told() == told + (1 if after.state == "PENDING" else 2)

    @rule(to=st.sampled_from(sorted(TRANSITIONS)), mine=st.sampled_from([True, True, False]))
    def move(self, to: State, *, mine: bool) -> None:
        before = self.seen()
        token = f"token-{next(self.numbers)}"
        if before.state in {"CLAIMED", "DISPATCHED"} and mine:
            token = before.claim_token or token
        after = self.try_move(before, to, token)
        if after is None:
            assert self.seen() == before
            return
        assert to in TRANSITIONS[before.state].values()
        assert after.version == before.version + 1
        if before.state in EXPIRABLE:
            assert self.clock.now_s < before.expires_at

    def try_move(self, before: ApprovalRequest, to: State, token: str) -> ApprovalRequest | None:
        work = self.store.move(
            before.id,
            source=before.state,
            target=to,
            now_s=self.clock.now_s,
            event=None,
            claim_token=token,
        )
        try:
            return self.run(work)
        except ApprovalError:
            by_votes = before.state == "PENDING" and to in {"APPROVED", "DENIED"}
            assert by_votes or to not in TRANSITIONS[before.state].values()
            return None

    @rule()
    def sweep(self) -> None:
        before = self.seen()
        self.run(self.store.expire_due(self.clock.now_s))
        assert self.seen().state == before.state

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.now_s += seconds

    @invariant()
    def a_terminal_state_never_changes(self) -> None:
        if self.ended is not None:
            assert self.seen().state == self.ended.state
        elif self.told() and self.seen().state in TERMINAL:
            self.ended = self.seen()

    @invariant()
    def each_person_counts_once_and_none_is_of_the_requester_s_side(self) -> None:
        voters = [person(vote.voter) for vote in self.votes()]
        assert len(voters) == len(set(voters))
        assert not any(is_separated(voter, self.request.separation) for voter in voters)

    @invariant()
    def what_may_have_been_sent_was_approved(self) -> None:
        if self.told() and self.seen().state in MAY_HAVE_BEEN_SENT:
            assert self.recount() == "APPROVED"


class DurableHistories(Histories):
    """One request in a `SqlApprovals`, of which only the database is kept."""

    def open(self) -> MemoryApprovals | SqlApprovals:
        self.state = SqlState("sqlite://")
        self.run(self.state.open(environment="test", log_origin="test/log"))
        return SqlApprovals(self.state, clock=self.clock)

    @rule()
    def restart(self) -> None:
        before = self.seen()
        self.store = SqlApprovals(self.state, clock=self.clock)
        assert self.seen() == before

    def teardown(self) -> None:
        self.run(self.state.close())
        super().teardown()


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(("machine", "examples"), [(Histories, 80), (DurableHistories, 30)])
def test_no_history_breaks_an_invariant(
    machine: type[Histories],
    examples: int,
    make_request: Callable[..., ApprovalRequest],
    make_vote: Callable[..., Vote],
) -> None:
    run_state_machine_as_test(
        lambda: machine(make_request, make_vote),  # type: ignore[arg-type] # any factory will do
        settings=settings(max_examples=share(examples), stateful_step_count=25),
    )
