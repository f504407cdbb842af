"""Where the keeper of a log runs: in a process of its own, or in a thread of this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.adapters.audit import audit_process
from gateway.adapters.audit.audit_files import name_keeper
from gateway.adapters.audit.audit_handover import Handover
from gateway.adapters.audit.audit_keeper import Keeper
from gateway.adapters.audit.audit_link import ENDED
from gateway.adapters.audit.audit_orders import pack

ENDING_S: Final = 2.0
"""How long a keeper may take to end once its connection is closed."""

_KEPT_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class KeeperThread:
    """A keeper in this process, for a command, and for tests that let its disk fail."""

    def __init__(self, keeper: Keeper) -> None:
        self.connection, self._theirs = socket.socketpair()
        self._keeper = keeper
        self._thread = threading.Thread(target=self._run, name="audit-keeper", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._theirs:
            self._keeper.serve(self._theirs)

    @staticmethod
    def tell(why: str, failed: Callable[[str], None]) -> None:
        """Call `failed` with why it keeps nothing any more."""
        failed(why)

    async def ended(self) -> None:
        """Return once it is gone, unless its disk hangs: then it is left behind."""
        await asyncio.to_thread(self._thread.join, ENDING_S)


class KeeperProcess:
    """A process that will keep a log, exec'd, with nothing of this one's memory or files."""

    def __init__(self) -> None:
        """Start it. Raises `OSError`."""
        self.connection, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs.fileno())
        except OSError:
            self.connection.close()
            raise
        self._untold: Callable[[str], None] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def hand(self, log: Handover, lock_fds: Sequence[int]) -> None:
        """Hand it an open log and its locks, which from now on last as long as both hold them."""
        message = pack(msgspec.msgpack.encode(log))
        sent = socket.send_fds(self.connection, [message], lock_fds)
        self.connection.sendall(message[sent:])
        name_keeper(lock_fds[0], self.pid)

    def tell(self, why: str, failed: Callable[[str], None]) -> None:
        """Call `failed` with why it keeps nothing any more, and with how it ended where it did.

        That is known when it is reaped, which a thread waits for; after `ENDING_S`, or when
        `ended` returns, `failed` is called without. Call it once, on the running loop.
        """
        loop = asyncio.get_running_loop()
        if why == ENDED:
            self._untold = failed
            loop.call_later(ENDING_S, self._tell_end)
        else:
            failed(why)  # it said so itself, or said what cannot be
        reaper = threading.Thread(
            target=self._reap, args=(loop,), name="audit-keeper-end", daemon=True
        )
        reaper.start()

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: `ended` has told
            loop.call_soon_threadsafe(self._tell_end)

    def _tell_end(self) -> None:
        failed, self._untold = self._untold, None
        if failed is not None:
            failed(f"{ENDED}{_describe(self._process.returncode)}")

    async def ended(self) -> None:
        """Return once it is gone; it is killed where it does not end by itself.

        What it was asked for and has not answered was promised to nobody.
        """
        try:
            await asyncio.to_thread(self._process.wait, ENDING_S)
        except subprocess.TimeoutExpired:
            self._tell_end()  # before it is killed: that is no cause
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # its disk hangs
                await asyncio.to_thread(self._process.wait, ENDING_S)
        self._tell_end()


def _describe(status: int | None) -> str:
    """Return how a process ended, as a sentence goes on; nothing where that says nothing."""
    if not status:
        return ""
    return f": killed by signal {-status}" if status < 0 else f": it exited with {status}"


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, "-I", audit_process.__file__, str(descriptor)],
        pass_fds=(descriptor,),
        env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
