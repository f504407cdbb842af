"""The event loop's end of the log: gathers entries, has them kept, and answers who waits.

Nobody waits for a timer: while the keeper (`audit_keeper`) makes one message of entries durable,
the next one gathers. It is sent when the answer is there, or once it is long enough to be worth a
write of its own: then the keeper finds it waiting, and does not wait for this loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

from msgspec import Struct

from gateway.adapters.audit.audit_faults import invalid, overloaded, unavailable
from gateway.adapters.audit.audit_link import KeeperLink
from gateway.adapters.audit.audit_orders import (
    MESSAGE_MAX_BYTES,
    Answer,
    Close,
    Placed,
    Proof,
    Prove,
    Put,
    Refused,
    encode,
)
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError

QUEUE_MAX_BYTES: Final = 64 << 20
"""So many bytes of entries may wait; what must be written comes on top."""

AHEAD_MIN: Final = 16
"""So many entries are sent while the keeper still has another message to answer."""

CLOSE_PATIENCE_S: Final = 10.0
"""A keeper that answers nothing for so long does not keep the log from being closed."""

_STUCK_S: Final = 2.0
_SWEEPS_PER_WAIT: Final = 5


class Pending:
    """One entry on its way. `given_up`: nobody waits for it any more.

    `deadline`: until when its caller waits, by the loop's clock; 0 for as long as it takes.
    """

    __slots__ = ("deadline", "entry", "future", "given_up", "receipt")

    def __init__(
        self, entry: Entry, future: asyncio.Future[Receipt] | None, deadline: float
    ) -> None:
        self.entry: Final = entry
        self.future: Final = future
        self.deadline: Final = deadline
        self.given_up = False
        self.receipt: Receipt | None = None
        """Where it stands, once it is durable."""


Waiting = Pending | asyncio.Future[str]
"""Who waits for the result of an order: of `Put`, or of `Prove`."""


class Standing(Struct, frozen=True):
    """How a log stands when it is handed to a queue. `known`: where each event id stands."""

    known: Mapping[str, Receipt]
    durable: int
    full: bool


class CommitQueue:
    """Talks to the keeper at the other end of `connection`. For one event loop.

    When the keeper fails or is gone, the queue is poisoned: all who wait get `audit_unavailable`,
    and so does everyone after them. `unwanted` is called with every entry that became durable
    although its caller had given up waiting, `failed` once with what poisoned the queue.
    """

    def __init__(
        self,
        connection: socket.socket,
        standing: Standing,
        *,
        unwanted: Callable[[Entry, Receipt], None],
        failed: Callable[[str], None] = lambda _why: None,
        queue_max: int,
        wait_ms: int,
    ) -> None:
        self.known: Final = dict(standing.known)
        """Where each event id stands that is durable."""
        self._unwanted: Final = unwanted
        self._failed: Final = failed
        self._queue_max: Final = queue_max
        self._wait_s: Final = wait_ms / 1000
        self._loop: Final = asyncio.get_running_loop()
        self._gathered: Final[deque[tuple[bytes, Waiting]]] = deque()
        self._gathered_bytes = 0
        self._sent: Final[deque[list[Waiting]]] = deque()
        self._is_flushing = False
        self._last = b""
        self._sweeper: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._closing = False
        self._ready: Final = self._loop.create_future()
        self._ended: Final = self._loop.create_future()
        self.failure: str | None = None
        """Why nothing more is written; None as long as all is well."""
        self.durable = standing.durable
        """The number of durable records."""
        self.is_full = standing.full
        """Whether the disk has room only for the outcomes of calls under way."""
        self._link: Final = KeeperLink(connection, answered=self._take, lost=self._end)

    @property
    def is_stuck(self) -> bool:
        """Whether a message has waited for its answer for seconds: disk or keeper hang."""
        asked_s = self._link.asked_s
        return asked_s is not None and self._loop.time() - asked_s > _STUCK_S

    async def ready(self) -> None:
        """Return once the keeper is there. Raises `AuditError` where it never will be."""
        await self._ready
        if self.failure is not None:
            raise unavailable(self.failure)

    def put(
        self, entry: Entry, now_us: int, *, timed: bool, erase: str = "", key: bytes = b""
    ) -> tuple[Pending, asyncio.Future[Receipt]]:
        """Have an entry made the next record; its future is answered once it is durable.

        `timed` ones may be refused when the queue or the disk is full, and give up waiting.
        `erase`, `key`: see `Put`. Raises `AuditError`, here or by the future: `audit_overloaded`,
        `audit_unavailable` or `audit_record_invalid`.
        """
        if self.failure is not None or self._closing:
            raise unavailable(self.failure)
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if entry.event_id is not None and (known := self.known.get(entry.event_id)) is not None:
            future.set_result(known)
            return Pending(entry, future, 0.0), future
        if not timed:
            return self._enqueue(Put(entry, now_us, erase, key), future, 0.0), future
        waiting = len(self._gathered) + sum(map(len, self._sent))
        if waiting >= self._queue_max or self._gathered_bytes >= QUEUE_MAX_BYTES:
            raise overloaded(f"{waiting} records wait to be written")
        if self.is_full:
            raise overloaded("its disk is full")
        pending = self._enqueue(Put(entry, now_us), future, self._loop.time() + self._wait_s)
        if self._sweeper is None:
            self._arm()
        return pending, future

    def put_unwaited(self, entry: Entry, now_us: int) -> None:
        """Have an entry kept whose durability nobody waits for."""
        if self.failure is None:
            self._enqueue(Put(entry, now_us), None, 0.0)

    def give_up(self, pending: Pending) -> None:
        """Say that the caller is gone: a record that became durable for it is unwanted.

        A cancelled future is answered for by `_place`; one whose answer had come before its
        caller was cancelled, here.
        """
        pending.given_up = True
        future = pending.future
        if future is None or not future.done() or future.cancelled():
            return
        # Asked for, so that nobody complains about it at garbage collection. What was told of a
        # failure is closed by `_place`, once its record is durable.
        if future.exception() is None and pending.receipt is not None:
            self._unwanted(pending.entry, pending.receipt)

    async def prove(self, record: Receipt) -> str:
        """Return the proof of a durable record. Raises `AuditError`."""
        if self.failure is not None or self._closing:
            raise unavailable(self.failure)
        future: asyncio.Future[str] = self._loop.create_future()
        self._gather(encode(Prove(record)), future)
        return await future

    async def close(self, now_us: int) -> None:
        """Let everything that waits become durable, then end the log and its keeper.

        Raises `AuditError` where the log could not be ended as it should be.
        """
        was_well = self.failure is None
        if not self._closing:
            self._closing = True
            self._last = encode(Close(now_us))
            self._end_if_idle()
        self.expect_end()
        await asyncio.shield(self._ended)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if was_well and self.failure is not None:
            raise AuditError(f"the audit log could not be closed: {self.failure}")

    def expect_end(self) -> None:
        """Wait no longer than `CLOSE_PATIENCE_S` for any answer from now on.

        Whoever ends a gateway calls it first: what is under way waits for its outcomes, however
        long the disk takes, and the end waits for what is under way.
        """
        if self._ended.done():
            return
        asked_s = self._link.asked_s
        if asked_s is not None and self._loop.time() - asked_s >= CLOSE_PATIENCE_S:
            self._link.close()
            self._end("what keeps it does not answer")
        elif self._watch is None or self._watch.when() <= self._loop.time():
            self._watch = self._loop.call_later(CLOSE_PATIENCE_S / 10, self.expect_end)

    # What goes to the keeper

    def _enqueue(
        self, order: Put, future: asyncio.Future[Receipt] | None, deadline: float
    ) -> Pending:
        try:
            encoded = encode(order)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise invalid(str(error)) from None
        pending = Pending(order.entry, future, deadline)
        self._gather(encoded, pending)
        return pending

    def _gather(self, order: bytes, waiting: Waiting) -> None:
        self._gathered.append((order, waiting))
        self._gathered_bytes += len(order)
        if not self._is_flushing and self._is_due():
            self._is_flushing = True  # what else this turn of the loop brings goes with it
            self._loop.call_soon(self._flush)

    def _is_due(self) -> bool:
        """Whether what has gathered should be with the keeper."""
        least = AHEAD_MIN if self._link.unanswered else 1
        return len(self._gathered) >= least and self._link.may_ask

    def _flush(self) -> None:
        self._is_flushing = False
        if self.failure is not None or not self._is_due():
            return
        orders: list[bytes] = []
        sent: list[Waiting] = []
        size = 0
        while self._gathered and size < MESSAGE_MAX_BYTES:
            order, waiting = self._gathered.popleft()
            orders.append(order)
            sent.append(waiting)
            size += len(order)
        self._gathered_bytes -= size
        self._sent.append(sent)
        self._link.ask(orders)

    def _end_if_idle(self) -> None:
        idle = not self._link.unanswered and not self._gathered and self.failure is None
        if self._last and idle:
            last, self._last = self._last, b""
            self._sent.append([])  # nobody waits for it by itself
            self._link.ask([last])

    # What comes from it

    def _take(self, answer: Answer) -> None:
        self.durable, self.is_full = answer.durable, answer.full
        if answer.failure is not None:
            self._fail(answer.failure)
        elif not answer.asked:
            _conclude(self._ready)
        else:
            sent = self._sent[0]
            if not _fits(sent, answer):
                raise ValueError("it answers something else than was asked")
            self._sent.popleft()
            self._flush()  # the keeper need not wait for what follows
            for waiting, result in zip(sent, answer.results, strict=True):
                self._settle(waiting, result)
            self._end_if_idle()

    def _settle(self, waiting: Waiting, result: Placed | Proof | Refused) -> None:
        future = waiting.future if isinstance(waiting, Pending) else waiting
        if isinstance(result, Placed) and isinstance(waiting, Pending):
            self._place(waiting, Receipt(result.seq, result.leaf))
        elif future is None or future.done():
            pass  # there is nothing to take back of what is not on record
        elif isinstance(result, Refused):
            future.set_exception(AuditError(result.why, code=result.code))
        elif isinstance(result, Proof) and not isinstance(waiting, Pending):
            waiting.set_result(result.text)

    def _place(self, pending: Pending, receipt: Receipt) -> None:
        entry, future = pending.entry, pending.future
        pending.receipt = receipt
        if entry.event_id is not None:
            self.known[entry.event_id] = receipt
        if future is None:
            return
        if not future.done():
            future.set_result(receipt)
        else:
            self._unwanted(entry, receipt)

    def _end(self, why: str) -> None:
        if self._link.unanswered or self._gathered or not self._closing:
            self._fail(why)
        if self._watch is not None:
            self._watch.cancel()
        _conclude(self._ready)
        _conclude(self._ended)

    def _fail(self, failure: str) -> None:
        if self.failure is None:
            self.failure = failure
            self._failed(failure)
        waiting = [*chain(*self._sent), *(one for _, one in self._gathered)]
        self._sent.clear()
        self._gathered.clear()
        self._gathered_bytes = 0
        for one in waiting:
            future = one.future if isinstance(one, Pending) else one
            if future is not None and not future.done():
                future.set_exception(unavailable(failure))

    # What waits for too long

    def _arm(self) -> None:
        self._sweeper = self._loop.call_later(self._wait_s / _SWEEPS_PER_WAIT, self._sweep)

    def _sweep(self) -> None:
        """Let go of callers who have waited long enough. What is durable is not looked at."""
        now = self._loop.time()
        is_timed = False
        for waiting in chain(*self._sent, (one for _, one in self._gathered)):
            if isinstance(waiting, Pending) and waiting.deadline:
                is_timed = self._is_left(waiting, now) or is_timed
        if is_timed:
            self._arm()
        else:
            self._sweeper = None

    @staticmethod
    def _is_left(pending: Pending, now: float) -> bool:
        """Whether somebody goes on waiting for an entry that may be given up."""
        future = pending.future
        if future is None or future.done():
            return False
        if pending.deadline > now:
            return True
        pending.given_up = True
        future.set_exception(overloaded("the disk did not keep up"))
        return False


def _conclude(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fits(sent: Sequence[Waiting], answer: Answer) -> bool:
    """Whether an answer has a result for each order, of its kind, and of what is durable."""
    return len(sent) == len(answer.results) and all(
        isinstance(waiting, Pending) and result.seq < answer.durable
        if isinstance(result, Placed)
        else isinstance(result, Refused) or not isinstance(waiting, Pending)
        for waiting, result in zip(sent, answer.results, strict=True)
    )
