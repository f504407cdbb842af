"""The engine of a search: equal questions are evaluated once, and runs share their beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.adapters.authoring.replay_memo import Candidate
from gateway.core.errors import PolicyError
from gateway.core.policy.asked import read_asked
from gateway.core.policy.decision import Decision, Phase


class SearchEngine:
    """`PolicyEngine` over a candidate that runs."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate: Final = candidate

    @property
    def revision(self) -> str:
        """See `PolicyEngine`."""
        return self._candidate.revision

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._candidate.engine.reads_ledger(tool_id, phase)

    def reads_day(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._candidate.engine.reads_day(tool_id, phase)

    def concerns(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._candidate.engine.concerns(tool_id, phase)

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:  # noqa: ARG002 - the port's
        """See `PolicyEngine`."""
        (answer,) = await self._candidate.decide([read_asked(document)])
        if isinstance(answer, str):
            raise PolicyError("the policies gave no answer", code=answer)
        return answer

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:
        """See `PolicyEngine`."""
        return [await self.decide(tool_id, phase, document) for tool_id, document in items]
