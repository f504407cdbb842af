"""A policy engine whose answers on calls are counted, so that a jump after a release is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.core.errors import PolicyError
from gateway.core.policy.decision import Decision, Deny, Hold, Permit, Phase
from gateway.core.ports import PolicyEngine
from gateway.core.releases.halting import Counted

_KINDS: Final[Mapping[type, Counted]] = {Permit: "permit", Hold: "hold", Deny: "deny"}


class CountedPolicy(ObservedPolicy):
    """`PolicyEngine` over another one; every answer in phase `call` is told to `count`.

    No answer is an `error` here, which is why it is no observer: those are told a deny.
    """

    def __init__(self, engine: PolicyEngine, count: Callable[[Counted], None]) -> None:
        super().__init__(engine)
        self._count = count

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        """See `PolicyEngine`."""
        if phase != "call":
            return await super().decide(tool_id, phase, document)
        try:
            decision = await super().decide(tool_id, phase, document)
        except PolicyError:
            self._count("error")
            raise
        self._count(_KINDS[type(decision)])
        return decision
