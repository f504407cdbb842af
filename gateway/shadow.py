"""Shadow evaluation: a candidate decides beside the policies in use, on live traffic, to no effect.

A call leaves its input and its decision here and goes on; nothing is waited for. What the candidate
cannot keep up with is dropped and counted, so that it slows nobody. It has workers of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, Literal, Protocol, TypeVar

import structlog
from msgspec import Struct

from gateway.core.errors import PolicyError
from gateway.core.policy.asked import Asked, read_asked
from gateway.core.policy.decision import Decision, Phase
from gateway.core.records.impact import CHANGES, Impact, Kind, compare, told_by

WAITING_MAX: Final = 2_048
WAITING_BYTES_MAX: Final = 16 << 20
BATCH: Final = 16
"""So many at once: what is done for them on the loop takes about a millisecond."""

PAUSE_S: Final = 0.016
"""Between batches: at most 1,000 decisions a second, a few percent of the loop. More are a sample,
and what is not compared is counted as dropped."""

_log: Final = structlog.get_logger("gateway.shadow")

B = TypeVar("B")
State = Literal["running", "stopped", "failed"]


class ShadowEngine(Protocol):
    """What evaluates a candidate, with workers of its own."""

    @property
    def revision(self) -> str:
        """`sha256:…` of the candidate."""
        ...

    async def start(self) -> None:
        """Start. Raises `CountersignError` for a candidate that may not be used."""
        ...

    async def stop(self) -> None:
        """End the workers."""
        ...

    async def decide(self, questions: Sequence[Asked]) -> list[Decision | str]:
        """Decide on each; a code where there is no answer."""
        ...


class Report(Struct, frozen=True, kw_only=True):
    """What a shadow has seen. `observed` = compared + dropped + waiting.

    `counts`: decisions by what became of them (`gateway.core.records.impact.Kind`). `since_s`,
    `until_s`: seconds since the epoch.
    """

    label: str
    revision: str
    state: State
    since_s: int
    until_s: int | None
    observed: int
    compared: int
    dropped: int
    counts: dict[str, int]
    errors: dict[str, int]
    by_tool: dict[str, dict[str, int]]
    by_rule: dict[str, dict[str, int]]
    by_agent: dict[str, dict[str, int]]

    @property
    def changed(self) -> int:
        """How many decisions would have been others."""
        return sum(self.counts.get(kind, 0) for kind in CHANGES)


Note = Callable[[Literal["start", "stop"], Report], Awaitable[None]]
"""Puts the start or the end of a shadow on record."""

Pair = tuple[Asked, Decision, Decision | str]
"""What was asked, what was decided, and what the candidate says, or why it says nothing."""

Told = Callable[[Sequence[Pair]], Awaitable[None]]
"""Is told what was compared, a few at once."""


async def _tell_nobody(_pairs: Sequence[Pair]) -> None:
    return


class ShadowEvaluator(Generic[B]):
    """At most one candidate at a time, made of a bundle by `build`.

    INVARIANT: `observe` neither waits nor raises, whatever the candidate does.
    """

    def __init__(
        self,
        build: Callable[[B], ShadowEngine],
        *,
        now_s: Callable[[], int],
        note: Note | None = None,
        told: Told = _tell_nobody,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._told: Final = told
        self.note: Note | None = note
        self._build: Final = build
        self._now_s: Final = now_s
        self._waiting_max: Final = waiting_max
        self._run: _Run | None = None
        self._last: Report | None = None
        self._turn: Final = asyncio.Lock()

    async def start(self, bundle: B, label: str) -> None:
        """Begin to evaluate a candidate; ends the one before.

        Raises `CountersignError` for one that may not be used, or when it cannot be put on record:
        then nothing is evaluated.
        """
        async with self._turn:
            await self._end()
            engine = self._build(bundle)
            await engine.start()
            run = _Run(engine, label, self._now_s(), self._waiting_max, self._told)
            try:
                await self._tell("start", run.report(None))
            except BaseException:
                await engine.stop()
                raise
            run.begin()
            self._run = run

    async def stop(self) -> Report | None:
        """End, and return what was seen; None where nothing ran. What still waits is dropped."""
        async with self._turn:
            return await self._end()

    def report(self) -> Report | None:
        """Return what is seen so far, or was seen last; None where there never was a candidate."""
        return self._last if self._run is None else self._run.report(None)

    def observe(self, tool_id: str, phase: Phase, document: bytes, decision: Decision) -> None:
        """Take note of a decision that was made. Hot path: constant, a few hundred nanoseconds."""
        run = self._run
        if run is not None:
            run.take(tool_id, phase, document, decision)

    async def _end(self) -> Report | None:
        run, self._run = self._run, None
        if run is None:
            return None
        await run.end()
        self._last = report = run.report(self._now_s())
        await self._tell("stop", report)
        return report

    async def _tell(self, what: Literal["start", "stop"], report: Report) -> None:
        if self.note is not None:
            await self.note(what, report)


class _Run:
    """One candidate under way."""

    def __init__(
        self, engine: ShadowEngine, label: str, since_s: int, waiting_max: int, told: Told
    ) -> None:
        self._told: Final = told
        self._engine: Final = engine
        self._label: Final = label
        self._since_s: Final = since_s
        self._waiting: Final[deque[tuple[str, Phase, bytes, Decision]]] = deque()
        self._waiting_max: Final = waiting_max
        self._waiting_bytes = 0
        self._wake: Final = asyncio.Event()
        self._impact: Final = Impact()
        self._observed = self._dropped = 0
        self._state: State = "running"
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())

    def take(self, tool_id: str, phase: Phase, document: bytes, decision: Decision) -> None:
        self._observed += 1
        full = len(self._waiting) >= self._waiting_max
        if full or self._waiting_bytes > WAITING_BYTES_MAX or self._state != "running":
            self._dropped += 1
            return
        self._waiting.append((tool_id, phase, document, decision))
        self._waiting_bytes += len(document)
        self._wake.set()

    async def end(self) -> None:
        if self._state == "running":
            self._state = "stopped"
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._dropped += len(self._waiting)
        self._waiting.clear()
        await self._engine.stop()

    async def _work(self) -> None:
        try:
            while True:
                await self._wake.wait()
                while self._waiting:
                    await self._next()
                    await asyncio.sleep(PAUSE_S)
                self._wake.clear()
        except Exception as error:  # noqa: BLE001 - a fault of ours ends the shadow, and no call
            self._state = "failed"
            _log.error("shadow_failed", error=type(error).__name__, label=self._label)
        finally:
            self._dropped += len(self._waiting)
            self._waiting.clear()

    async def _next(self) -> None:
        """Evaluate the next few. Once taken from the queue they are compared or dropped."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._waiting_bytes -= sum(len(document) for _, _, document, _ in batch)
        self._dropped += len(batch)  # until they are compared
        asked = [read_asked(document) for _, _, document, _ in batch]
        try:
            answers = await self._engine.decide(asked)
        except PolicyError as error:
            answers = [error.code] * len(batch)
        self._dropped -= len(batch)
        for (_, phase, _, decision), each, answer in zip(batch, asked, answers, strict=True):
            self._compare(phase, each, decision, answer)
        made = (decision for _, _, _, decision in batch)
        await self._told(list(zip(asked, made, answers, strict=True)))

    def _compare(self, phase: Phase, asked: Asked, made: Decision, answer: Decision | str) -> None:
        impact = self._impact
        impact.phases[phase] += 1
        if isinstance(answer, str):
            impact.add_error(answer)
            return
        change = compare(told_by(made), told_by(answer), phase, asked.spec_digest)
        tool = asked.tool_id if phase != "issue" else "(issue)"
        impact.add(change, tool=tool, agent=asked.agent)

    def report(self, until_s: int | None) -> Report:
        impact = self._impact
        return Report(
            label=self._label,
            revision=self._engine.revision,
            state=self._state,
            since_s=self._since_s,
            until_s=until_s,
            observed=self._observed,
            compared=impact.total,
            dropped=self._dropped,
            counts={kind: count for kind, count in impact.kinds.items() if count},
            errors=dict(impact.errors),
            by_tool=_plain(impact.by("tool")),
            by_rule=_plain(impact.by("rule")),
            by_agent=_plain(impact.by("agent")),
        )


def _plain(counts: Mapping[Kind, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {str(kind): dict(found) for kind, found in counts.items()}
