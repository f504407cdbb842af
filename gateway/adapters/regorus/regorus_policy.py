"""The embedded policy engine (DESIGN §3): regorus in worker processes, behind `PolicyEngine`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.policy.policy_scope import PHASES
from gateway.adapters.policy.policy_trial import try_bundle
from gateway.adapters.regorus.regorus_fleet import Fleet, load_command
from gateway.adapters.regorus.regorus_index import Index
from gateway.adapters.regorus.regorus_link import Request
from gateway.adapters.regorus.regorus_template import Seed, Template
from gateway.core.errors import PolicyError
from gateway.core.limits import Limits
from gateway.core.policy.decision import Decision, Phase
from gateway.core.policy.policy_answer import read_answer

_TRIAL_DEADLINE_S: Final = 2.0
"""At least, of which the worker may have the deadline's worth of CPU.

Nobody waits for a trial, and a busy machine is no fault of the policies.
"""
INPUT_MAX_BYTES: Final = 4 << 20
"""More than the largest body and the largest result that policy watches can make of an input."""


class _Route(Struct, frozen=True):
    """What one (tool, phase) needs to be told before it is decided."""

    reads_ledger: bool
    reads_day: bool
    concerns: bool


class _Active:
    """One bundle in use: its fleet, its routes and its index."""

    def __init__(self, fleet: Fleet, tools: Mapping[str, tuple[str, str]]) -> None:
        self.fleet = fleet
        # Kept, because `get_running_loop` asks the system for the process id.
        self.loop = asyncio.get_running_loop()
        self.revision = fleet.bundle.revision
        self.index = Index(fleet)
        self.others = {phase: self._route_unknown(phase) for phase in PHASES}
        self.routes: dict[tuple[str, str], _Route] = {}
        self.add_tools(tools)

    def add_tools(self, tools: Mapping[str, tuple[str, str]]) -> None:
        """Resolve (tool, phase) → packages for tools whose server and effect are known."""
        self.routes = {
            (tool_id, phase): self._route(tool_id, server, effect, phase)
            for tool_id, (server, effect) in tools.items()
            for phase in PHASES
        }

    def route(self, tool_id: str, phase: Phase) -> _Route:
        return self.routes.get((tool_id, phase)) or self.others[phase]

    def _route(self, tool_id: str, server: str, effect: str, phase: str) -> _Route:
        return self._facts(self.index.heard(tool_id, server, effect, phase), phase)

    def _route_unknown(self, phase: str) -> _Route:
        heard = [
            package.name
            for package in self.index.packages
            if package.scope is None
            or package.scope.phases is None
            or phase in package.scope.phases
        ]
        return self._facts(heard, phase)

    def _facts(self, heard: list[str], phase: str) -> _Route:
        packages = [self.fleet.bundle.packages[name] for name in heard]
        return _Route(
            reads_ledger=any(package.reads_ledger for package in packages),
            reads_day=any(package.reads_day for package in packages),
            concerns=any(
                package.answers_results if phase == "result" else True for package in packages
            ),
        )


class RegorusPolicy:
    """`PolicyEngine` on embedded regorus. Nothing runs before `start`.

    `workers` processes decide and one more waits warm; `deadline_ms` bounds each evaluation,
    counted from when it reaches the head of its worker's queue.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        workers: int = 1,
        deadline_ms: int = Limits().policy_deadline_ms,
    ) -> None:
        self._bundle = bundle
        self._workers = workers
        self._deadline_s = deadline_ms / 1000
        self._active: _Active | None = None
        self._tools: dict[str, tuple[str, str]] = {}
        self._tags = 0
        self._seed = Seed()
        self._swap = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Fleet] = {}

    @property
    def revision(self) -> str:
        """`sha256:…` of the active bundle (before `start`: of the one given)."""
        return self._active.revision if self._active else self._bundle.revision

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the running workers; the standby last."""
        return self._active.fleet.pids if self._active else []

    @property
    def nursery_pids(self) -> list[int]:
        """Process ids of what workers are copied from, which itself decides nothing."""
        return self._seed.pids + (self._active.fleet.template.pids if self._active else [])

    @property
    def suspects(self) -> int:
        """How many sets of packages are asked in a worker of their own: they were slow lately."""
        return len(self._active.fleet.suspects) if self._active else 0

    @property
    def healthy(self) -> bool:
        """Whether a worker is running."""
        return bool(self.worker_pids)

    @property
    def shelf(self) -> None:
        """Nobody fetches this engine's bundle."""
        return

    async def start(self) -> None:
        """Start the workers with the bundle.

        Raises `ConfigurationError` (`policy_invalid`, `policy_selftest_failed`) when the bundle
        may not be used and `PolicyError` when workers cannot run.
        """
        try:
            await self.activate(self._bundle)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Kill every worker. Decisions still under way fail."""
        async with self._swap:
            active, self._active = self._active, None
            retiring = dict(self._retiring)
            for task in retiring:
                task.cancel()
            await asyncio.gather(*retiring, return_exceptions=True)
            for fleet in retiring.values():  # one may not even have begun to retire
                await fleet.stop()
            if active is not None:
                await active.fleet.stop()
            await self._seed.aclose()

    async def activate(self, bundle: Bundle) -> None:
        """Load a bundle in new workers, try it, and switch to it at once.

        Decisions asked for before are answered by the old bundle. When anything is wrong with the
        new one it raises as `start` does, and the old bundle stays.
        """
        async with self._swap:
            self._tags += 1
            samples = [build_sample(phase) for phase in PHASES]
            load = load_command(bundle, tag=self._tags, samples=[each.decode() for each in samples])
            template = Template(self._seed, load)
            fleet = Fleet(bundle, template, tag=self._tags, workers=self._workers)
            active = _Active(fleet, self._tools)
            for (
                each
            ) in samples:  # what the trial asks of is built once, and copied with the workers
                active.index.find(each)
            if self._active is not None:  # and what calls under way will ask for next
                active.index.prepare(self._active.index)
            await fleet.start()
            try:
                await self._try(active)
            except BaseException:
                await fleet.stop()
                raise
            old, self._active, self._bundle = self._active, active, bundle
            if old is not None:
                task = asyncio.create_task(old.fleet.retire())
                self._retiring[task] = old.fleet
                task.add_done_callback(self._retiring.pop)

    def set_tools(self, tools: Mapping[str, tuple[str, str]]) -> None:
        """Tell which tools there are: id → (server, effect). Replaces what was told before.

        Optional, and no part of a decision: of an id never told, `reads_ledger` and `concerns` say
        what is true of some tool.
        """
        self._tools = dict(tools)
        if self._active is not None:
            self._active.add_tools(self._tools)

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`. Conservative: what cannot be told from the source counts as yes."""
        return self._running().route(tool_id, phase).reads_ledger

    def reads_day(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`. As conservative as `reads_ledger`."""
        return self._running().route(tool_id, phase).reads_day

    def concerns(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`. In `result`: whether a package could deny or oblige.

        A package whose annotation names no phases concerns all of them.
        """
        return self._running().route(tool_id, phase).concerns

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:  # noqa: ARG002
        """See `PolicyEngine`.

        `PolicyError` codes: `policy_timeout`, `policy_worker_died`, `policy_error` (the engine
        failed on this input), `policy_overloaded` (retryable), `policy_unavailable`,
        `policy_suspended` (it ran wild on this subject's questions, see `regorus_breaker`).
        """
        active = self._running()
        return read_answer(await self._ask(active, document), active.revision)

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:  # noqa: ARG002
        """See `PolicyEngine`. All by one bundle, written at once, each with its own deadline.

        Raises the first `PolicyError` if any of them got no answer.
        """
        found = await self.decide_each([document for _, document in items])
        return [_raised(answer) for answer in found]

    async def decide_each(self, documents: Sequence[bytes]) -> list[Decision | PolicyError]:
        """Decide on each, as `decide` does; a `PolicyError` where that would raise it.

        All by one bundle and written at once. Costs half of what as many tasks would.
        """
        active = self._running()
        answers = [self._ask(active, document) for document in documents]
        found: list[Decision | PolicyError] = []
        try:
            for answer in answers:
                try:
                    found.append(read_answer(await answer, active.revision))
                except PolicyError as error:
                    found.append(error)
        finally:
            for answer in answers[len(found) :]:
                answer.cancel()  # nobody waits for these any more
        return found

    def _ask(
        self, active: _Active, document: bytes, *, trial: bool = False
    ) -> asyncio.Future[bytes | None]:
        answer: asyncio.Future[bytes | None] = active.loop.create_future()
        if len(document) > INPUT_MAX_BYTES:
            text = f"the input has {len(document)} bytes; policy is asked about {INPUT_MAX_BYTES}"
            answer.set_exception(PolicyError(text, code="policy_error"))
            return answer
        subset, asker = active.index.read(document)
        deadline_s, cpu_s = self._deadline_s, None
        if trial:
            deadline_s, cpu_s = max(_TRIAL_DEADLINE_S, deadline_s), deadline_s
        active.fleet.submit(Request(subset, document, answer, deadline_s, asker=asker, cpu_s=cpu_s))
        return answer

    def _running(self) -> _Active:
        if self._active is None:
            raise PolicyError("the policy engine is not running; start it first")
        return self._active

    async def _try(self, active: _Active) -> None:
        async def decide(_tool: str, _phase: Phase, document: bytes) -> Decision:
            answer = await self._ask(active, document, trial=True)
            return read_answer(answer, active.revision)

        await try_bundle(decide)


def _raised(answer: Decision | PolicyError) -> Decision:
    if isinstance(answer, PolicyError):
        raise answer
    return answer
