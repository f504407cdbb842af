"""Shadow evaluation, wired: candidates in workers of their own, records, routes."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.config.settings import Config
from gateway.core.ports import Clock, Ids, PolicyEngine
from gateway.core.records.shadow_records import build_shadow
from gateway.http.humans import Admit
from gateway.http.shadow_admin import NewShadow, ShadowAdmin, Start
from gateway.shadow import Report, ShadowEvaluator

_MEMO_MAX: Final = 1 << 14
_NS: Final = 1_000_000_000


class Shadowing:
    """The evaluator of a gateway: `start`, `stop`, `report` and `observe` as it has them."""

    def __init__(self, config: Config, *, clock: Clock, ids: Ids) -> None:
        self._config = config
        self._ids = ids
        self._audit: FileAuditLog | None = None
        deadline_ms = config.policy.deadline_ms

        def build(bundle: Bundle) -> Candidate:
            return Candidate(bundle, workers=1, deadline_ms=deadline_ms, memo_max=_MEMO_MAX)

        self.evaluator: Final[ShadowEvaluator[Bundle]] = ShadowEvaluator(
            build, now_s=lambda: clock.now_ns() // _NS, note=self._note
        )

    def open(self, audit: FileAuditLog) -> None:
        """Put starts and ends on record from here on."""
        self._audit = audit

    async def start(self, bundle: Bundle, label: str) -> None:
        """See `ShadowEvaluator.start`."""
        await self.evaluator.start(bundle, label)

    async def stop(self) -> None:
        """See `ShadowEvaluator.stop`."""
        await self.evaluator.stop()

    def beside(self, engine: PolicyEngine) -> PolicyEngine:
        """Return an engine whose decisions the candidate is asked about, too."""
        return ObservedPolicy(engine, self.evaluator.observe)

    def view(self) -> dict[str, Any]:
        """Return the report for readers."""
        report = self.evaluator.report()
        if report is None:
            return {"state": "none"}
        found: dict[str, Any] = msgspec.to_builtins(report)
        return found | {"changed": report.changed}

    def router(self, admit: Admit) -> APIRouter:
        """Build the routes."""
        start: Start | None = self._start_files if self._config.dev else None
        return ShadowAdmin(running=self, admit=admit, start=start).router()

    async def _start_files(self, asked: NewShadow) -> None:
        bundle = await asyncio.to_thread(build_bundle, asked.sources, asked.data)
        await self.start(bundle, asked.label or bundle.revision)

    async def _note(self, what: Literal["start", "stop"], report: Report) -> None:
        if self._audit is None:
            raise RuntimeError("a shadow is put on record by a gateway that was started")
        counts = None
        if what == "stop":
            counts = {
                "observed": report.observed,
                "compared": report.compared,
                "dropped": report.dropped,
                **report.counts,
            }
        op = self._ids.new()
        await self._audit.record(build_shadow(op, what, revision=report.revision, counts=counts))
