"""The loop's end of the log, with a keeper that is played by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest

from gateway.adapters.audit.audit_keeper import read_whole
from gateway.adapters.audit.audit_orders import (
    LENGTH,
    Answer,
    Inbox,
    Placed,
    Proof,
    Put,
    decode_order,
    encode,
    pack,
    split_orders,
)
from gateway.adapters.audit.audit_queue import AHEAD_MIN, CommitQueue, Pending, Standing
from gateway.adapters.audit.file_audit import _or_give_up
from gateway.core.entry import Entry, Opening, Receipt
from gateway.core.errors import AuditError
from tests.integration.audit.parts import (
    note_entry,
)


class HandKeeper:
    """The other end of a queue, played by hand: it answers when it is told to."""

    def __init__(
        self, unwanted: Callable[[Entry, Receipt], None] = lambda *_: None, *, queue_max: int = 10
    ) -> None:
        ours, self.theirs = socket.socketpair()
        standing = Standing({}, 7, full=False)
        self.queue = CommitQueue(
            ours, standing, unwanted=unwanted, queue_max=queue_max, wait_ms=1000
        )

    def say(self, answer: Answer) -> None:
        self.theirs.sendall(pack(encode(answer)))

    async def close(self) -> None:
        """Close as a keeper does that is asked to, unless it is gone."""
        closing = asyncio.ensure_future(self.queue.close(0))
        await asyncio.sleep(0)
        if self.queue.failure is None:
            self.say(Answer(8, full=False))
        self.theirs.close()
        await closing


AT = Receipt(7, bytes(32))
KEPT = Answer(8, full=False, results=[Placed(7, bytes(32))])
CALL = Entry(type="call.intent", op="o", fields={})


async def test_a_caller_cancelled_between_answer_and_return_gave_up_too() -> None:
    unwanted: list[Receipt] = []
    keeper = HandKeeper(lambda _, receipt: unwanted.append(receipt))
    pending, future = keeper.queue.put(CALL, 1, timed=True)
    task: asyncio.Task[Receipt]
    future.add_done_callback(lambda _: task.cancel())
    task = asyncio.ensure_future(_or_give_up(keeper.queue, pending, future))
    await asyncio.sleep(0)
    keeper.say(KEPT)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwanted == [AT]
    await keeper.close()
    assert unwanted == [AT]


async def test_giving_up_an_entry_that_failed_asks_for_nothing() -> None:
    unwanted: list[Receipt] = []
    keeper = HandKeeper(lambda _, receipt: unwanted.append(receipt))
    pending, future = keeper.queue.put(CALL, 1, timed=True)
    keeper.say(Answer(7, full=False, failure="OSError: no"))
    await asyncio.wait([future])
    keeper.queue.give_up(pending)
    keeper.queue.give_up(Pending(pending.entry, None, 0.0))
    await keeper.close()
    assert unwanted == []


async def test_a_keeper_that_is_gone_poisons_the_log() -> None:
    keeper = HandKeeper()
    _, future = keeper.queue.put(note_entry(), 1, timed=True)
    proof = asyncio.ensure_future(keeper.queue.prove(AT))
    await asyncio.sleep(0)
    keeper.theirs.close()
    for asked in (future, proof):
        with pytest.raises(AuditError, match="has ended") as caught:
            await asked
        assert caught.value.code == "audit_unavailable"
    keeper.queue.put_unwaited(note_entry(), 1)
    with pytest.raises(AuditError, match="has ended"):
        keeper.queue.put(note_entry(), 1, timed=False)
    with pytest.raises(AuditError, match="has ended"):
        await keeper.queue.prove(AT)
    await keeper.close()


async def test_a_keeper_that_never_comes_is_told_of() -> None:
    keeper = HandKeeper()
    keeper.theirs.close()
    with pytest.raises(AuditError, match="has ended"):
        await keeper.queue.ready()
    await keeper.close()


async def test_more_than_the_socket_takes_at_once_is_sent_all_the_same() -> None:
    keeper = HandKeeper()
    entry = note_entry(openings=(Opening("args", bytes(3_000_000), "alice"),))
    _, future = keeper.queue.put(entry, 1, timed=True)
    inbox = Inbox()

    def receive() -> bytes:
        while (message := inbox.take()) is None:
            inbox.feed(keeper.theirs.recv(1 << 16))
        return message

    (order,) = split_orders(memoryview(await asyncio.to_thread(receive)))
    assert decode_order(order) == Put(entry, 1)
    keeper.say(KEPT)
    assert await future == AT
    await keeper.close()


@pytest.mark.parametrize(
    "said",
    [
        pack(b"\xff garbage"),
        pack(encode(Answer(8, full=False))),
        pack(encode(Answer(8, full=False, results=[*KEPT.results, *KEPT.results]))),
        pack(encode(Answer(8, full=False, results=[Proof("of nothing")]))),
        pack(encode(Answer(7, full=False, results=KEPT.results))),  # beyond what is durable
    ],
)
async def test_an_answer_that_cannot_be_poisons_the_log_and_makes_nothing_durable(
    said: bytes,
) -> None:
    keeper = HandKeeper()
    _, future = keeper.queue.put(CALL, 1, timed=False)
    await asyncio.sleep(0)
    keeper.theirs.sendall(said)
    with pytest.raises(AuditError, match="cannot be") as caught:
        await future
    assert caught.value.code == "audit_unavailable"
    await keeper.close()


async def test_an_answer_that_nobody_asked_for_poisons_the_log() -> None:
    keeper = HandKeeper()
    keeper.say(Answer(7, full=False))
    with pytest.raises(AuditError, match="cannot be"):
        await keeper.queue.ready()
    await keeper.close()


async def test_entries_that_wait_are_bounded_in_bytes_and_sent_in_messages_that_are() -> None:
    keeper = HandKeeper()
    _, first = keeper.queue.put(CALL, 1, timed=False)
    await asyncio.sleep(0)
    large = note_entry(openings=(Opening("args", bytes(8_000_000), "alice"),))
    waiting = [keeper.queue.put(large, 1, timed=True)[1] for _ in range(9)]
    with pytest.raises(AuditError, match="10 records wait") as caught:
        keeper.queue.put(large, 1, timed=True)
    assert caught.value.code == "audit_overloaded"
    waiting.append(keeper.queue.put(note_entry(), 1, timed=False)[1])
    for number in range(11):
        received = await asyncio.to_thread(read_whole, keeper.theirs, LENGTH.size)
        size = LENGTH.unpack(received)[0]
        orders = list(split_orders(await asyncio.to_thread(read_whole, keeper.theirs, size)))
        assert len(orders) == 1
        placed = Placed(7 + number, bytes(32))
        keeper.say(Answer(8 + number, full=False, results=[placed]))
    assert (await first).seq == 7
    assert (await waiting[-1]).seq == 17
    await asyncio.gather(*waiting, return_exceptions=True)
    await keeper.close()


@pytest.mark.req("GW-13")
async def test_what_gathers_is_sent_ahead_once_it_is_worth_a_write_but_one_message_at_most() -> (
    None
):
    keeper = HandKeeper(queue_max=100)
    waiting: list[asyncio.Future[Receipt]] = []
    lengths: list[int] = []
    inbox = Inbox()

    async def put(count: int) -> list[int]:
        """Put entries, and return how many are in each message that comes of it."""
        waiting.extend(keeper.queue.put(CALL, 1, timed=True)[1] for _ in range(count))
        await asyncio.sleep(0)
        return receive()

    def receive() -> list[int]:
        with contextlib.suppress(BlockingIOError):
            inbox.feed(keeper.theirs.recv(1 << 16, socket.MSG_DONTWAIT))
        messages = list(iter(inbox.take, None))
        lengths.extend(len(list(split_orders(memoryview(one)))) for one in messages)
        return lengths[-len(messages) :] if messages else []

    async def answer() -> None:
        first = sum(lengths[: answered[0]])
        last = first + lengths[answered[0]]
        results = [Placed(number, bytes(32)) for number in range(first, last)]
        answered[0] += 1
        keeper.say(Answer(last, full=False, results=list(results)))
        await waiting[last - 1]

    answered = [0]
    assert await put(1) == [1]
    assert await put(AHEAD_MIN - 1) == []
    assert await put(1) == [AHEAD_MIN]
    assert await put(3 * AHEAD_MIN) == []
    await answer()
    assert receive() == [3 * AHEAD_MIN]
    assert not waiting[1].done()
    await answer()
    assert waiting[AHEAD_MIN].done()
    assert not waiting[-1].done()
    await answer()
    assert [(await one).seq for one in waiting] == list(range(len(waiting)))
    await keeper.close()


async def test_a_failure_is_told_to_all_whose_entries_were_sent_or_wait() -> None:
    keeper = HandKeeper(queue_max=100)
    sizes = (1, AHEAD_MIN, 1)
    waiting = []
    for size in sizes:
        waiting += [keeper.queue.put(CALL, 1, timed=False)[1] for _ in range(size)]
        await asyncio.sleep(0)
    keeper.say(Answer(7, full=False, failure="OSError: no"))
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {str(one) for one in told} == {str(told[0])}
    assert isinstance(told[0], AuditError)
    assert told[0].code == "audit_unavailable"
    await keeper.close()


@pytest.mark.req("AUD-10")
async def test_a_keeper_that_hangs_does_not_keep_the_log_from_being_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.adapters.audit.audit_queue.CLOSE_PATIENCE_S", 0.02)
    monkeypatch.setattr("gateway.adapters.audit.audit_queue._STUCK_S", -1.0)
    keeper = HandKeeper()
    _, future = keeper.queue.put(CALL, 1, timed=False)
    seen = [keeper.queue.is_stuck]
    await asyncio.sleep(0)
    seen.append(keeper.queue.is_stuck)
    assert seen == [False, True]
    with pytest.raises(AuditError, match="could not be closed: what keeps it does not answer"):
        await keeper.queue.close(0)
    with pytest.raises(AuditError, match="does not answer"):
        await future
    keeper.theirs.close()


@pytest.mark.req("AUD-10")
async def test_a_keeper_that_answers_one_message_after_the_other_is_not_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    keeper = HandKeeper(queue_max=100)
    waiting = []
    for size in (1, AHEAD_MIN):
        waiting += [keeper.queue.put(CALL, 1, timed=False)[1] for _ in range(size)]
        await asyncio.sleep(0)
    now[0] += 1.9
    keeper.say(KEPT)
    await waiting[0]
    stuck = []
    for pause_s in (1.9, 0.2):
        now[0] += pause_s
        stuck.append(keeper.queue.is_stuck)
    assert stuck == [False, True]
    results = [Placed(8 + number, bytes(32)) for number in range(AHEAD_MIN)]
    keeper.say(Answer(8 + AHEAD_MIN, full=False, results=list(results)))
    await waiting[-1]
    await keeper.close()
