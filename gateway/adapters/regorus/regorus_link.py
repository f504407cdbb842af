"""The gateway's end of one policy worker: frames out, answers in, and the deadline.

Hot path. Requests are coalesced and written once per loop tick; one read may carry many answers;
one timer serves the whole queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.adapters.regorus.regorus_engines import Engines
from gateway.adapters.regorus.regorus_nursery import Birth
from gateway.adapters.regorus.regorus_worker import (
    ANSWER,
    ANSWER_MAX_BYTES,
    CONTROL,
    FAULT,
    PROGRESS,
    READ_BYTES,
    REPLY,
    REQUEST,
    UNDEFINED,
)
from gateway.core.errors import PolicyError

PATIENCE_S: Final = 0.02
"""How long one evaluation may keep others waiting. Policies take a thousandth of it."""
_CPU_SHARE: Final = 4
"""Slow is who has had a quarter of the time as CPU: on a busy machine nobody gets all of it."""
_KINDS: Final = frozenset({ANSWER, UNDEFINED, FAULT})
_REPLY_MAX_BYTES: Final = ANSWER_MAX_BYTES + 4096


class Request:
    """One request on its way. `answer` gets its raw payload, or None for undefined.

    A `CONTROL` request says with `about` which subset's engine it builds. `asker` is the subject
    of the question, `wild` whether a worker was lost to it that had worked on it all the time.
    `cpu_s`: how much CPU it may cost, beside the time that it may take.
    """

    __slots__ = (
        "about",
        "answer",
        "asker",
        "cpu_s",
        "deadline_s",
        "payload",
        "resent",
        "subset",
        "wild",
    )

    def __init__(
        self,
        subset: int,
        payload: bytes,
        answer: asyncio.Future[bytes | None],
        deadline_s: float,
        *,
        about: int = 0,
        asker: str = "",
        cpu_s: float | None = None,
    ) -> None:
        self.subset = subset
        self.cpu_s = cpu_s
        self.asker = asker
        self.about = about or subset
        self.payload = payload
        self.answer = answer
        self.deadline_s = deadline_s
        self.resent = self.wild = False


class WorkerLink:
    """One worker process and its queue.

    `on_slow(link)` is called when the request at the head of its queue keeps others waiting for
    longer than `patience_s`; it may `leave_alone` the worker with that one.

    `on_lost(link, head, rest)` is called once when the worker is gone, whether it died, broke
    the protocol, was left alone and has answered, or was killed because the request at the head of
    its queue took longer than its deadline. `head` is the request that it was working on, if any
    (already failed with a `PolicyError`), `rest` are those it never began, still unanswered.
    """

    def __init__(
        self,
        birth: Birth,
        tag: int,
        *,
        engines: Engines,
        patience_s: float = PATIENCE_S,
        on_slow: Callable[[WorkerLink], None],
        on_lost: Callable[[WorkerLink, Request | None, list[Request]], None],
    ) -> None:
        """Take over a new worker, which holds `engines`."""
        self._tag = tag
        self._patience_s = patience_s
        self._on_slow = on_slow
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self.engines = engines
        self.pending: deque[Request] = deque()
        self._sent_id = self._answered_id = 0
        self._outbox: list[bytes] = []
        self._flushing = False
        self._inbox = bytearray()
        self._head_since_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._alone: Request | None = None
        self._cpu_s: float | None = None
        self.lost = False
        self._socket, self._progress, self._child = birth.connection, birth.progress, birth.child
        self._loop.add_reader(self._socket, self._on_readable)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._child.pid

    @property
    def proven(self) -> bool:
        """Whether it has answered anything."""
        return self._answered_id > 0

    def submit(self, request: Request) -> None:
        """Queue a request; it is written at the end of this loop tick."""
        self._sent_id += 1
        self.pending.append(request)
        if len(self.pending) == 1:
            self._head_since_ns = time.monotonic_ns()
            self._arm(min(request.deadline_s, self._patience_s))
        payload = request.payload
        self._outbox.append(
            REQUEST.pack(len(payload), self._sent_id, self._tag, request.subset) + payload
        )
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.lost or not self._outbox:
            return
        data = b"".join(self._outbox)
        self._outbox.clear()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose("policy_worker_died", "the policy worker closed its socket")
            return
        if sent < len(data):
            self._outbox.append(data[sent:])
            self._flushing = True
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self._flush()

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose("policy_worker_died", "the policy worker ended while deciding")
            return
        self._inbox += data
        self._parse()

    def _parse(self) -> None:
        inbox, start, size = self._inbox, 0, REPLY.size
        while len(inbox) - start >= size:
            length, answered_id, kind = REPLY.unpack_from(inbox, start)
            end = start + size + length
            # INVARIANT: answers come in order. A worker that answers anything else is not trusted.
            if (
                not self.pending
                or answered_id != self._answered_id + 1
                or kind not in _KINDS
                or length > _REPLY_MAX_BYTES
            ):
                self._lose("policy_worker_died", "the policy worker answered out of order")
                return
            if end > len(inbox):
                break
            self._answered_id = answered_id
            _resolve(self.pending.popleft(), kind, bytes(inbox[start + size : end]))
            start = end
        if start:
            del inbox[:start]
            if self._alone is not None and self._alone.answer.done():
                self._lose("policy_worker_died", "the policy worker was left alone")
            elif self.pending:
                self._head_since_ns = time.monotonic_ns()
                self._arm(min(self.pending[0].deadline_s, self._patience_s))

    def _arm(self, left_s: float) -> None:
        """Have the timer fire no later than `left_s` from now. Earlier is harmless."""
        due = self._loop.time() + left_s
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(left_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # A busy loop may be late: what the worker has answered by now is no timeout.
        self._on_readable()
        if not self.pending:
            return
        place, since_ns = self._working_on()
        head = self.pending[place or 0]
        elapsed_s = (time.monotonic_ns() - since_ns) / 1e9
        left_s = head.deadline_s - elapsed_s
        cpu_s = self._cpu_s if head.cpu_s is None else head.cpu_s
        spent = cpu_s is not None and place is not None and self._has_worked(cpu_s)
        if left_s <= 0 or spent:
            head.wild = place is not None and self._has_worked(self._patience_s / _CPU_SHARE)
            self._lose("policy_timeout", "policy took longer than its deadline")
            return
        # An engine is built once, from what has been loaded before: no use in leaving for that.
        if head.subset != CONTROL and self._alone is None:
            if place is not None and self._is_slow(elapsed_s):
                self._on_slow(self)
            # A worker that has not begun yet, on a busy machine, is looked at again as well.
            left_s = min(left_s, max(self._patience_s - elapsed_s, self._patience_s / 2))
        if cpu_s is not None:
            left_s = min(left_s, cpu_s)
        self._arm(left_s)

    @property
    def head(self) -> Request:
        """The pending request that the worker is at, or will begin with."""
        return self.pending[self._working_on()[0] or 0]

    def leave_alone(self, cpu_s: float | None = None) -> tuple[Request, list[Request]]:
        """Take from the worker all but what it is working on; it is lost once it answers that.

        Return that request, and the others. Evaluating changes nothing, so it harms nobody that
        the worker may begin with some of them. With `cpu_s` it gets no more CPU than that.
        """
        self._cpu_s = cpu_s
        place, _ = self._working_on()
        self._child.defer()
        self._alone = head = self.pending[place or 0]
        rest = [request for request in self.pending if request is not head]
        moved = Request(CONTROL, b"", _resolved(self._loop), head.deadline_s)
        self.pending = deque(request if request is head else moved for request in self.pending)
        return head, [request for request in rest if not request.answer.done()]

    def _is_slow(self, elapsed_s: float) -> bool:
        """Whether the worker is slow, and not only waits for a core like everybody else."""
        if not self._patience_s <= elapsed_s < 2 * self._patience_s:
            return elapsed_s > self._patience_s
        return self._has_worked(self._patience_s / _CPU_SHARE)

    def _has_worked(self, cpu_s: float) -> bool:
        """Whether the worker has had so much CPU for what it is at, whoever else wants a core."""
        begun_ns: int = PROGRESS.unpack_from(self._progress, 0)[2]
        return self._child.cpu_ns() - begun_ns >= cpu_s * 1e9

    def _working_on(self) -> tuple[int | None, int]:
        """Return which pending request the worker is at, and since when (monotonic, ns).

        Those before it are evaluated, but their answers wait to be sent together. None: it has
        not begun with any, since the time at which the first of them was due.
        """
        since_ns, working_id, _ = PROGRESS.unpack_from(self._progress, 0)
        place = working_id - self._answered_id - 1
        if 0 <= place < len(self.pending):
            return place, since_ns
        return None, self._head_since_ns

    def _lose(self, code: str, message: str) -> None:
        """Kill the worker, fail the request it was working on and hand back the others."""
        if self.lost:
            return
        place, _ = self._working_on()
        self._close()
        rest = list(self.pending)
        self.pending.clear()
        for request in rest[:place]:
            request.resent = False  # proved harmless: only its answer was lost
        head = None if place is None else rest.pop(place)
        if head is not None:
            fail(head, PolicyError(message, code=code))
        self._on_lost(self, head, [request for request in rest if not request.answer.done()])

    def _close(self) -> None:
        self.lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._progress.close()
        if self._timer is not None:
            self._timer.cancel()
        self._child.kill()

    async def aclose(self) -> None:
        """Kill the process if it runs, and wait until it is gone. Fails what is pending."""
        if not self.lost:
            self._close()
            for request in self.pending:
                fail(request, PolicyError("the policy engine was stopped"))
            self.pending.clear()
        await self._child.wait()


def fail(request: Request, error: PolicyError) -> None:
    """Answer a request with an error, unless its caller has gone."""
    if not request.answer.done():
        request.answer.set_exception(error)


def _resolve(request: Request, kind: int, payload: bytes) -> None:
    if request.answer.done():
        return
    if kind == ANSWER:
        request.answer.set_result(payload)
    elif kind == UNDEFINED:
        request.answer.set_result(None)
    else:
        text = payload.decode("utf-8", "replace")
        request.answer.set_exception(PolicyError(text, code="policy_error"))


def _resolved(loop: asyncio.AbstractEventLoop) -> asyncio.Future[bytes | None]:
    answer: asyncio.Future[bytes | None] = loop.create_future()
    answer.set_result(None)
    return answer
