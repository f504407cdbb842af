"""What is told of the release that decides: files beside it that differ, a gate that refuses it.

Neither changes what decides. Each is a line in the gateway's log, a record, and part of `status`.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import structlog

from gateway.adapters.policy.policy_bundle import load_bundle_dir
from gateway.adapters.policy.policy_watch import Fingerprint, take_fingerprint
from gateway.config.release import find_differences
from gateway.config.settings import Config
from gateway.core.errors import CountersignError
from gateway.core.ports import AuditLog, Ids
from gateway.core.records import release_records as records
from gateway.core.releases.history import Publication
from gateway.core.releases.release import Release
from gateway.wiring.release_trial import find_gate_faults

_TOLD_MAX: Final = 32
_log: Final = structlog.get_logger("gateway.releases")


class ReleaseLookout:
    """Looks at the release that decides, and at the files and the gate that are here.

    `gate`: what the gate of this version says of what decides since the start.
    `differs`: files that are not those of the release.
    """

    def __init__(self, config: Config, ids: Ids) -> None:
        self.gate: Literal["unknown", "passed", "refused"] = "unknown"
        self.differs: list[str] = []
        self._config = config
        self._ids = ids
        self._seen: Fingerprint | None = None
        # What is told, and not on record yet: the log may take none at that moment.
        self._drifted = False
        self._places: list[str] = []

    def forget(self) -> None:
        """Another release decides: the files are compared anew."""
        self._seen = None

    async def look_at_gate(self, release: Release, active: Publication, audit: AuditLog) -> None:
        """Hold what decides since the start against the gate of this version; once.

        What it refuses goes on deciding (ADR 0029), and is told and put on record.
        """
        if self.gate == "unknown":
            self._places = faults = await asyncio.to_thread(find_gate_faults, release)
            self.gate = "refused" if faults else "passed"
            if faults:
                _log.error(
                    "release_refused_by_gate", release=release.revision, places=faults[:_TOLD_MAX]
                )
        if self._places:
            await audit.record(records.build_gate(self._ids.new(), active, self._places))
            self._places = []

    async def look_for_drift(self, release: Release, active: Publication, audit: AuditLog) -> None:
        """Say, and put on record, that files here are not those of the release that decides."""
        seen = await asyncio.to_thread(self._fingerprint)
        if seen != self._seen:
            self._seen = seen
            differs = await asyncio.to_thread(self._find_differences, release)
            if differs != self.differs:
                self.differs, self._drifted = differs, bool(differs)
                if differs:
                    _log.warning(
                        "policy_files_differ", release=release.revision, files=differs[:_TOLD_MAX]
                    )
        if self._drifted:
            await audit.record(records.build_drift(self._ids.new(), active, self.differs))
            self._drifted = False

    def _fingerprint(self) -> Fingerprint:
        found = set(take_fingerprint(self._config.policy.path))
        for server in self._config.servers.values():
            if server.manifest.is_file():
                stat = server.manifest.stat()
                found.add((str(server.manifest), stat.st_mtime_ns, stat.st_size))
        return frozenset(found)

    def _find_differences(self, release: Release) -> list[str]:
        try:
            policy = dict(load_bundle_dir(self._config.policy.path).files)
            return find_differences(self._config, release, policy)
        except (CountersignError, OSError):
            return ["policies"]
