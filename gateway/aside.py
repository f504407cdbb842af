"""Work that may block, in a thread that nobody has to wait for.

A keyring may ask a person, a file may lie on a disk that is gone, or be a pipe that nobody reads.
In the loop's own threads that would hold up everything else that uses them, and the end of the
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Final, TypeVar

T = TypeVar("T")

STUCK_MAX: Final = 8


class Aside:
    """Runs blocking work aside, at most `stuck_max` of it at a time."""

    def __init__(self, stuck_max: int = STUCK_MAX) -> None:
        self._stuck_max = stuck_max
        self._running = 0

    async def run(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises `TimeoutError` after `timeout_s`, and at once where too much is stuck already.
        """
        if self._running >= self._stuck_max:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def finish(set_it: Callable[[], None]) -> None:
            self._running -= 1
            if not answer.done():  # nobody waits any more
                set_it()

        def thread() -> None:
            try:
                set_it = partial(answer.set_result, work())
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                set_it = partial(answer.set_exception, error)
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(finish, set_it)

        self._running += 1
        Thread(target=thread, daemon=True, name="aside").start()
        async with asyncio.timeout(timeout_s):
            return await answer
