"""The gateway's end of seed and templates: where workers come from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from gateway.adapters.regorus import regorus_process
from gateway.adapters.regorus.regorus_process import LENGTH
from gateway.adapters.regorus.regorus_worker import PROGRESS
from gateway.core.errors import PolicyError

LOAD_DEADLINE_S: Final = 20.0
_SOCKET_BUFFER_BYTES: Final = 1 << 20
_DEFERRED_NICE: Final = 10
_CPU_CLOCK: Final = 2
"""Which clock of a process: all its CPU time, as clock_getcpuclockid(3) has it."""
_READ_BYTES: Final = 1 << 16
_KEPT_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Child:
    """A process that a process of ours has forked; `handle` is a descriptor of it, or None."""

    def __init__(self, pid: int, handle: int | None) -> None:
        self.pid = pid
        self._handle = handle

    def kill(self) -> None:
        """End it. Harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def cpu_ns(self) -> int:
        """Return the CPU time that it has had; where the system does not tell, a lot."""
        try:
            return time.clock_gettime_ns((~self.pid << 3) | _CPU_CLOCK)
        except OSError:
            return sys.maxsize

    def defer(self) -> None:
        """Let it run after others."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, _DEFERRED_NICE)

    async def wait(self) -> None:
        """Return once it has ended, where the system tells. Not to be used after that."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            try:
                await _readable(handle)
            finally:
                os.close(handle)


class Birth:
    """A new worker: the socket it answers on, the bytes it shares, and the process."""

    def __init__(self, connection: socket.socket, progress: mmap.mmap, child: Child) -> None:
        self.connection = connection
        self.progress = progress
        self.child = child


class Nursery:
    """A seed or a template: a process that forks others, one command at a time.

    Every method raises `PolicyError` once the process has ended, broken the protocol or taken
    longer than `LOAD_DEADLINE_S` (`overdue`): it is `lost` then, and everything that it forked ends
    with it.
    """

    def __init__(self, control: socket.socket, child: Child | subprocess.Popen[bytes]) -> None:
        self._control = control
        self._child = child
        self._turn = asyncio.Lock()
        self.lost = False
        self.overdue = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    async def ask(self, command: bytes) -> dict[str, Any]:
        """Have a command of the evaluator carried out (`regorus_worker.Evaluator`)."""
        if len(command) <= _READ_BYTES:
            return (await self._ask(command, ()))[0]
        # A socket would take a bundle in pieces, each of which waits for both sides to be awake.
        with os.fdopen(_open_shared(), "w+b") as shared:
            shared.write(command)
            shared.flush()
            return (await self._ask(b'{"do":"attached"}', [shared.fileno()]))[0]

    async def fork_template(self) -> Nursery:
        """Return a copy of this process that takes commands itself."""
        ours, theirs = _pair()
        try:
            with theirs:
                child = await self._fork("template", [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return Nursery(ours, child)

    async def fork_worker(self) -> Birth:
        """Return a copy of this process that decides."""
        ours, theirs = _pair()
        shared = _open_shared()
        try:
            with theirs:
                os.ftruncate(shared, PROGRESS.size)
                child = await self._fork("worker", [theirs.fileno(), shared])
            return Birth(ours, mmap.mmap(shared, PROGRESS.size), child)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(shared)

    async def aclose(self) -> None:
        """End the process and whatever it forked; return once it is gone."""
        self._lose()
        if isinstance(self._child, Child):
            await self._child.wait()
        else:
            await asyncio.get_running_loop().run_in_executor(None, self._child.wait)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._control.close()
            self._child.kill()

    async def _fork(self, role: str, descriptors: list[int]) -> Child:
        command = json.dumps({"do": "fork", "role": role}).encode()
        reply, handle = await self._ask(command, descriptors)
        return Child(reply["pid"], handle)

    async def _ask(
        self, command: bytes, descriptors: list[int] | tuple[()]
    ) -> tuple[dict[str, Any], int | None]:
        async with self._turn:
            if self.lost:
                raise PolicyError("the process that starts policy workers has ended")
            try:
                async with asyncio.timeout(LOAD_DEADLINE_S):
                    return await self._exchange(command, descriptors)
            except (OSError, ValueError, TimeoutError) as error:
                self._lose()
                self.overdue = isinstance(error, TimeoutError)
                text = f"no answer in {LOAD_DEADLINE_S:g} s" if self.overdue else str(error)
                raise PolicyError(
                    f"the process that starts policy workers failed: {text}"
                ) from None
            except BaseException:
                self._lose()  # an answer that nobody waits for any more would be the next one's
                raise

    async def _exchange(
        self, command: bytes, descriptors: list[int] | tuple[()]
    ) -> tuple[dict[str, Any], int | None]:
        loop = asyncio.get_running_loop()
        message = LENGTH.pack(len(command)) + command
        if descriptors:
            sent = socket.send_fds(self._control, [message], descriptors)
            message = message[sent:]
        await loop.sock_sendall(self._control, message)
        await _readable(self._control.fileno())
        data, handles, _, _ = socket.recv_fds(self._control, _READ_BYTES, 1)
        buffer = bytearray(data)
        while (
            len(buffer) < LENGTH.size or len(buffer) < LENGTH.size + LENGTH.unpack_from(buffer)[0]
        ):
            chunk = await loop.sock_recv(self._control, _READ_BYTES)
            if not chunk:
                raise ConnectionError("it ended")
            buffer += chunk
        return json.loads(buffer[LENGTH.size :]), handles[0] if handles else None


def plant() -> Nursery:
    """Start a seed, exec'd not forked, with nothing of ours but a socket.

    Raises `PolicyError` (`policy_unavailable`) when that is impossible.
    """
    ours, theirs = _pair()
    program = str(Path(regorus_process.__file__).resolve())
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
                [sys.executable, "-I", program, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
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
    return Nursery(ours, process)


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - the signature of the standard library
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
    return ours, theirs


def _open_shared() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("progress")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
