"""The switch: in force at once, durable, on record, shared; whatever fails or dies in between."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway import kill_switch
from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.state.memory_kills import MemoryKills
from gateway.core.approvals.declined import Declined
from gateway.core.errors import AuditError, CountersignError
from gateway.core.kills.kill import FEED_STALE, KILLED, REVOKED, Kill
from gateway.kill_switch import STALE_NS, KillSwitch
from tests.fixed import NOW_S, CountingIds, HandClock
from tests.unit.kill.conftest import Place, build_claims
from tests.unit.kill.test_kill_set import build_tool

pytestmark = pytest.mark.req("TOK-06")
CLAIMS = build_claims()


async def test_a_kill_is_in_force_at_once_and_answered_when_durable_and_on_record(
    place: Place,
) -> None:
    switch = await place.start()
    asked = asyncio.ensure_future(
        switch.kill("agent", "worker", by="ann", reason="it writes to strangers")
    )
    await asyncio.sleep(0)
    assert switch.barred(CLAIMS) == KILLED
    done = await asked
    assert await place.stored() == [done] == switch.standing()
    (record,) = place.log.records[2:]
    assert (record["type"], record["kind"], record["target"]) == ("kill.set", "agent", "worker")
    assert "'ann'" not in str(record)
    assert place.log.read_opening(record["seq"], "by") == b"ann"
    assert place.log.read_opening(record["seq"], "reason") == b"it writes to strangers"


async def test_a_lift_is_on_record_before_anything_goes_on(place: Place) -> None:
    switch = await place.start()
    await switch.kill("agent", "worker", by="ann")
    await switch.kill("agent", "worker", by="bob")
    place.log.overload()
    with pytest.raises(AuditError):
        await switch.lift("agent", "worker", by="ann", reason="sorted out")
    assert switch.barred(CLAIMS) == KILLED
    place.log.overload(overloaded_now=False)
    lifted = await switch.lift("agent", "worker", by="ann", reason="sorted out")
    assert isinstance(lifted, list)
    assert len(lifted) == 2
    assert switch.barred(CLAIMS) is None
    assert place.kinds() == ["kill.set", "kill.set", "kill.lift", "kill.lift"]
    assert await place.stored() == []
    again = await switch.lift("agent", "worker", by="ann", reason="again")
    assert isinstance(again, Declined)
    assert again.code == "kill_not_found"


async def test_what_was_revoked_is_not_lifted(place: Place) -> None:
    switch = await place.start()
    await switch.kill("token", "jti-1", reason="client_asked", until=NOW_S + 300)
    assert switch.barred(CLAIMS) == REVOKED
    declined = await switch.lift("token", "jti-1", by="ann", reason="please")
    assert isinstance(declined, Declined)
    assert declined.code == "kill_final"
    (record,) = place.log.records[2:]
    assert (record["type"], record["jti"], record["reason"]) == (
        "token.revoke",
        "jti-1",
        "client_asked",
    )


@pytest.mark.parametrize("broken", ["log", "state", "both"])
async def test_a_kill_is_in_force_whatever_fails_and_kept_when_it_works_again(
    place: Place, broken: str
) -> None:
    switch = await place.start()
    if broken in {"log", "both"}:
        place.log.overload()
    place.store.failing = broken in {"state", "both"}
    with pytest.raises(CountersignError):
        await switch.kill("agent", "worker", by="ann")
    assert switch.barred(CLAIMS) == KILLED
    with pytest.raises(CountersignError):
        await switch.poll()
    assert switch.barred(CLAIMS) == KILLED
    place.log.overload(overloaded_now=False)
    place.store.failing = False
    await switch.poll()
    assert (place.kinds(), len(await place.stored())) == (["kill.set"], 1)
    again = await place.start()
    assert again.barred(CLAIMS) == KILLED


@pytest.mark.parametrize("broken", ["log", "state"])
async def test_what_is_lifted_before_it_could_be_kept_stays_lifted(
    place: Place, broken: str
) -> None:
    switch = await place.start()
    place.log.overload(overloaded_now=broken == "log")
    place.store.failing = broken == "state"
    with pytest.raises(CountersignError):
        await switch.kill("agent", "worker", by="ann")
    place.log.overload(overloaded_now=False)
    place.store.failing = False
    await switch.lift("agent", "worker", by="ann", reason="done")
    await switch.poll()
    assert (switch.barred(CLAIMS), await place.stored()) == (None, [])
    assert place.kinds() == ["kill.set", "kill.lift"]
    assert (await place.start()).barred(CLAIMS) is None


@pytest.mark.parametrize("kept", ["log", "state"])
async def test_a_crash_between_state_and_log_keeps_the_kill(place: Place, kept: str) -> None:
    switch = await place.start()
    if kept == "log":
        place.store.failing = True
    else:
        place.log.overload()
    with pytest.raises(CountersignError):
        await switch.kill("agent", "worker", by="ann", reason="odd")
    # the process dies here; the next one starts over what it left
    place.store.failing = False
    place.log.overload(overloaded_now=False)
    again = await place.start()
    assert again.barred(CLAIMS) == KILLED
    assert place.kinds() == ["kill.set"]
    assert len(await place.stored()) == 1
    third = await place.start()
    assert (third.barred(CLAIMS), place.kinds()) == (KILLED, ["kill.set"])


async def test_a_lift_that_broke_off_before_the_state_is_finished_at_the_next_start(
    place: Place,
) -> None:
    switch = await place.start()
    await switch.kill("agent", "worker", by="ann")
    place.store.failing = True
    with pytest.raises(CountersignError):
        await switch.lift("agent", "worker", by="ann", reason="done")
    assert switch.barred(CLAIMS) == KILLED
    place.store.failing = False
    again = await place.start()
    assert again.barred(CLAIMS) is None
    assert await place.stored() == []
    assert place.kinds() == ["kill.set", "kill.lift"]


async def test_an_old_state_put_back_revives_no_lifted_kill_and_forgets_none(place: Place) -> None:
    switch = await place.start()
    await switch.kill("agent", "worker", by="ann")
    old = await place.stored()
    await switch.lift("agent", "worker", by="ann", reason="done")
    await switch.kill("human", "Olga", by="ann")
    place.store = type(place.store)()
    for kill in old:
        await place.store.put(kill)
    again = await place.start()
    assert again.barred(build_claims(on_behalf_of=None)) is None
    assert again.barred(CLAIMS) == KILLED
    assert again.bars_person("olga")


async def test_a_kill_by_another_process_is_followed_and_its_lift_too(place: Place) -> None:
    other_log = MemoryAuditLog(now_us=lambda: place.clock.ns // 1000)
    one, other = await place.start(), await place.start(other_log)
    await other.kill("agent", "worker", by="ann", reason="odd")
    assert one.barred(CLAIMS) is None
    await one.poll()
    assert one.barred(CLAIMS) == KILLED
    assert place.kinds() == ["kill.set"]
    await other.lift("agent", "worker", by="ann", reason="fine")
    assert one.barred(CLAIMS) == KILLED
    await one.poll()
    assert one.barred(CLAIMS) is None
    assert place.kinds() == ["kill.set", "kill.lift"]
    assert place.log.records[-1]["why"] == "elsewhere"


async def test_a_lift_elsewhere_waits_for_the_log_here(place: Place) -> None:
    one = await place.start()
    other = await place.start(MemoryAuditLog())
    await other.kill("agent", "worker", by="ann")
    await one.poll()
    await other.lift("agent", "worker", by="ann", reason="fine")
    place.log.overload()
    with pytest.raises(AuditError):
        await one.poll()
    assert one.barred(CLAIMS) == KILLED
    place.log.overload(overloaded_now=False)
    await one.poll()
    assert one.barred(CLAIMS) is None


async def test_only_a_kill_with_a_time_of_its_own_ends_by_itself(place: Place) -> None:
    switch = await place.start()
    await switch.kill("agent", "worker", by="ann", until=NOW_S + 60)
    await switch.kill("client", "somebody", by="ann")
    place.clock.pass_s(59)
    await switch.poll()
    assert switch.barred(CLAIMS) == KILLED
    place.clock.pass_s(1)
    assert switch.barred(CLAIMS) == KILLED  # until it is on record
    await switch.poll()
    assert switch.barred(CLAIMS) is None
    assert place.log.records[-1]["why"] == "expired"
    place.clock.pass_s(10**8)
    await switch.poll()
    assert [kill.target for kill in switch.standing()] == ["somebody"]


async def test_a_kill_that_ran_out_while_nothing_ran_is_ended_on_record(place: Place) -> None:
    switch = await place.start()
    await switch.kill("agent", "worker", by="ann", until=NOW_S + 60)
    await switch.kill("token", "jti-1", reason="x", until=NOW_S + 60)
    place.store = type(place.store)()  # a state from before
    place.clock.pass_s(61)
    again = await place.start()
    assert (again.barred(CLAIMS), again.standing()) == (None, [])
    assert place.kinds() == ["kill.set", "token.revoke", "kill.lift"]


async def test_many_revocations_are_read_back_by_nobody_and_forgotten_at_once(
    place: Place,
) -> None:
    switch = await place.start()
    loads = place.store.loads
    for number in range(1_200):
        await switch.kill("token", f"jti-{number}", reason="client_asked", until=NOW_S + 60)
        if number % 100 == 0:
            await switch.poll()
    await switch.poll()
    assert place.store.loads == loads
    assert switch.barred(CLAIMS) == REVOKED
    place.clock.pass_s(60)
    await switch.poll()
    assert (switch.standing(), await place.stored()) == ([], [])
    assert place.store.loads == loads + 1  # by the line above
    other = await place.start(MemoryAuditLog())
    await other.kill("agent", "worker", by="ann")
    await switch.kill("agent", "somebody", by="ann")
    await switch.poll()
    assert switch.barred(CLAIMS) == KILLED


async def test_a_feed_older_than_a_second_stops_effects_and_lets_reads_go_on(place: Place) -> None:
    switch = await place.start()
    refund, lookup = build_tool(), build_tool(name="lookup", effect="read")
    place.store.failing = True
    place.clock.ns += STALE_NS
    assert (switch.barred(CLAIMS, refund), switch.is_stale()) == (None, False)
    place.clock.ns += 1
    with pytest.raises(CountersignError):
        await switch.poll()
    assert switch.barred(CLAIMS, refund) == FEED_STALE
    assert switch.barred(CLAIMS, build_tool(effect="unreviewed")) == FEED_STALE
    assert switch.barred(CLAIMS, lookup) is None
    assert switch.barred(CLAIMS) is None
    assert not switch.bars_tool(CLAIMS, refund)
    assert switch.age_ns > STALE_NS
    place.store.failing = False
    await switch.poll()
    assert switch.barred(CLAIMS, refund) is None


async def test_it_polls_by_itself_until_cancelled_and_says_once_what_fails(place: Place) -> None:
    switch = await place.start()
    other = await place.start(MemoryAuditLog())
    place.store.failing = True
    polling = asyncio.create_task(switch.run())
    async with asyncio.timeout(10):
        while switch.barred(CLAIMS) is None:
            place.store.failing = False
            if not other.standing():
                await other.kill("agent", "worker", by="ann")
            await asyncio.sleep(0.01)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
    await switch.close()


class Histories(RuleBasedStateMachine):
    """Two processes over one state: what was killed and not lifted bars, in both, at all times."""

    @initialize()
    def begin(self) -> None:
        self.clock, self.store = HandClock(), MemoryKills()
        self.logs = [MemoryAuditLog(), MemoryAuditLog()]
        self.switches = [self._build(number) for number in (0, 1)]
        self.starts = 2
        self.killed: set[str] = set()
        self.seen: list[set[str]] = [set(), set()]

    def _build(self, number: int, starts: int = 0) -> KillSwitch:
        switch = KillSwitch(
            store=self.store,
            log=self.logs[number],
            clock=self.clock,
            ids=CountingIds((number + 2 * starts + 1) << 64),
        )
        place = Place()
        place.log = self.logs[number]
        asyncio.run(switch.start(place.recorded()))
        return switch

    @rule(number=st.sampled_from([0, 1]), agent=st.sampled_from("abc"))
    def kill(self, number: int, agent: str) -> None:
        asyncio.run(self.switches[number].kill("agent", agent, by="ann"))
        self.killed.add(agent)
        self.seen[number].add(agent)

    @rule(number=st.sampled_from([0, 1]), agent=st.sampled_from("abc"))
    def lift(self, number: int, agent: str) -> None:
        asyncio.run(self.switches[number].poll())
        done = asyncio.run(self.switches[number].lift("agent", agent, by="bob", reason="fine"))
        assert isinstance(done, Declined) == (agent not in self.killed)
        self.killed.discard(agent)
        self.seen[number] = set(self.killed)

    @rule(number=st.sampled_from([0, 1]))
    def poll(self, number: int) -> None:
        asyncio.run(self.switches[number].poll())
        self.seen[number] = set(self.killed)

    @rule(number=st.sampled_from([0, 1]))
    def restart(self, number: int) -> None:
        self.starts += 1
        self.switches[number] = self._build(number, self.starts)
        self.seen[number] = set(self.killed)

    @invariant()
    def bars_what_it_knows(self) -> None:
        for switch, seen in zip(self.switches, self.seen, strict=True):
            for agent in seen & self.killed:
                assert switch.barred(build_claims(subject=agent)) == KILLED

    @invariant()
    def bars_no_more_than_was_asked(self) -> None:
        for switch, seen in zip(self.switches, self.seen, strict=True):
            for agent in "abc":
                if agent not in seen | self.killed:
                    assert switch.barred(build_claims(subject=agent)) is None


TestHistories = Histories.TestCase


def test_a_kill_says_when_it_is_over() -> None:
    kill = Kill(id="1", kind="agent", target="a", at=NOW_S, until=NOW_S + 1)
    assert [kill.is_over(NOW_S), kill.is_over(NOW_S + 1)] == [False, True]


async def test_a_machine_that_was_busy_looks_once_more_before_it_refuses(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = await place.start()
    asked: list[int | None] = []
    load = place.store.load

    async def counted(revision: int | None) -> tuple[int, list[Kill]] | None:
        asked.append(revision)
        return await load(revision)

    monkeypatch.setattr(place.store, "load", counted)
    refund = build_tool()
    place.clock.pass_s(5)
    assert switch.barred(CLAIMS, refund) == FEED_STALE
    await asyncio.gather(*(switch.look() for _ in range(20)))
    assert switch.barred(CLAIMS, refund) is None
    assert len(asked) == 1  # one look for all who wait
    place.store.failing = True
    place.clock.pass_s(5)
    await switch.look()
    assert switch.barred(CLAIMS, refund) == FEED_STALE


async def test_who_waits_for_a_look_does_not_wait_for_a_state_that_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kill_switch, "LOOK_S", 0.01)
    switch = await place.start()
    place.clock.pass_s(5)
    hanging = asyncio.Event()

    async def hang(_revision: int | None) -> None:
        await hanging.wait()

    monkeypatch.setattr(place.store, "load", hang)
    await switch.look()
    assert switch.barred(CLAIMS, build_tool()) == FEED_STALE
    hanging.set()
    await switch.look()
    assert switch.barred(CLAIMS, build_tool()) is None
