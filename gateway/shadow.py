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

FAULT_PAUSE_S: Final = 0.1
FAULT_PAUSE_MAX_S: Final = 30.0
"""After a fault, before it goes on with new workers; doubled each time in a row, to the second."""

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
    `until_s`: seconds since the epoch. `state`: `failed` from a fault of the gateway's own until it
    compares again; `faults`: how many there were, `fault`: the type of the last one. What it
    could not compare is `dropped`.
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
    faults: int = 0
    fault: str = ""

    @property
    def changed(self) -> int:
        """How many decisions would have been others."""
        return sum(self.counts.get(kind, 0) for kind in CHANGES)


Note = Callable[[Literal["start", "stop"], Report], Awaitable[None]]
"""Puts the start or the end of a shadow on record."""

Pair = tuple[Asked, Decision, Decision | str]
"""What was asked, what was decided, and what the candidate says, or why it says nothing."""

_Seen = tuple[str, Phase, bytes, Decision]

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
        fault_pause_s: float = FAULT_PAUSE_S,
    ) -> None:
        self._fault_pause_s: Final = fault_pause_s
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
            run = _Run(
                engine,
                lambda: self._build(bundle),
                label=label,
                since_s=self._now_s(),
                waiting_max=self._waiting_max,
                told=self._told,
                fault_pause_s=self._fault_pause_s,
            )
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
    """One candidate under way. `make`: makes its engine anew, after a fault."""

    def __init__(
        self,
        engine: ShadowEngine,
        make: Callable[[], ShadowEngine],
        *,
        label: str,
        since_s: int,
        waiting_max: int,
        told: Told,
        fault_pause_s: float,
    ) -> None:
        self._told: Final = told
        self._engine = engine
        self._make: Final = make
        self._fault_pause_s: Final = fault_pause_s
        self._faults = self._in_a_row = 0
        self._fault = ""
        self._label: Final = label
        self._since_s: Final = since_s
        self._waiting: Final[deque[_Seen]] = deque()
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
        if full or self._waiting_bytes > WAITING_BYTES_MAX or self._state == "stopped":
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
        """Compare what comes. INVARIANT: no fault ends it: halts stand on what is compared."""
        while True:
            await self._wake.wait()
            while self._waiting:
                try:
                    await self._next()
                except Exception as error:  # noqa: BLE001 - told, and not the end
                    self._note(error)
                    await self._restart()
                else:
                    self._state, self._in_a_row = "running", 0
                    await asyncio.sleep(PAUSE_S)
            self._wake.clear()

    def _note(self, error: Exception) -> None:
        self._state, self._fault = "failed", type(error).__name__
        self._faults += 1
        self._in_a_row += 1
        _log.error("shadow_failed", error=self._fault, label=self._label, faults=self._faults)

    async def _restart(self) -> None:
        """Go on with new workers, after a while: what breaks at once keeps no core busy."""
        while True:
            doubled = self._fault_pause_s * 2 ** min(self._in_a_row - 1, 16)
            await asyncio.sleep(min(doubled, FAULT_PAUSE_MAX_S))
            try:
                await self._engine.stop()
                self._engine = self._make()  # kept first: `end` must find it
                await self._engine.start()
            except Exception as error:  # noqa: BLE001 - as in `_work`
                self._note(error)
            else:
                return

    async def _next(self) -> None:
        """Evaluate the next few. Once taken from the queue they are compared or dropped."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._waiting_bytes -= sum(len(document) for _, _, document, _ in batch)
        self._dropped += len(batch)  # until they are compared
        batch, asked = self._read(batch)
        if not batch:
            return
        try:
            answers = await self._engine.decide(asked)
        except PolicyError as error:
            answers = [error.code] * len(batch)
        self._dropped -= len(batch)
        for (_, phase, _, decision), each, answer in zip(batch, asked, answers, strict=True):
            self._compare(phase, each, decision, answer)
        made = (decision for _, _, _, decision in batch)
        await self._told(list(zip(asked, made, answers, strict=True)))

    def _read(self, batch: list[_Seen]) -> tuple[list[_Seen], list[Asked]]:
        """Return what can be read, so that one input that cannot be keeps no other away."""
        kept, asked = list[_Seen](), list[Asked]()
        for one in batch:
            try:
                asked.append(read_asked(one[2]))
            except ValueError as error:
                self._note(error)
            else:
                kept.append(one)
        return kept, asked

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
            faults=self._faults,
            fault=self._fault,
        )


def _plain(counts: Mapping[Kind, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {str(kind): dict(found) for kind, found in counts.items()}
