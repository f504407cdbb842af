"""The votes of somebody who was stopped are void for good, whatever happens afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.adapters.state.memory_kills import MemoryKills
from gateway.core.approvals.approval import Vote
from gateway.core.kills.stopped import StoppedPeople
from gateway.core.policy.decision import Decision, Phase
from gateway.kill_switch import KillSwitch
from tests.fixed import NOW_S
from tests.unit.path.world import HOLD, PERMIT, World

pytestmark = pytest.mark.req("TOK-06")


def held(_tool: str, phase: Phase, _document: dict[str, Any]) -> Decision:
    return HOLD if phase == "call" else PERMIT


class Voters(World):
    """A world in which votes count as a real kill switch lets them."""

    def __init__(self) -> None:
        super().__init__(held)
        self.kills = self.build_switch()

    def build_switch(self, stopped: StoppedPeople | None = None) -> KillSwitch:
        return KillSwitch(
            store=MemoryKills(),
            log=self.audit,
            clock=self.clock,
            ids=self.ids,
            stopped=stopped,
        )

    def standing(self, vote: Vote) -> Vote | None:
        barred = self.kills.bars_person(vote.voter)
        return None if barred or self.kills.voids(vote.voter, vote.voted_at) else vote

    async def stop_for_a_while(self, who: str) -> None:
        await self.kills.kill("human", who, by="opal", reason="a lost laptop")
        await self.kills.lift("human", who, by="opal", reason="found")

    def read_log(self) -> StoppedPeople:
        """What the next start knows."""
        found = StoppedPeople()
        for record in self.audit.records:
            if record["type"] in {"kill.set", "registry.change"}:
                found.fold(record)
        return found


@pytest.fixture
async def voters() -> Voters:
    world = Voters()
    await world.launch()
    await world.call_rest("billing__refund", b'{"arguments":{"amount":120}}')
    return world


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_vote_is_void_although_its_voter_is_let_go_on(
    voters: Voters, *, restarts: bool
) -> None:
    request = await voters.vote(await voters.held())
    await voters.stop_for_a_while("Fiona")  # all names of a person are one
    if restarts:
        voters.kills = voters.build_switch(voters.read_log())
    await voters.dispatcher.dispatch(request.id)
    after = await voters.held()
    assert (after.state, after.outcome, voters.sent) == ("STALE", "votes_missing", [])


@pytest.mark.parametrize("who", ["fiona", "frank"])
async def test_a_vote_after_the_lift_counts_and_so_do_those_of_others(
    voters: Voters, who: str
) -> None:
    await voters.stop_for_a_while(who)
    voters.clock.ns += 1_000_000_000 if who == "fiona" else 0
    request = await voters.vote(await voters.held())
    await voters.dispatcher.dispatch(request.id)
    assert (await voters.held()).state == "EXECUTED"


def change(before: str, after: str, **fields: object) -> Mapping[str, Any]:
    told = {"type": "registry.change", "kind": "human", "entry": "human:k", "step": "applied"}
    return {**told, "ts": NOW_S * 1_000_000, "before": before, "after": after, **fields}


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    ("record", "voids"),
    [
        (change("active", "suspended"), True),
        (change("suspended", "active"), True),
        (change("active", "retired"), True),
        (change("active", "active"), False),
        (change("active", "suspended", step="proposed"), False),
        (change("active", "suspended", kind="agent"), False),
    ],
)
def test_a_suspension_on_record_voids_what_was_voted_until_then(
    record: Mapping[str, Any], *, voids: bool
) -> None:
    stopped = StoppedPeople()
    stopped.fold(record)
    assert stopped.voids("k", NOW_S) is voids
    assert not stopped.voids("k", NOW_S + 1)
    assert not stopped.voids("another", NOW_S)


def test_the_time_of_a_stop_never_goes_back() -> None:
    stopped = StoppedPeople()
    for at_s in (NOW_S, NOW_S - 60):  # a clock set back
        stopped.note("k", at_s)
    assert stopped.voids("k", NOW_S)
