"""The in-memory twin of the policy engine: a Python function or a table says what to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.core.policy.decision import Decision, Permit, Phase
from gateway.core.policy.policy_answer import UNDEFINED, deny

Answerer = Callable[[str, Phase, dict[str, Any]], Decision | None]
"""Takes (tool id, phase, input document). None is undefined, which is a deny."""

REVISION: Final = "sha256:" + "0" * 64


class MemoryPolicy:
    """`PolicyEngine` for tests. `asked` keeps every (tool id, phase, document), in order.

    `answers` is a function, or a table from (tool id, phase) or tool id to a decision; what it
    does not name is undefined. Phase `result` permits unless it is named. An exception raised by
    the function comes out of `decide`: raise `PolicyError` to be an engine that is down.
    """

    def __init__(
        self,
        answers: Answerer | Mapping[str | tuple[str, str], Decision],
        *,
        revision: str = REVISION,
        reads_ledger: bool = True,
        reads_day: bool = False,
        concerns_result: bool = False,
    ) -> None:
        self.asked: list[tuple[str, Phase, dict[str, Any]]] = []
        self._answers = answers
        self._revision = revision
        self._reads_ledger = reads_ledger
        self._reads_day = reads_day
        self._concerns_result = concerns_result

    @property
    def revision(self) -> str:
        """The revision given."""
        return self._revision

    def set_tools(self, tools: Mapping[str, tuple[str, str]]) -> None:
        """Accept and ignore what tools there are: every one is answered alike."""

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:  # noqa: ARG002 - the port's
        """Return what was given."""
        return self._reads_ledger

    def reads_day(self, tool_id: str, phase: Phase) -> bool:  # noqa: ARG002 - the port's
        """Return what was given."""
        return self._reads_day

    def concerns(self, tool_id: str, phase: Phase) -> bool:  # noqa: ARG002 - the port's
        """Return True, but for phase `result` what was given."""
        return self._concerns_result if phase == "result" else True

    async def decide(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        """See `PolicyEngine`."""
        parsed = orjson.loads(document)
        self.asked.append((tool_id, phase, parsed))
        answer = self._answer(tool_id, phase, parsed)
        return deny(UNDEFINED, self._revision) if answer is None else answer

    async def decide_many(self, items: Sequence[tuple[str, bytes]], phase: Phase) -> list[Decision]:
        """See `PolicyEngine`."""
        return [await self.decide(tool_id, phase, document) for tool_id, document in items]

    def _answer(self, tool_id: str, phase: Phase, document: dict[str, Any]) -> Decision | None:
        if callable(self._answers):
            return self._answers(tool_id, phase, document)
        found = self._answers.get((tool_id, phase))
        if found is None and phase == "result":
            return Permit(reasons=(), obligations=(), revision=self._revision)
        return self._answers.get(tool_id) if found is None else found
