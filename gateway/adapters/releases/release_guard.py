"""Compares a new release with the one before on live calls, off their path (`core…halting`).

For a while after a release began to decide, the inputs of calls are put to the release before, in a
worker of its own. Where the new one failed, it is asked again there as well: a busy machine is no
reason to take a release back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway.adapters.policy.policy_bundle import Bundle
from gateway.core.errors import CountersignError
from gateway.core.policy.decision import Decision, Phase
from gateway.core.releases.halting import Compared, kind_of
from gateway.shadow import Pair, ShadowEngine, ShadowEvaluator

_log: Final = structlog.get_logger("gateway.releases")


class ReleaseGuard:
    """At most one release is watched at a time. `build` makes an engine with its own worker."""

    def __init__(
        self, build: Callable[[Bundle], ShadowEngine], *, now_s: Callable[[], int]
    ) -> None:
        self.compared = Compared()
        self._build: Final = build
        self._after: Bundle | None = None
        self._again: ShadowEngine | None = None
        self._beside: Final = ShadowEvaluator(build, now_s=now_s, told=self._told)
        self._unwatched = 0

    @property
    def faults(self) -> int:
        """How often comparing broke, or could not begin. It goes on with new workers."""
        report = self._beside.report() if self._after is not None else None
        return self._unwatched + (0 if report is None else report.faults)

    async def watch(self, before: Bundle, after: Bundle) -> None:
        """Begin to compare `after`, which decides, with `before`. Never raises."""
        await self.end()
        self.compared, self._after, self._unwatched = Compared(), after, 0
        try:
            await self._beside.start(before, before.revision)
        except (CountersignError, OSError) as error:
            self._unwatched = 1
            _log.warning("release_not_watched", release=after.revision, problem=str(error))

    async def end(self) -> None:
        """Stop comparing."""
        await self._beside.stop()
        self._after = None
        again, self._again = self._again, None
        if again is not None:
            await again.stop()

    def observe(self, tool_id: str, phase: Phase, document: bytes, decision: Decision) -> None:
        """Take note of a decision. Hot path: constant; while none is watched, one comparison."""
        if phase == "call" and self._after is not None:
            self._beside.observe(tool_id, phase, document, decision)

    async def _told(self, pairs: Sequence[Pair]) -> None:
        made = await self._ask_again(pairs)
        compared = self.compared
        for (asked, _, before), after in zip(pairs, made, strict=True):
            # Where the release before gives no answer now there is nothing to compare with.
            if not isinstance(before, str):
                compared.add(asked.agent, kind_of(before), kind_of(after))

    async def _ask_again(self, pairs: Sequence[Pair]) -> list[Decision | str]:
        """Return what the new release said, and of what it failed on, what it says now."""
        made: list[Decision | str] = [decision for _, decision, _ in pairs]
        failed = [number for number, one in enumerate(made) if kind_of(one) == "error"]
        after = self._after
        if not failed or after is None:
            return made
        try:
            if self._again is None:
                self._again = engine = self._build(after)  # kept first: `end` must find it
                await engine.start()
            answers = await self._again.decide([pairs[number][0] for number in failed])
        except Exception:
            broken, self._again = self._again, None  # the next ones are asked of another
            if broken is not None:
                await broken.stop()
            raise
        for number, answer in zip(failed, answers, strict=True):
            made[number] = answer
        return made
