"""Refusals, each one record (DESIGN §1), and strangers kept from filling the disk.

Each refusal before authentication is one record while they are few. Past a limit in a window
they are counted, and each (stage, reason) is written once, with its count, when the window ends.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from gateway.core.calls.answer import Refused
from gateway.core.calls.call import AuthenticatedCall, ResolvedCall
from gateway.core.catalog import Tool
from gateway.core.entry import Entry
from gateway.core.errors import AuditError
from gateway.core.limits import Limits
from gateway.core.policy.decision import Deny
from gateway.core.ports import AuditLog, Clock, Ids
from gateway.core.records.call_records import build_refused
from gateway.core.refusal import Refusal

WINDOW_NS: Final = 10_000_000_000


class RefusalRecorder:
    """Writes refusals. Where even that fails, the answer says that the log is the trouble."""

    def __init__(self, *, audit: AuditLog, clock: Clock, ids: Ids, limits: Limits) -> None:
        self._audit = audit
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._window = 0
        self._written = 0
        self._counted: Counter[tuple[str, str]] = Counter()

    async def refuse_stranger(self, op: str, refusal: Refusal) -> Refused:
        """Write one refusal of somebody not yet known, or count it where there were too many."""
        try:
            window = self._clock.monotonic_ns() // WINDOW_NS
            if window != self._window:
                self._window, self._written = window, 0
                await self.flush()
            if self._written >= self._limits.strangers_per_window_max:
                self._counted[refusal.stage, refusal.code] += 1
                return Refused(op, refusal)
            self._written += 1
        except AuditError as error:
            return Refused(op, Refusal("record", error.code))
        return await self._write(op, refusal, build_refused(op, refusal))

    async def refuse_call(
        self, call: AuthenticatedCall, refusal: Refusal, tool: Tool | None = None
    ) -> Refused:
        """Write a refusal of a known caller."""
        raw = call.raw
        fits = len(raw.arguments.raw) <= self._limits.arguments_max_bytes
        known = refusal.stage != "read"  # otherwise the arguments have not been read
        entry = build_refused(
            raw.op,
            refusal,
            claims=call.claims,
            tool=tool,
            name=raw.tool[: self._limits.tool_name_max_chars],
            arguments=raw.arguments.raw if fits and known else None,
        )
        return await self._write(raw.op, refusal, entry)

    async def deny_call(
        self, resolved: ResolvedCall, decision: Deny, document: bytes, refusal: Refusal
    ) -> Refused:
        """Write a denial, with what policy was asked and what it answered."""
        raw = resolved.call.raw
        entry = build_refused(
            raw.op,
            refusal,
            claims=resolved.call.claims,
            tool=resolved.tool,
            arguments=raw.arguments.raw,
            decision=decision,
            document=document,
        )
        return await self._write(raw.op, refusal, entry)

    async def _write(self, op: str, refusal: Refusal, entry: Entry) -> Refused:
        try:
            await self._audit.record(entry)
        except AuditError as error:
            return Refused(op, Refusal("record", error.code))
        return Refused(op, refusal)

    async def flush(self) -> None:
        """Write one summary for each (stage, reason) counted so far."""
        counted, self._counted = self._counted, Counter()
        try:
            for (stage, code), count in list(counted.items()):
                fields = {"stage": stage, "reason": code, "count": count}
                await self._audit.record(
                    Entry(type="call.refused", op=self._ids.new(), fields=fields)
                )
                del counted[stage, code]
        finally:
            self._counted.update(counted)
