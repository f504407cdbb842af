"""A policy engine whose answers on calls are counted, so that a jump after a release is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.core.errors import PolicyError
from gateway.core.policy.decision import Decision, Deny, Hold, Permit, Phase
from gateway.core.ports import PolicyEngine
from gateway.core.releases.halting import Counted

_KINDS: Final[Mapping[type, Counted]] = {Permit: "permit", Hold: "hold", Deny: "deny"}


class CountedPolicy:
    """`PolicyEngine` over another one; every answer in phase `call` is told to `count`."""

    def __init__(self, engine: PolicyEngine, count: Callable[[Counted], None]) -> None:
        self._engine = engine
        self._count = count

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
        if phase != "call":
            return await self._engine.decide(tool_id, phase, document)
        try:
            decision = await self._engine.decide(tool_id, phase, document)
        except PolicyError:
            self._count("error")
            raise
        self._count(_KINDS[type(decision)])
        return decision

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:
        """See `PolicyEngine`."""
        return await self._engine.decide_many(items, phase)
