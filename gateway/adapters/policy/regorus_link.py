"""The gateway's end of one policy worker: frames out, answers in, and the deadline.

Hot path. Requests are coalesced and written once per loop tick; one read may carry many answers;
one timer serves the whole queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.adapters.policy import regorus_worker
from gateway.adapters.policy.regorus_worker import (
    ANSWER,
    PROGRESS,
    READ_BYTES,
    REPLY,
    REQUEST,
    UNDEFINED,
)
from gateway.core.errors import PolicyError

_SOCKET_BUFFER_BYTES: Final = 1 << 20
_KEPT_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Request:
    """One request on its way. `answer` gets its raw payload, or None for undefined."""

    __slots__ = ("answer", "deadline_s", "payload", "resent", "subset")

    def __init__(
        self, subset: int, payload: bytes, answer: asyncio.Future[bytes | None], deadline_s: float
    ) -> None:
        self.subset = subset
        self.payload = payload
        self.answer = answer
        self.deadline_s = deadline_s
        self.resent = False


class WorkerLink:
    """One worker process and its queue.

    `on_lost(link, head, rest)` is called once when the worker is gone, whether it died, broke
    the protocol, or was killed because the request at the head of its queue took longer than its
    deadline. `head` is the request that it was working on (already failed with a `PolicyError`),
    `rest` are those it never began, still unanswered.
    """

    def __init__(self, tag: int, on_lost: Callable[[WorkerLink, list[Request]], None]) -> None:
        """Start the process; `PolicyError` (`policy_unavailable`) when that is impossible."""
        self._tag = tag
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self.pending: deque[Request] = deque()
        self._sent_id = self._answered_id = 0
        self._outbox: list[bytes] = []
        self._flushing = False
        self._inbox = bytearray()
        self._head_since_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self.lost = False
        self._socket, self._progress, self._process = _spawn()
        self._loop.add_reader(self._socket, self._on_readable)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def submit(self, request: Request) -> None:
        """Queue a request; it is written at the end of this loop tick."""
        self._sent_id += 1
        self.pending.append(request)
        if len(self.pending) == 1:
            self._head_since_ns = time.monotonic_ns()
            self._arm(request.deadline_s)
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
            if end > len(inbox):
                break
            # INVARIANT: answers come in order. A worker that answers anything else is not trusted.
            if not self.pending or answered_id != self._answered_id + 1:
                self._lose("policy_worker_died", "the policy worker answered out of order")
                return
            self._answered_id = answered_id
            _resolve(self.pending.popleft(), kind, bytes(inbox[start + size : end]))
            start = end
        if start:
            del inbox[:start]
            if self.pending:
                self._head_since_ns = time.monotonic_ns()
                self._arm(self.pending[0].deadline_s)

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
        elapsed_s = (time.monotonic_ns() - since_ns) / 1e9
        left_s = self.pending[place].deadline_s - elapsed_s
        if left_s > 0:
            self._arm(left_s)
        else:
            self._lose("policy_timeout", "policy took longer than its deadline")

    def _working_on(self) -> tuple[int, int]:
        """Return which pending request the worker is at, and since when (monotonic, ns).

        Those before it are evaluated, but their answers wait to be sent together.
        """
        since_ns, working_id = PROGRESS.unpack_from(self._progress, 0)
        place = working_id - self._answered_id - 1
        if 0 <= place < len(self.pending):
            return place, since_ns
        return 0, self._head_since_ns  # not begun yet

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
        if rest:
            fail(rest.pop(place), PolicyError(message, code=code))
        self._on_lost(self, rest)

    def _close(self) -> None:
        self.lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._progress.close()
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def aclose(self) -> None:
        """Kill the process if it runs, and wait until it is gone. Fails what is pending."""
        if not self.lost:
            self._close()
            for request in self.pending:
                fail(request, PolicyError("the policy engine was stopped"))
            self.pending.clear()
        await self._loop.run_in_executor(None, self._process.wait)


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


def _spawn() -> tuple[socket.socket, mmap.mmap, subprocess.Popen[bytes]]:
    """Start a worker, exec'd not forked, with nothing of ours but a socket and 16 shared bytes."""
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as shared:
        ours.setblocking(False)  # noqa: FBT003 - the signature of the standard library
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        shared.truncate(PROGRESS.size)
        descriptors = (theirs.fileno(), shared.fileno())
        program = str(Path(regorus_worker.__file__).resolve())
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
                [sys.executable, "-I", program, *map(str, descriptors)],
                pass_fds=descriptors,
                # A policy could read it and repeat it in a reason; secrets live in environments.
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A panic prints what it worked on.
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            raise PolicyError(f"cannot start a policy worker: {error}") from None
        return ours, mmap.mmap(shared.fileno(), PROGRESS.size), process
