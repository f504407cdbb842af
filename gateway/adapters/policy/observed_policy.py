"""An engine whose decisions are told to observers: shadow evaluation, decision logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gateway.core.errors import PolicyError
from gateway.core.policy.decision import Decision, Phase
from gateway.core.policy.policy_answer import deny
from gateway.core.ports import PolicyEngine

Observe = Callable[[str, Phase, bytes, Decision], None]
"""Is told (tool id, phase, input, decision) of every decision. Neither waits nor raises."""


class ObservedPolicy:
    """`PolicyEngine` over another one, in every phase; what had no answer is told as a deny."""

    def __init__(self, engine: PolicyEngine, *observers: Observe) -> None:
        """`observers`: are told in order, after the decision was made."""
        self._engine: Final = engine
        self._observers: Final = observers

    @property
    def revision(self) -> str:
        """See `PolicyEngine`."""
        return self._engine.revision

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._engine.reads_ledger(tool_id, phase)

    def reads_day(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._engine.reads_day(tool_id, phase)

    def concerns(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._engine.concerns(tool_id, phase)

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        """See `PolicyEngine`."""
        try:
            decision = await self._engine.decide(tool_id, phase, document)
        except PolicyError as error:
            self._tell(tool_id, phase, document, deny(error.code, self._engine.revision))
            raise
        self._tell(tool_id, phase, document, decision)
        return decision

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:
        """See `PolicyEngine`."""
        decisions = await self._engine.decide_many(items, phase)
        for (tool_id, document), decision in zip(items, decisions, strict=True):
            self._tell(tool_id, phase, document, decision)
        return decisions

    def _tell(self, tool_id: str, phase: Phase, document: bytes, decision: Decision) -> None:
        for observe in self._observers:
            observe(tool_id, phase, document, decision)
