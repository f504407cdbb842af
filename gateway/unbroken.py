"""Work that goes on when whoever waits for it has gone (DESIGN §1, call upstream)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Enduring(asyncio.Task[None]):
    """A task that `stop` does not end in the middle of unbroken work.

    `cancel` is as in every task, for time limits inside the work are made of it
    (`asyncio.timeout` cancels the task that it runs in); a loop that is torn down uses it too.
    """

    _depth = 0
    _stopped = False

    def stop(self) -> None:
        """End the task now or, the first time, after its unbroken work."""
        if self._depth and not self._stopped:
            self._stopped = True
        else:
            self.cancel()

    def enter(self) -> None:
        """Begin unbroken work."""
        self._depth += 1

    def leave(self) -> None:
        """End it; a `stop` that came meanwhile is felt at the next wait."""
        self._depth -= 1
        if self._stopped and not self._depth:
            self.cancel()


class Stopper:
    """What a server that cancels its requests is given in the place of an `Enduring` task."""

    __slots__ = ("_task",)

    def __init__(self, task: Enduring) -> None:
        self._task = task

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ANN401 - as in `asyncio.Task`
        """Stop the task, see `Enduring.stop`."""
        del msg
        self._task.stop()
        return True


class Unbroken:
    """Runs work so that no cancelled caller cuts it off halfway.

    In an `Enduring` task it runs in place; elsewhere in a task of its own, which costs more.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._in_place = 0
        self._idle: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; a caller that is cancelled leaves it running to its end."""
        # Named, because asking which loop runs asks the system for the process id. In another
        # loop nobody is its task, and the work runs apart.
        self._loop = self._loop or asyncio.get_running_loop()
        caller = asyncio.current_task(self._loop)
        if not isinstance(caller, Enduring):
            return await self._finish_apart(work)
        self._in_place += 1
        caller.enter()
        try:
            return await work
        finally:
            caller.leave()
            self._in_place -= 1
            if self._idle is not None and not self._in_place and not self._idle.done():
                self._idle.set_result(None)

    async def close(self) -> None:
        """Wait for everything under way, and for what that sets going."""
        while self._running or self._in_place:
            await asyncio.gather(*self._running, return_exceptions=True)
            if self._in_place:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle

    async def _finish_apart(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody may be left to be told
