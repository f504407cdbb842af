"""Notices: in the log before anybody is told, then delivered; no call waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.core.calls.answer import Completed
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError
from gateway.core.policy.decision import Decision, Hold, Obligation, Permit, Phase, Reason
from gateway.core.records.notice_records import Notice, PendingNotices
from gateway.notices import ATTEMPTS, NoticeDesk
from tests.unit.path.world import HOLD, PERMIT, REVISION, World

pytestmark = pytest.mark.req("POL-01")

NOTIFY = (Obligation("notify", {"type": "notify", "channel": "security"}),)
TELLS = Permit((Reason("fine", "", "house"),), NOTIFY, REVISION)


class Address:
    """Takes notices after so many failures."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.asked: list[Notice] = []

    async def __call__(self, notice: Notice) -> bool:
        self.asked.append(notice)
        return len(self.asked) > self.failures


async def settle(world: World) -> None:
    """Let everything under way come to its end."""
    for _ in range(200):
        await asyncio.sleep(0)
    del world


def at(phase: str, decision: Decision) -> Any:  # noqa: ANN401 - an answerer
    return lambda _tool, asked, _document: decision if asked == phase else PERMIT


async def send(world: World) -> None:
    answer = await world.enforcement.call(world.raw("mail__send", b'{"to":"canary"}'))
    assert isinstance(answer, Completed)
    await settle(world)


def desk(world: World, address: Any) -> NoticeDesk:  # noqa: ANN401 - as `Deliver`
    """A desk that does not pause."""

    async def pause(_seconds: float) -> None:
        await asyncio.sleep(0)

    return NoticeDesk(audit=world.audit, ids=world.ids, deliver=address, pause=pause)


async def test_a_notice_says_who_did_what_and_why_and_no_argument() -> None:
    address = Address()
    world = World(at("call", TELLS), deliver=address)
    await send(world)
    (record,) = world.records("notify")
    (end,) = world.records("notify.end")
    (notice,) = address.asked
    assert record["op"] == end["op"] == world.records("call.intent")[0]["op"]
    assert record["notice"] == end["notice"] == notice.id
    assert (record["channel"], record["phase"]) == ("security", "call")
    assert record["actor"]["agent"] == "refund-bot"
    assert record["tool"]["id"] == "mail.send"
    assert record["decision"]["reasons"] == ["house:fine"]
    assert (end["delivery"], end["attempts"]) == ("delivered", 1)
    assert "canary" not in str(notice)


async def test_without_an_address_the_record_is_all() -> None:
    world = World(at("call", TELLS))
    await send(world)
    assert len(world.records("notify")) == 1
    assert world.records("notify.end") == []


async def test_a_held_call_and_a_result_are_told_of_too() -> None:
    held = Hold(HOLD.reasons, NOTIFY, REVISION, HOLD.approval)

    def decide(_tool: str, phase: Phase, _document: dict[str, Any]) -> Decision:
        return held if phase in {"call", "resume"} else TELLS

    world = World(decide, concerns_result=True)
    await world.launch()
    await world.enforcement.call(world.raw("billing__lookup", b"{}"))
    await settle(world)
    request = await world.held()
    await world.vote(request)
    await world.dispatcher.dispatch(request.id)
    await settle(world)
    told = [(r["phase"], r["decision"]["outcome"]) for r in world.records("notify")]
    assert told == [("call", "hold"), ("resume", "permit"), ("result", "permit")]


async def test_an_address_that_fails_is_asked_again_and_its_silence_is_recorded() -> None:
    world = World(at("call", TELLS))
    world.enforcement._notices = desk(world, slow := Address(failures=2))  # noqa: SLF001
    await send(world)
    assert len(slow.asked) == 3
    assert world.records("notify.end")[0]["delivery"] == "delivered"
    world.enforcement._notices = desk(world, dead := Address(failures=99))  # noqa: SLF001
    await send(world)
    assert len(dead.asked) == ATTEMPTS
    end = world.records("notify.end")[1]
    assert (end["delivery"], end["attempts"]) == ("undelivered", ATTEMPTS)


async def test_an_address_that_hangs_keeps_no_call_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.notices.PENDING_MAX", 2)
    never = asyncio.Event()

    async def hang(_notice: Notice) -> bool:
        return await never.wait()

    world = World(at("call", TELLS), deliver=hang)
    for _ in range(4):
        await send(world)
    assert len(world.records("call.outcome")) == 4
    ends = world.records("notify.end")  # past so many, further ones are not even tried
    assert [(end["delivery"], end["attempts"]) for end in ends] == [("undelivered", 0)] * 2
    await world.notices.close()
    assert len(world.records("notify.end")) == 2


async def test_an_address_that_breaks_breaks_nothing_else() -> None:
    async def explode(_notice: Notice) -> bool:
        raise RuntimeError("boom")

    world = World(at("call", TELLS), deliver=explode)
    await send(world)
    assert len(world.records("call.outcome")) == 1


async def test_a_notice_that_cannot_be_recorded_is_not_delivered() -> None:
    class Full(MemoryAuditLog):
        async def record(self, entry: Entry) -> Receipt:
            if entry.type == "notify":
                raise AuditError("full", code="audit_overloaded")
            return await super().record(entry)

    address, log = Address(), Full()
    world = World(at("call", TELLS), audit=log, deliver=address)
    await send(world)
    assert address.asked == []
    assert [r["type"] for r in log.records[2:]] == ["call.intent", "call.outcome"]


async def test_after_a_restart_what_has_no_end_is_delivered_again() -> None:
    never = asyncio.Event()

    async def hang(_notice: Notice) -> bool:
        return await never.wait()

    world = World(at("call", TELLS), deliver=hang)
    await send(world)
    await world.notices.close()
    pending = PendingNotices()
    for record in world.records():
        pending.fold(record)
    address = Address()
    again = desk(world, address)
    again.resume(pending)
    await settle(world)
    (notice,) = address.asked
    assert notice.id == world.records("notify")[0]["notice"]
    assert notice.fields["tool"]["id"] == "mail.send"
    assert len(world.records("notify")) == 1
    for record in world.records():
        pending.fold(record)
    assert list(pending) == []
