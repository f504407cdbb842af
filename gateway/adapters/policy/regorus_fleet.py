"""The workers of one bundle: so many that decide, one that waits warm, and their replacement.

A fleet has one bundle for life. A new bundle is a new fleet, so a swap cannot be half done and
the old workers answer what they were asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.regorus_link import Request, WorkerLink, fail
from gateway.adapters.policy.regorus_worker import CONTROL
from gateway.core.errors import ConfigurationError, PolicyError

LOAD_DEADLINE_S: Final = 20.0
QUEUE_MAX: Final = 4096
_RESTART_DELAYS_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)


class Fleet:
    """Workers that all hold `bundle`, which must be evaluable on each of `samples` (JSON).

    `tag` must differ between the fleets of one gateway.


    INVARIANT: a worker in `_ready` has loaded the bundle and been sent every subset.
    """

    def __init__(
        self, bundle: Bundle, *, tag: int, workers: int, samples: Sequence[str] = ()
    ) -> None:
        self.bundle = bundle
        self._tag = tag
        self._wanted = workers
        self._ready: list[WorkerLink] = []
        self._links: set[WorkerLink] = set()
        self._waiting: deque[Request] = deque()
        self._subsets: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._stopped = False
        self._load = _command(
            do="load", tag=tag, modules=bundle.modules(), data=bundle.data, samples=samples
        )

    @property
    def pids(self) -> list[int]:
        """Process ids of the ready workers, those that decide first, the standby last."""
        return [link.pid for link in self._ready]

    async def start(self) -> None:
        """Bring up every worker and the standby.

        Raises `ConfigurationError` (`policy_invalid`) when the engine refuses the bundle, and
        `PolicyError` when workers cannot be started. Nothing is left running then.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._wanted + 1):
                    group.create_task(self._bring_up())
        except ExceptionGroup as errors:
            await self.stop()
            raise errors.exceptions[0] from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Kill every worker; fail what is unanswered."""
        self._stopped = True
        for task in list(self._tasks):
            task.cancel()
        self._fail_waiting(PolicyError("the policy engine was stopped"))
        await asyncio.gather(*(link.aclose() for link in list(self._links)))
        self._links.clear()
        self._ready.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def retire(self) -> None:
        """Stop once everything that was asked has been answered."""
        while unanswered := [
            request.answer
            for queue in (self._waiting, *(link.pending for link in self._links))
            for request in queue
            if not request.answer.done()
        ]:
            await asyncio.wait(unanswered)
        await self.stop()

    def define_subset(self, subset: Mapping[str, Any]) -> int:
        """Have every worker build the engine of a subset; return its number."""
        index = len(self._subsets) + 1
        command = _command(do="subset", index=index, **subset)
        self._subsets.append(command)
        for link in self._ready:
            self._send_command(link, command)
        return index

    def submit(self, request: Request) -> None:
        """Give a request to the least busy worker. Its answer may be a `PolicyError`."""
        ready = self._ready
        if not ready:
            self._wait(request)
            return
        link = ready[0]
        if self._wanted > 1:
            link = min(ready[: self._wanted], key=_depth)
        if len(link.pending) >= QUEUE_MAX:
            fail(request, _overloaded())
        else:
            link.submit(request)

    def _wait(self, request: Request) -> None:
        if self._failures or not self._tasks:
            fail(request, PolicyError("no policy worker is running"))
        elif len(self._waiting) >= QUEUE_MAX:
            fail(request, _overloaded())
        else:
            self._waiting.append(request)

    def _on_lost(self, link: WorkerLink, rest: list[Request]) -> None:
        """Send what a lost worker never began to another, once, and start a new one."""
        was_ready = link in self._ready
        if was_ready:
            self._ready.remove(link)
            self._start_task(self._replace())
        self._start_task(self._bury(link))
        for request in rest:
            if request.resent or not was_ready:
                fail(
                    request, PolicyError("two policy workers were lost", code="policy_worker_died")
                )
            else:
                request.resent = True
                self.submit(request)

    async def _bury(self, link: WorkerLink) -> None:
        await link.aclose()
        self._links.discard(link)

    async def _replace(self) -> None:
        while not self._stopped:
            delay = _RESTART_DELAYS_S[min(self._failures, len(_RESTART_DELAYS_S) - 1)]
            await asyncio.sleep(delay)
            try:
                await self._bring_up()
            except (PolicyError, ConfigurationError) as error:
                self._failures += 1
                if not self._ready:
                    self._fail_waiting(PolicyError(f"no policy worker is running: {error}"))
            else:
                self._failures = 0
                return

    async def _bring_up(self) -> None:
        link = WorkerLink(self._tag, self._on_lost)
        self._links.add(link)
        answer = self._send_command(link, self._load)
        try:
            raw = await answer
        except PolicyError as error:
            raise PolicyError(f"a policy worker could not load the bundle: {error}") from None
        if faults := json.loads(raw or b'{"faults": ["no answer"]}')["faults"]:
            await link.aclose()
            self._links.discard(link)
            raise ConfigurationError("\n".join(faults), code="policy_invalid")
        if link.lost:
            raise PolicyError("a policy worker was lost right after it loaded the bundle")
        # Frames are answered in order: what follows finds every subset defined.
        for command in self._subsets:
            self._send_command(link, command)
        self._ready.append(link)
        while self._waiting:
            self.submit(self._waiting.popleft())

    def _send_command(self, link: WorkerLink, command: bytes) -> asyncio.Future[bytes | None]:
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        # A subset that fails leaves its calls denied; nobody waits for this answer then.
        answer.add_done_callback(_retrieve)
        link.submit(Request(CONTROL, command, answer, LOAD_DEADLINE_S))
        return answer

    def _start_task(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        if self._stopped:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail_waiting(self, error: PolicyError) -> None:
        while self._waiting:
            fail(self._waiting.popleft(), error)


def _depth(link: WorkerLink) -> int:
    return len(link.pending)


def _retrieve(answer: asyncio.Future[bytes | None]) -> None:
    if not answer.cancelled():
        with contextlib.suppress(Exception):
            answer.exception()


def _overloaded() -> PolicyError:
    return PolicyError(
        "too many decisions are waiting; try again", code="policy_overloaded", retryable=True
    )


def _command(**fields: Any) -> bytes:  # noqa: ANN401 - JSON
    return json.dumps(fields).encode()
