"""A program that runs below the gateway, with its input and outputs on the event loop.

It is started by `subprocess` and not by the event loop: uvloop's way leaves it copies of its own
outputs, and descriptors of the gateway. Whatever it starts then holds them too, and nobody sees
that it has closed an output, or ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_POLL_S: Final = 0.1


class _Input(asyncio.Protocol):
    """Notes that what is written is not read any more."""

    def __init__(self) -> None:
        self.lost: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Note it. An end of file comes here, too: nothing is read from an input."""
        if not self.lost.done():
            self.lost.set_result(None)


class Child:
    """A running program, in a process group of its own. Made by `start`; let go of by `close`.

    `unheard` is done once it has closed its input.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._transports: list[asyncio.WriteTransport] = []
        self._ended: asyncio.Task[None]
        self._input: asyncio.WriteTransport
        self.stdout: asyncio.StreamReader
        self.stderr: asyncio.StreamReader
        self.unheard: asyncio.Future[None]

    @classmethod
    async def start(
        cls, command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None
    ) -> Self:
        """Start a program. Raises `OSError` when it cannot be started."""
        ours: list[socket.socket] = []
        theirs: list[socket.socket] = []
        child = None
        try:
            for _ in range(3):
                end, other = socket.socketpair()
                ours.append(end)
                theirs.append(other)
                end.setblocking(False)  # noqa: FBT003 - the signature of the standard library
            stdin, stdout, stderr = theirs
            child = cls(
                subprocess.Popen(  # noqa: S603, ASYNC220 - as configured; it returns at once
                    command,
                    stdin=stdin.fileno(),
                    stdout=stdout.fileno(),
                    stderr=stderr.fileno(),
                    env=dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )
            )
            await child._connect(*ours)
        except BaseException:
            if child is not None:
                child.signal(signal.SIGKILL)
                child._process.wait()
                child.close()
            for end in ours:
                end.close()
            raise
        finally:
            for end in theirs:
                end.close()
        return child

    async def _connect(
        self, stdin: socket.socket, stdout: socket.socket, stderr: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        handle = os.pidfd_open(self.pid) if sys.platform == "linux" else None
        self._ended = asyncio.create_task(_wait(self._process, handle))
        self._input, heard = await loop.create_unix_connection(_Input, sock=stdin)
        self._transports.append(self._input)
        self.unheard = heard.lost
        self.stdout = await self._listen(stdout)
        self.stderr = await self._listen(stderr)

    async def _listen(self, end: socket.socket) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().create_unix_connection(
            lambda: asyncio.StreamReaderProtocol(reader), sock=end
        )
        self._transports.append(transport)
        return reader

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def unread(self) -> int:
        """How much of what was written still waits to be taken, in bytes."""
        return self._input.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write to its input; of no effect once that is closed."""
        if not self._input.is_closing():
            self._input.write(data)

    def close_input(self) -> None:
        """Say that nothing more will come, after what was written."""
        self._input.close()

    async def wait(self) -> None:
        """Return once it has ended, whoever holds its outputs."""
        await asyncio.shield(self._ended)

    def signal(self, number: int) -> None:
        """Send a signal to it and to what it started in its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        """Let go of it."""
        if hasattr(self, "_ended"):
            self._ended.cancel()
        for transport in self._transports:
            transport.abort()


async def _wait(process: subprocess.Popen[bytes], handle: int | None) -> None:
    """Return once a process has ended. `handle`: its descriptor, where the system has such."""
    if handle is not None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            loop.add_reader(handle, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
    while process.poll() is None:  # noqa: ASYNC110 - nothing tells of it there
        await asyncio.sleep(_POLL_S)
