"""The way from the event loop to the commit thread and back, for many callers at little cost.

The loop puts entries on a queue; the thread takes whatever is there, commits it at once and
answers all of it in one call back to the loop. Nobody waits for a timer: while one batch is
being synced, the next one gathers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from gateway.core.entry import Entry, Receipt
from gateway.core.errors import AuditError

_BATCH_MAX: Final = 1024
_SWEEPS_PER_WAIT: Final = 5

Answer = Receipt | AuditError
Commit = Callable[[Sequence[Entry]], Sequence[Answer]]
"""Makes entries durable; raises when that is not certain."""


class Pending:
    """One entry on its way. `given_up`: nobody waits for it any more."""

    __slots__ = ("answer", "deadline", "entry", "future", "given_up")

    def __init__(
        self, entry: Entry, future: asyncio.Future[Receipt] | None, deadline: float
    ) -> None:
        self.entry: Final = entry
        self.future: Final = future
        self.deadline: Final = deadline
        self.given_up = False
        self.answer: Answer | None = None


class CommitQueue:
    """Runs the commit thread. Made, used and closed on one event loop.

    `commit` and `tidy` run in the thread; whatever they raise poisons the queue: all who wait get
    `audit_unavailable`, and so does everyone after them. `unwanted` is called in the loop with
    every entry that became durable although its caller had given up waiting. `tidy` runs after each
    batch, and every `tidy_wait_s` seconds without one for as long as it says that there is more.
    """

    def __init__(
        self,
        *,
        commit: Commit,
        tidy: Callable[[], bool],
        unwanted: Callable[[Entry, Receipt], None],
        queue_max: int,
        wait_ms: int,
        tidy_wait_s: float = 1.0,
    ) -> None:
        self._commit: Final = commit
        self._tidy: Final = tidy
        self._unwanted: Final = unwanted
        self._queue_max: Final = queue_max
        self._wait_s: Final = wait_ms / 1000
        self._tidy_wait_s: Final = tidy_wait_s
        self._queue: Final[SimpleQueue[Pending | None]] = SimpleQueue()
        self._loop: Final = asyncio.get_running_loop()
        self._inflight = 0
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
        """Queue an entry. `timed` ones may be refused when the queue is full, and give up waiting.

        Raises `AuditError` `audit_overloaded` or `audit_unavailable`.
        """
        if self._failure is not None or self._closed:
            raise unavailable(self._failure)
        if timed and self._inflight >= self._queue_max:
            raise overloaded(f"{self._inflight} records wait to be written")
        future: asyncio.Future[Receipt] = self._loop.create_future()
        deadline = self._loop.time() + self._wait_s if timed else 0.0
        pending = Pending(entry, future, deadline)
        if timed:
            self._timed.append(pending)
            if self._sweeper is None:
                self._arm()
        self._enqueue(pending)
        return pending, future

    def put_unwaited(self, entry: Entry) -> None:
        """Queue an entry whose durability nobody waits for."""
        if self._failure is None and not self._closed:
            self._enqueue(Pending(entry, None, 0.0))

    def give_up(self, pending: Pending) -> None:
        """Say that the caller is gone: a record that became durable for it is unwanted.

        A cancelled future is answered for by `_resolve`; one whose answer had come before its
        caller was cancelled, here.
        """
        pending.given_up = True
        future, answer = pending.future, pending.answer
        if future is not None and future.done() and not future.cancelled():
            future.exception()  # seen: no complaint about it at garbage collection
            if isinstance(answer, Receipt):
                self._unwanted(pending.entry, answer)

    async def close(self) -> None:
        """Let everything queued become durable, then end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    # In the loop

    def _enqueue(self, pending: Pending) -> None:
        self._inflight += 1
        self._queue.put(pending)

    def _resolve(self, batch: Sequence[Pending]) -> None:
        self._inflight -= len(batch)
        for pending in batch:
            answer, future = pending.answer, pending.future
            if future is None:
                continue
            if not future.done():
                if isinstance(answer, Receipt):
                    future.set_result(answer)
                elif answer is not None:
                    future.set_exception(answer)
            elif isinstance(answer, Receipt):
                self._unwanted(pending.entry, answer)

    def _fail(self, batch: Sequence[Pending], failure: str) -> None:
        self._failure = failure
        for pending in batch:
            pending.answer = unavailable(failure)
        self._resolve(batch)

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
        going_on = True
        while going_on:
            batch, going_on = self._take(self._tidy_wait_s if untidy else None)
            if failure is None:
                failure = self._work(batch)
            if failure is not None:
                untidy = False
                self._call(self._fail, batch, failure)
                continue
            if batch:
                self._call(self._resolve, batch)
            try:
                untidy = self._tidy()
            except Exception as error:  # noqa: BLE001 - as in `_work`
                failure, untidy = _describe(error), False
                self._call(self._fail, [], failure)
        self._call(self._ended.set_result, None)

    def _take(self, wait_s: float | None) -> tuple[list[Pending], bool]:
        """Wait for something to do; return all there is, and False once closed."""
        try:
            first = self._queue.get(timeout=wait_s)
        except Empty:
            return [], True
        found = [first]
        for _ in range(min(self._queue.qsize(), _BATCH_MAX - 1)):
            found.append(self._queue.get_nowait())  # noqa: PERF401 - one taker: it never blocks
        batch = [pending for pending in found if pending is not None]
        return batch, len(batch) == len(found)

    def _work(self, batch: Sequence[Pending]) -> str | None:
        """Commit a batch and note the answers. Return what made it fail."""
        wanted = [pending for pending in batch if not pending.given_up]
        try:
            if wanted:
                answers = self._commit([pending.entry for pending in wanted])
                for pending, answer in zip(wanted, answers, strict=True):
                    pending.answer = answer
        except Exception as error:  # noqa: BLE001 - whatever it was, durability is not certain
            return _describe(error)
        return None

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


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
