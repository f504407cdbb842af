"""The decision log: what was observed waits in memory, is masked, and goes to a sink.

It is a copy for those who read OPA's decision logs. What must not be lost is in the audit log; here
nothing ever keeps a call waiting, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from gateway.core.policy.decision import Decision, Phase
from gateway.core.policy.decision_event import Logged, build_event
from gateway.core.ports import Clock, Ids
from gateway.logs import describe

BUFFER_MAX: Final = 10_000
BUFFER_MAX_BYTES: Final = 32 << 20
BATCH_MAX: Final = 500
BATCH_MAX_BYTES: Final = 1 << 20
_FLUSH_S: Final = 1.0
_BACKOFF_MAX_S: Final = 60.0
_LAST_WORDS_S: Final = 2.0

_log: Final = structlog.get_logger("gateway.decision_log")


class Sink(Protocol):
    """Takes events."""

    async def write(self, events: Sequence[bytes]) -> bool:
        """Take all of them, in order; False where they should be sent again later."""
        ...


class DecisionLog:
    """Buffers decisions and writes them. `observe` is what `ObservedPolicy` tells."""

    def __init__(
        self,
        sink: Sink,
        *,
        labels: Mapping[str, str],
        mask: Sequence[str],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._sink = sink
        self._labels = labels
        self._mask = mask
        self._clock = clock
        self._ids = ids
        self._waiting: deque[Logged] = deque()
        self._bytes = 0
        self._number = 0
        self._counts = {"logged": 0, "dropped": 0, "failed_writes": 0}
        self._told_dropped = 0
        self._unsent: list[bytes] = []
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def observe(self, tool_id: str, phase: Phase, document: bytes, decision: Decision) -> None:
        """Take note of a decision. Never waits; past the room that there is, it is dropped."""
        size = len(document)
        if len(self._waiting) >= BUFFER_MAX or self._bytes + size > BUFFER_MAX_BYTES:
            self._counts["dropped"] += 1
            return
        self._bytes += size
        self._waiting.append(Logged(tool_id, phase, document, decision, self._clock.now_ns()))

    def status(self) -> dict[str, Any]:
        """Return what was written, dropped, and what waits."""
        return {**self._counts, "waiting": len(self._waiting) + len(self._unsent)}

    def start(self) -> None:
        """Begin to write. After a failure it is tried later and later, up to 60 s."""
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        wait_s, is_last = _FLUSH_S, False
        while not is_last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            is_last = self._stopping.is_set()
            try:
                done = await self.flush()
            except Exception as error:  # noqa: BLE001 - told by its type: it could hold a value
                _log.error("decision_log_failed", error=describe(error))
                done = False
            wait_s = _FLUSH_S if done else min(wait_s * 2, _BACKOFF_MAX_S)
            self._tell_dropped()

    async def flush(self) -> bool:
        """Write what waits, batch by batch, in order; False at the first that is not taken."""
        while self._unsent or self._waiting:
            if not self._unsent:
                self._unsent = await asyncio.to_thread(self._render, self._take())
            if self._unsent:
                if not await self._sink.write(self._unsent):
                    self._counts["failed_writes"] += 1
                    return False
                self._counts["logged"] += len(self._unsent)
                self._unsent = []
        return True

    async def close(self) -> None:
        """Write what waits, if that can be done soon; the rest is lost, and said to be."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_LAST_WORDS_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if lost := self.status()["waiting"]:
            _log.warning("decision_log_lost", count=lost)

    def _take(self) -> list[Logged]:
        taken: list[Logged] = []
        size = 0
        while self._waiting and len(taken) < BATCH_MAX and size < BATCH_MAX_BYTES:
            logged = self._waiting.popleft()
            self._bytes -= len(logged.document)
            size += len(logged.document)
            taken.append(logged)
        return taken

    def _render(self, taken: Sequence[Logged]) -> list[bytes]:
        """Build events, beside the loop. INVARIANT: one that cannot be masked is not written."""
        events = []
        for logged in taken:
            self._number += 1
            try:
                event = build_event(
                    logged,
                    decision_id=self._ids.new(),
                    labels=self._labels,
                    mask=self._mask,
                    number=self._number,
                )
            except (ValueError, TypeError, RecursionError) as error:
                self._counts["dropped"] += 1
                _log.error("decision_log_failed", error=describe(error))
            else:
                events.append(event)
        return events

    def _tell_dropped(self) -> None:
        dropped = self._counts["dropped"]
        if dropped != self._told_dropped:
            _log.warning("decision_log_dropped", count=dropped - self._told_dropped)
            self._told_dropped = dropped
