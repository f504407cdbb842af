"""What the path asks of a bundle before it asks for a decision, where one engine holds it all."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.adapters.policy.policy_package import Package
from gateway.core.policy.decision import Phase


class Routes:
    """Facts about each (tool, phase), worked out when first asked for."""

    def __init__(
        self, packages: Mapping[str, Package], tools: Mapping[str, tuple[str, str]]
    ) -> None:
        """`tools`: id → (server, effect)."""
        self._packages = packages
        self._tools = tools
        self._known: dict[tuple[str, str], tuple[bool, bool, bool]] = {}

    def reads_ledger(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._facts(tool_id, phase)[0]

    def concerns(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._facts(tool_id, phase)[1]

    def reads_day(self, tool_id: str, phase: Phase) -> bool:
        """See `PolicyEngine`."""
        return self._facts(tool_id, phase)[2]

    def _facts(self, tool_id: str, phase: Phase) -> tuple[bool, bool, bool]:
        key = (tool_id if tool_id in self._tools else "", phase)
        found = self._known.get(key)
        if found is None:
            heard = [each for each in self._packages.values() if self._hears(each, tool_id, phase)]
            found = self._known[key] = (
                any(each.reads_ledger for each in heard),
                any(phase != "result" or each.answers_results for each in heard),
                any(each.reads_day for each in heard),
            )
        return found

    def _hears(self, package: Package, tool_id: str, phase: Phase) -> bool:
        scope = package.scope
        if scope is None:
            return True
        if (tool := self._tools.get(tool_id)) is None:
            return scope.phases is None or phase in scope.phases
        return scope.matches(tool_id, *tool, phase)
