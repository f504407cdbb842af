"""What a release must show before it may decide: parts, manifests, the gate, a real engine."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from connectors.manifest import load_manifest
from gateway.adapters.policy.policy_bundle import restore_bundle
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.config.release import find_parts_fault
from gateway.config.settings import Config
from gateway.core.errors import ConfigurationError
from gateway.core.releases.release import MANIFESTS, Release

_DEADLINE_MS: Final = 2_000


async def try_out(config: Config, release: Release) -> None:
    """Raise for a release that could not decide here: gates, self-tests, manifests, endpoints."""
    fault = find_parts_fault(config, release)
    if fault is not None:
        raise ConfigurationError(fault, code="release_invalid")
    await asyncio.to_thread(_read_manifests, release)
    bundle = await asyncio.to_thread(restore_bundle, release.policy_files, anew=True)
    engine = RegorusPolicy(bundle, workers=1, deadline_ms=_DEADLINE_MS)
    try:
        await engine.start()
    finally:
        await engine.stop()


def find_gate_faults(release: Release) -> list[str]:
    """Return the places (`file:line:column`) that the gate refuses."""
    try:
        restore_bundle(release.policy_files, anew=True)
    except ConfigurationError as error:
        return [line.partition(": ")[0][:200] for line in str(error).splitlines()]
    return []


def _read_manifests(release: Release) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for server, content in release.manifests.items():
            path = Path(folder) / f"{server}.yaml"
            path.write_bytes(content)
            if load_manifest(path).id != server:
                raise ConfigurationError(f"{MANIFESTS}{server}.yaml is the manifest of another")
