"""The gateway's end of one PKCS#11 worker process: frames out, answers in, and the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.adapters.keys import pkcs11_worker
from gateway.adapters.keys.pkcs11_worker import ANSWER, DENIED, FAULT, FRAME, REFUSED
from gateway.core.errors import ConfigurationError, CountersignError

PENDING_MAX: Final = 1_024
CLOSE_S: Final = 2.0
"""How long a process that is told to end may take to log out."""

PIN_REFUSED: Final = "pin_refused"
"""Code of the `ConfigurationError` of a token that does not take the PIN: asking again locks it."""

_OURS: Final = "COUNTERSIGN"


class _Request:
    __slots__ = ("answer", "asked_s")

    def __init__(self, answer: asyncio.Future[bytes], asked_s: float) -> None:
        self.answer = answer
        self.asked_s = asked_s


class Pkcs11Link:
    """One worker process. `on_lost` is called once when it is gone without having been closed.

    INVARIANT: an answer that came after its deadline, or out of order, is given to nobody.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._pending: deque[_Request] = deque()
        self._sent_id = self._answered_id = 0
        self._answered_s = 0.0
        self._lost = False
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The worker's process id; 0 before it is started."""
        return 0 if self._process is None else self._process.pid

    async def start(self, hidden: str = "") -> None:
        """Start the process, exec'd not forked. Raises `CountersignError`.

        A module finds its own configuration in the environment, so that is passed on, but for
        what is ours and the variable of the name `hidden`.
        """
        ours, theirs = socket.socketpair()
        environment = _passed_on(os.environ, hidden)
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own file; it returns at once
                    [sys.executable, "-I", _program(), str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                ours.close()
                raise unavailable(f"its process cannot be started: {error.strerror}") from None
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    async def ask(self, kind: int, payload: bytes, deadline_s: float) -> bytes:
        """Return the answer to one request.

        Raises `CountersignError` `signer_unavailable` where none came in time, and
        `ConfigurationError` where the key cannot be had.
        """
        if self._lost or self._writer is None:
            raise unavailable("its process is gone")
        if len(self._pending) >= PENDING_MAX:
            raise unavailable("too many signatures are waiting")
        loop = asyncio.get_running_loop()
        request = _Request(loop.create_future(), loop.time())
        self._sent_id += 1
        self._pending.append(request)
        self._writer.write(FRAME.pack(len(payload), self._sent_id, kind) + payload)
        try:
            done, _ = await asyncio.wait([request.answer], timeout=deadline_s)
            if done:
                return request.answer.result()
        finally:
            request.answer.cancel()  # nobody waits for it any more; its turn is still kept
        # Late because many were before it, or because the module hangs? Only then it is killed.
        if self._pending and self._silent_s(loop.time()) >= deadline_s:
            self._lose()
        raise unavailable("it took longer than its deadline")

    def _silent_s(self, now_s: float) -> float:
        """Return for how long the module has worked at the request that is first in line."""
        return now_s - max(self._answered_s, self._pending[0].asked_s)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                length, answered_id, kind = FRAME.unpack(await reader.readexactly(FRAME.size))
                payload = await reader.readexactly(length)
                if not self._pending or answered_id != self._answered_id + 1:
                    break
                self._answered_id = answered_id
                self._answered_s = asyncio.get_running_loop().time()
                _resolve(self._pending.popleft(), kind, payload)
                if kind == FAULT:  # a session that the HSM dropped is got again by a new process
                    break
        self._lose()

    def _lose(self) -> None:
        if self._lost:
            return
        self._end()
        self._kill()
        self._on_lost()

    def _end(self) -> None:
        self._lost = True
        if self._writer is not None:
            self._writer.close()
        for request in self._pending:
            if not request.answer.done():
                request.answer.set_exception(unavailable("its process ended"))
        self._pending.clear()

    async def close(self) -> None:
        """Let the process end, or kill it; return once it is gone. Fails what is pending."""
        if not self._lost:
            self._end()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, CLOSE_S)
            except subprocess.TimeoutExpired:
                self._kill()
                await asyncio.to_thread(self._process.wait)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def unavailable(why: str) -> CountersignError:
    """Return the error of a signer that does not sign now."""
    return CountersignError(
        f"the token key in the HSM cannot sign: {why}", code="signer_unavailable", retryable=True
    )


def _program() -> str:
    return str(Path(pkcs11_worker.__file__).resolve())


def _passed_on(environ: Mapping[str, str], hidden: str) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OURS) and name != hidden
    }


def _resolve(request: _Request, kind: int, payload: bytes) -> None:
    if request.answer.done():
        return
    if kind == ANSWER:
        request.answer.set_result(payload)
        return
    text = payload.decode(errors="replace")
    if kind == DENIED:
        request.answer.set_exception(ConfigurationError(text, code=PIN_REFUSED))
    elif kind == REFUSED:
        request.answer.set_exception(ConfigurationError(text))
    else:
        request.answer.set_exception(unavailable(f"the module answered {text}"))
