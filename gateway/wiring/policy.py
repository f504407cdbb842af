"""The policy in use: which bundle, in which engine, and how another one takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from gateway.adapters.policy.bundle_store import save_bundle
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir
from gateway.adapters.policy.policy_watch import PolicyWatcher, take_fingerprint
from gateway.config.settings import Config
from gateway.core.entry import Entry
from gateway.core.errors import AuditError
from gateway.core.ports import AuditLog, Ids
from gateway.core.records.release_records import tell_names
from gateway.wiring.engine import build_engine

_log: Final = structlog.get_logger("gateway.policy")


class PolicyInUse:
    """The engine, and the order in which a bundle is kept, tried, used and put on record.

    `bundle` is what decides first; by default that of the folder. `stated` stands in the records of
    activations besides: how it comes that the bundle decides (`wiring.releases`). Raises
    `ConfigurationError` when made, for policies that cannot be read or do not pass the gate.
    """

    def __init__(
        self,
        config: Config,
        *,
        ids: Ids,
        bundle: Bundle | None = None,
        stated: Mapping[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._ids = ids
        self._audit: AuditLog | None = None
        # Before it is read: a change in between is then seen by the first look.
        self._seen = take_fingerprint(config.policy.path)
        self._bundle = load_bundle_dir(config.policy.path) if bundle is None else bundle
        self._stated = stated or {}
        self.engine = build_engine(config, self._bundle)

    async def start(self, audit: AuditLog) -> None:
        """Let the engine decide. Nothing is decided before a bundle has passed its own tests."""
        self._audit = audit
        await self._keep(self._bundle)
        await self.engine.start()
        await self._note(self._bundle)

    async def close(self) -> None:
        """Stop the engine; decisions still under way fail."""
        await self.engine.stop()

    async def activate(self, bundle: Bundle, stated: Mapping[str, Any] | None = None) -> None:
        """Put another bundle to use, for the reason `stated`, or for that of the one before.

        When anything is wrong with it, it raises and the old stays.
        Raises `ConfigurationError` and `PolicyError` as `Engine.activate` does, and `AuditError`.
        """
        await self._keep(bundle)
        await self.engine.activate(bundle)
        before, self._stated = self._stated, self._stated if stated is None else stated
        try:
            await self._note(bundle)
        except AuditError:
            # INVARIANT: what decides is on record, so what is not goes.
            self._stated = before
            await self.engine.activate(self._bundle)
            raise
        self._bundle = bundle

    def build_watcher(self) -> PolicyWatcher:
        """Return what takes changed files into use, in `dev`."""

        def report(problem: str | None) -> None:
            if problem is not None:
                _log.error("policy_not_reloaded", problem=problem, revision=self.engine.revision)

        path = self._config.policy.path
        return PolicyWatcher(path, self.activate, report=report, seen=self._seen)

    async def _keep(self, bundle: Bundle) -> None:
        """Keep a bundle before it decides anything, so that every decision can be recomputed."""
        await asyncio.to_thread(save_bundle, self._config.audit.dir / "bundles", bundle)

    async def _note(self, bundle: Bundle) -> None:
        if self._audit is None:
            raise RuntimeError("a bundle is put on record by a gateway that was started")
        fields = {
            "rev": bundle.revision,
            "packages": tell_names(sorted(bundle.packages)),
            "count": len(bundle.packages),
            **self._stated,
        }
        await self._audit.record(Entry(type="policy.activate", op=self._ids.new(), fields=fields))
        _log.info("policy_active", revision=bundle.revision)
