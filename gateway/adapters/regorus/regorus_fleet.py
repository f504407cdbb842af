"""The workers of one bundle: so many that decide, one that waits warm, and their replacement.

A fleet has one bundle for life. A new bundle is a new fleet, so a swap cannot be half done and
the old workers answer what they were asked.

What takes long is kept from the others twice. A worker that works on one request for longer than
`PATIENCE_S` is left alone with it, and another one takes over the rest at once. And from then on,
for `SUSPECT_S`, what is asked of the same packages goes to a worker of its own, the *lane*.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.regorus.regorus_breaker import SUSPENDED_S, Breaker
from gateway.adapters.regorus.regorus_engines import drop_command, estimate_bytes
from gateway.adapters.regorus.regorus_link import PATIENCE_S, Request, WorkerLink, fail
from gateway.adapters.regorus.regorus_nursery import LOAD_DEADLINE_S
from gateway.adapters.regorus.regorus_template import Template
from gateway.adapters.regorus.regorus_worker import CONTROL
from gateway.core.errors import ConfigurationError, PolicyError

QUEUE_MAX: Final = 4096
LANE_QUEUE_MAX: Final = 256
"""Requests of suspects that may wait: each of them may take as long as patience lasts."""
LANE_PATIENCE_S: Final = 0.005
SUSPECT_S: Final = 5.0
SLOW_MAX: Final = 4
"""Workers that may be left alone at a time."""
WILD_MAX: Final = 10
"""Workers that suspects may cost; from then on a question of theirs gets `WILD_CPU_S`."""
WILD_CPU_S: Final = 0.01
_RESTART_DELAYS_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
_CRASHES_FREE: Final = 3
"""Workers lost before they answered anything, in a row, that are replaced at once."""


class Fleet:
    """Workers that are copies of `template`, which loads `bundle` under `tag`.

    `tag` must differ between the fleets of one gateway.

    INVARIANT: a worker in `_ready` has loaded the bundle.
    """

    def __init__(self, bundle: Bundle, template: Template, *, tag: int, workers: int) -> None:
        self.bundle = bundle
        self.template = template
        self._tag = tag
        self._wanted = workers
        self._ready: list[WorkerLink] = []
        self._slow: set[WorkerLink] = set()
        self._lane: WorkerLink | None = None
        self._links: set[WorkerLink] = set()
        self._waiting: deque[Request] = deque()
        self._parked: deque[Request] = deque()
        self._suspects: dict[int, asyncio.TimerHandle] = {}
        self._breaker = Breaker()
        self._wild: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._subsets: list[tuple[bytes, int]] = []
        self._opening = False
        self._failures = self._crashes = 0
        self._stopped = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the ready workers, those that decide first, the standby last."""
        return [link.pid for link in self._ready]

    @property
    def suspects(self) -> frozenset[int]:
        """The subsets that have a worker of their own for now."""
        return frozenset(self._suspects)

    async def start(self) -> None:
        """Bring up every worker and the standby, with the engines of all subsets defined by now.

        Raises `ConfigurationError` (`policy_invalid`) when the engine refuses the bundle, and
        `PolicyError` when workers cannot be started. Nothing is left running then.
        """
        try:
            await self.template.open()
            for number, subset in enumerate(self._subsets, start=1):
                await self.template.learn(number, *subset)
            for _ in range(self._wanted + 1):
                await self._bring_up()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Kill every worker; fail what is unanswered."""
        self._stopped = True
        for task in list(self._tasks):
            task.cancel()
        for timer in self._suspects.values():
            timer.cancel()
        for queue in (self._waiting, self._parked):
            self._fail_all(queue, PolicyError("the policy engine was stopped"))
        await asyncio.gather(*(link.aclose() for link in list(self._links)))
        self._links.clear()
        self._ready.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.template.aclose()

    async def retire(self) -> None:
        """Stop once everything that was asked has been answered."""
        while unanswered := [
            request.answer
            for queue in (self._waiting, self._parked, *(link.pending for link in self._links))
            for request in queue
            if not request.answer.done()
        ]:
            await asyncio.wait(unanswered)
        await self.stop()

    def define_subset(self, subset: Mapping[str, Any], source_bytes: int) -> int:
        """Say what a subset is; return its number. Its engine is built where it is first asked."""
        number = len(self._subsets) + 1
        build = json.dumps({"do": "subset", "index": number, **subset}).encode()
        self._subsets.append((build, estimate_bytes(source_bytes)))
        return number

    def submit(self, request: Request) -> None:
        """Give a request to the least busy worker. Its answer may be a `PolicyError`."""
        if self._breaker and self._is_suspended(request):
            fail(request, _suspended())
            return
        if self._suspects and request.subset in self._suspects:
            self._submit_to_lane(request)
            return
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
            self._give(link, request)

    def _give(self, link: WorkerLink, request: Request) -> None:
        number = request.subset
        if number and not link.engines.use(number):
            self._build(link, number)
            # The next to decide is warm then, and so are those that are copied later.
            for standby in self._ready[self._wanted :]:
                if standby is not link and not standby.engines.use(number):
                    self._build(standby, number)
            self._start_task(self.template.learn(number, *self._subsets[number - 1]))
        link.submit(request)

    def _build(self, link: WorkerLink, number: int) -> None:
        """Have a worker build an engine. A decision's deadline begins when that is done."""
        build, size = self._subsets[number - 1]
        for gone in link.engines.add(number, size):
            self._command(link, drop_command(gone), gone)
        self._command(link, build, number)

    def _command(self, link: WorkerLink, command: bytes, about: int) -> None:
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        # A subset that fails leaves its calls denied; nobody waits for this answer.
        answer.add_done_callback(_retrieve)
        link.submit(Request(CONTROL, command, answer, LOAD_DEADLINE_S, about=about))

    # --- what has no worker -----------------------------------------------------------------------

    def _wait(self, request: Request) -> None:
        if self._failures or self._crashes > _CRASHES_FREE or not self._tasks:
            fail(request, PolicyError("no policy worker is running"))
        elif len(self._waiting) >= QUEUE_MAX:
            fail(request, _overloaded())
        else:
            self._waiting.append(request)

    def _submit_to_lane(self, request: Request) -> None:
        lane = self._lane
        queue = self._parked if lane is None else lane.pending
        if len(queue) >= LANE_QUEUE_MAX:
            fail(request, _overloaded())
        elif lane is not None:
            self._give(lane, request)
        else:
            self._parked.append(request)
            self._prepare_lane()

    def _prepare_lane(self) -> None:
        if not self._opening:
            self._opening = True
            self._start_task(self._open_lane())

    async def _open_lane(self) -> None:
        try:
            self._lane = await self._fork(LANE_PATIENCE_S)
        except (PolicyError, ConfigurationError) as error:
            self._fail_all(self._parked, PolicyError(f"no policy worker is running: {error}"))
        finally:
            self._opening = False
        while self._parked and self._lane is not None:
            self._give(self._lane, self._parked.popleft())

    def _suspect(self, number: int, seconds: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        if number in self._suspects:
            self._suspects[number].cancel()
        seconds = SUSPECT_S if seconds is None else seconds
        self._suspects[number] = loop.call_later(seconds, self._acquit, number)

    def _is_suspended(self, request: Request) -> bool:
        now_s = request.answer.get_loop().time()
        return self._breaker.is_suspended((request.subset, request.asker), now_s)

    def _strike(self, request: Request) -> None:
        """Note on whose question policy ran wild. What names nobody is nobody's fault."""
        if request.wild:
            self._wild[request.subset] += 1
        if not request.wild or not request.asker:
            return
        now_s = asyncio.get_running_loop().time()
        if self._breaker.strike((request.subset, request.asker), now_s):
            # The next try, after the suspension, shall not cost others a worker either.
            self._suspect(request.subset, SUSPENDED_S + SUSPECT_S)

    def _acquit(self, number: int) -> None:
        del self._suspects[number]
        if self._lane is not None and not self._suspects:
            if self._lane.pending:
                self._suspect(number)
                return
            lane, self._lane = self._lane, None
            self._start_task(self._bury(lane))
        del self._wild[number]

    # --- what becomes of workers ------------------------------------------------------------------

    def _on_slow(self, link: WorkerLink) -> None:
        if len(self._slow) >= SLOW_MAX or self._stopped:
            return
        # Whoever is behind many of these, however many they are: each costs little of a core.
        often = self._wild[link.head.subset] >= WILD_MAX
        head, rest = link.leave_alone(WILD_CPU_S if often else None)
        self._slow.add(link)
        self._suspect(head.about)
        self._leave(link, to_a_request=True)
        for request in rest:
            if request.subset != CONTROL:
                self.submit(request)

    def _on_lost(self, link: WorkerLink, head: Request | None, rest: list[Request]) -> None:
        """Send what a lost worker never began to another, and start a new one."""
        if link in self._slow:
            self._slow.discard(link)
        elif head is not None:
            self._suspect(head.about)
        elif link in self._ready:
            self._crashes = 0 if link.proven else self._crashes + 1
        if head is not None:
            self._strike(head)
        self._leave(link, to_a_request=head is not None)
        self._start_task(self._bury(link))
        for request in rest:
            if request.subset == CONTROL:
                fail(request, PolicyError("the policy worker is gone"))
            elif head is None and request.resent:
                text = "two policy workers were lost"
                fail(request, PolicyError(text, code="policy_worker_died"))
            else:
                # Where it is known what a worker was lost on, the others had no part in it.
                request.resent = request.resent or head is None
                self.submit(request)

    def _leave(self, link: WorkerLink, *, to_a_request: bool) -> None:
        if link in self._ready:
            self._ready.remove(link)
            self._start_task(self._replace())
        if link is self._lane:
            self._lane = None
            if to_a_request:
                self._prepare_lane()  # whoever is next need not wait for it

    async def _bury(self, link: WorkerLink) -> None:
        await link.aclose()
        self._links.discard(link)

    async def _replace(self) -> None:
        while not self._stopped:
            delays = max(self._failures, self._crashes - _CRASHES_FREE, 0)
            await asyncio.sleep(_RESTART_DELAYS_S[min(delays, len(_RESTART_DELAYS_S) - 1)])
            try:
                await self._bring_up()
            except (PolicyError, ConfigurationError) as error:
                self._failures += 1
                if not self._ready:
                    text = f"no policy worker is running: {error}"
                    self._fail_all(self._waiting, PolicyError(text))
            else:
                self._failures = 0
                return

    async def _bring_up(self) -> None:
        self._ready.append(await self._fork(PATIENCE_S))
        while self._waiting and self._ready:
            self.submit(self._waiting.popleft())

    async def _fork(self, patience_s: float) -> WorkerLink:
        birth, engines = await self.template.fork()
        link = WorkerLink(
            birth,
            self._tag,
            engines=engines,
            patience_s=patience_s,
            on_slow=self._on_slow,
            on_lost=self._on_lost,
        )
        self._links.add(link)
        return link

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopped:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _fail_all(queue: deque[Request], error: PolicyError) -> None:
        while queue:
            fail(queue.popleft(), error)


def load_command(bundle: Bundle, *, tag: int, samples: Sequence[str]) -> bytes:
    """Return the command that loads a bundle and tries it on samples (JSON)."""
    command = {"do": "load", "tag": tag, "modules": bundle.modules(), "data": bundle.data}
    return msgspec.json.encode(command | {"samples": list(samples)})


def _depth(link: WorkerLink) -> int:
    return len(link.pending)


def _retrieve(answer: asyncio.Future[bytes | None]) -> None:
    """Look at a failure that nobody waits for any more, so that it is not told as forgotten."""
    if not answer.cancelled():
        answer.exception()


def _suspended() -> PolicyError:
    return PolicyError(
        "policy ran out of time on this subject's questions, time and again; it is not asked now",
        code="policy_suspended",
        retryable=True,
    )


def _overloaded() -> PolicyError:
    return PolicyError(
        "too many decisions are waiting; try again", code="policy_overloaded", retryable=True
    )
