"""The way from the event loop to the commit thread and back, for many callers at little cost.

The loop builds records as they come; the thread takes a whole batch, writes and syncs it, and
answers all of it in one call back to the loop. Nobody waits for a timer: while one batch is being
synced, the next one gathers. What needs the interpreter is done in the loop, for two threads that
take it from each other lose more than one of them gains.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from msgspec import Struct

from gateway.adapters.audit.audit_builder import Batch
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError

_SWEEPS_PER_WAIT: Final = 5

Build = Callable[[Entry], Receipt]
"""Makes an entry the next record; raises `AuditError` for one that cannot be a record."""


class Pending:
    """One entry on its way. `given_up`: nobody waits for it any more."""

    __slots__ = ("deadline", "durable", "entry", "future", "given_up", "receipt")

    def __init__(
        self,
        entry: Entry,
        receipt: Receipt,
        future: asyncio.Future[Receipt] | None,
        deadline: float,
    ) -> None:
        self.entry: Final = entry
        self.receipt: Final = receipt
        self.future: Final = future
        self.deadline: Final = deadline
        self.given_up = False
        self.durable = False


class _Work(Struct, frozen=True):
    """A batch for the thread, and who waits for it."""

    batch: Batch | None
    waiting: Sequence[Pending]


_NOTHING: Final = _Work(None, ())


class CommitQueue:
    """Gathers records into batches and runs the commit thread. For one event loop.

    `build` and `seal` run in the loop, `write` and `tidy` in the thread; whatever those raise
    poisons the queue: all who wait get `audit_unavailable`, and so does everyone after them.
    `is_full` says whether the disk takes only what must be written. `unwanted` is called in the
    loop with every entry that became durable although its caller had given up waiting. `tidy` runs
    after each batch, and every `tidy_wait_s` seconds without one for as long as it says that there
    is more.
    """

    def __init__(
        self,
        *,
        build: Build,
        seal: Callable[[], Batch],
        write: Callable[[Batch], None],
        tidy: Callable[[], bool],
        is_full: Callable[[], bool],
        unwanted: Callable[[Entry, Receipt], None],
        queue_max: int,
        wait_ms: int,
        tidy_wait_s: float = 1.0,
    ) -> None:
        self._build: Final = build
        self._seal: Final = seal
        self._write: Final = write
        self._tidy: Final = tidy
        self._is_full: Final = is_full
        self._unwanted: Final = unwanted
        self._queue_max: Final = queue_max
        self._wait_s: Final = wait_ms / 1000
        self._tidy_wait_s: Final = tidy_wait_s
        self._queue: Final[SimpleQueue[_Work | None]] = SimpleQueue()
        self._loop: Final = asyncio.get_running_loop()
        self._gathered: list[Pending] = []
        self._inflight = 0
        self._writing = 0
        self._flushing = False
        self._timed: Final[deque[Pending]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._failure: str | None = None
        self._closed = False
        self._ended: Final = self._loop.create_future()
        self._thread: Final = threading.Thread(target=self._run, name="audit-commit", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why nothing more is written; None as long as all is well."""
        return self._failure

    def put(self, entry: Entry, *, timed: bool) -> tuple[Pending, asyncio.Future[Receipt]]:
        """Build an entry's record and queue it; its future is answered once it is durable.

        `timed` ones may be refused when the queue or the disk is full, and give up waiting.
        Raises `AuditError`: `audit_overloaded`, `audit_unavailable` or `audit_record_invalid`.
        """
        if self._failure is not None or self._closed:
            raise unavailable(self._failure)
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if not timed:
            return self._enqueue(entry, future, 0.0), future
        if self._inflight >= self._queue_max:
            raise overloaded(f"{self._inflight} records wait to be written")
        if self._is_full():
            raise overloaded("its disk is full")
        deadline = self._loop.time() + self._wait_s
        pending = self._enqueue(entry, future, deadline)
        self._timed.append(pending)
        if self._sweeper is None:
            self._arm()
        return pending, future

    def put_unwaited(self, entry: Entry) -> None:
        """Queue an entry whose durability nobody waits for."""
        if self._failure is None:
            self._enqueue(entry, None, 0.0)

    def give_up(self, pending: Pending) -> None:
        """Say that the caller is gone: a record that became durable for it is unwanted.

        A cancelled future is answered for by `_resolve`; one whose answer had come before its
        caller was cancelled, here.
        """
        pending.given_up = True
        future = pending.future
        if future is None or not future.done() or future.cancelled():
            return
        # Asked for, so that nobody complains about it at garbage collection. What was told of a
        # failure is closed by `_resolve`, once its record is durable.
        if future.exception() is None and pending.durable:
            self._unwanted(pending.entry, pending.receipt)

    def cut(self) -> None:
        """End the batch here: what comes next goes into another one."""
        if self._gathered:
            self._send()

    async def close(self) -> None:
        """Let everything queued become durable, and what follows from it; then end the thread."""
        if not self._closed:
            self._closed = True
            self._end_if_idle()
        await asyncio.shield(self._ended)
        self._thread.join()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    # In the loop

    def _end_if_idle(self) -> None:
        if self._closed and not self._inflight:
            self._queue.put(None)

    def _enqueue(
        self, entry: Entry, future: asyncio.Future[Receipt] | None, deadline: float
    ) -> Pending:
        pending = Pending(entry, self._build(entry), future, deadline)
        self._inflight += 1
        self._gathered.append(pending)
        if not self._writing and not self._flushing:
            self._flushing = True  # what else this turn of the loop brings goes with it
            self._loop.call_soon(self._flush)
        return pending

    def _flush(self) -> None:
        self._flushing = False
        if self._gathered and not self._writing:
            self._send()

    def _send(self) -> None:
        self._writing += 1
        self._queue.put(_Work(self._seal(), self._gathered))
        self._gathered = []

    def _resolve(self, batch: Sequence[Pending]) -> None:
        self._writing -= 1
        if self._gathered and not self._writing:
            self._send()
        self._inflight -= len(batch)
        for pending in batch:
            future = pending.future
            if future is None:
                continue
            pending.durable = True
            if not future.done():
                future.set_result(pending.receipt)
            else:
                self._unwanted(pending.entry, pending.receipt)
        self._end_if_idle()

    def _fail(self, batch: Sequence[Pending], failure: str) -> None:
        self._failure = failure
        gathered, self._gathered = self._gathered, []
        self._inflight -= len(batch) + len(gathered)
        for pending in (*batch, *gathered):
            if pending.future is not None and not pending.future.done():
                pending.future.set_exception(unavailable(failure))
        self._end_if_idle()

    def _arm(self) -> None:
        self._sweeper = self._loop.call_later(self._wait_s / _SWEEPS_PER_WAIT, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        timed = self._timed
        while timed:
            future = timed[0].future
            assert future is not None  # noqa: S101 - timed entries have one
            if not future.done():
                if timed[0].deadline > now:
                    break
                timed[0].given_up = True
                future.set_exception(overloaded("the disk did not keep up"))
            timed.popleft()
        if timed:
            self._arm()
        else:
            self._sweeper = None

    # In the thread

    def _run(self) -> None:
        failure: str | None = None
        untidy = False
        while True:
            try:
                work = self._queue.get(timeout=self._tidy_wait_s if untidy else None)
            except Empty:
                work = _NOTHING
            if work is None:
                break
            waiting = work.waiting
            if failure is None:
                try:
                    if work.batch is not None:
                        self._write(work.batch)
                        self._call(self._resolve, waiting)
                        waiting = ()
                    untidy = self._tidy()
                except Exception as error:  # noqa: BLE001 - whatever it was, durability is not certain
                    failure, untidy = f"{type(error).__name__}: {error}", False
            if failure is not None:
                self._call(self._fail, waiting, failure)
        self._call(self._ended.set_result, None)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and all waiters with it
            self._loop.call_soon_threadsafe(function, *arguments)


def overloaded(why: str) -> AuditError:
    """No durable record in time. Answer: nothing was sent; wait, then send again."""
    return AuditError(
        f"the audit log is overloaded: {why}", code="audit_overloaded", retryable=True
    )


def unavailable(why: str | None) -> AuditError:
    """No durable record until restart. Answer: nothing is sent; repair the disk and restart."""
    return AuditError(f"the audit log takes no more records: {why or 'it is closed'}")
