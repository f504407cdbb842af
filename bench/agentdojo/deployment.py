"""A suite behind a real gateway: `countersign serve` in a process, on files made for it."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from bench.agentdojo.scope import HERE
from bench.agentdojo.stage import Stage
from bench.governed import SERVE, find_port, wait_ready
from bench.processes import ROOT, MeasurementError, Processes
from connectors.approve import ALL, approve_definitions
from connectors.http_pool import HttpPool
from connectors.mcp_http import McpHttpTransport
from gateway.adapters.policy.policy_bundle import default_pack
from gateway.core.limits import Limits
from gateway.core.tokens.clients import hash_secret

AGENT: Final = "assistant"
LAUNCHER: Final = "desk"
APPROVER: Final = "dana"
_MODULE: Final = "bench.agentdojo.suite_server"


class Deployment(Struct, frozen=True):
    """A running gateway with a suite behind it: where it is, secrets by name, the side socket."""

    base: str
    secrets: dict[str, str]
    stage: Stage


def start(processes: Processes, folder: Path, suite: str, python: Path) -> Deployment:
    """Start a suite's server with `python`, and a gateway in front of it, in an empty folder."""
    side = folder / "side"
    server = ["-m", _MODULE, suite, str(side)]
    _, upstream = processes.start_listening("suite", server, program=str(python))
    url = f"http://127.0.0.1:{upstream}/mcp"
    known = {name: secrets.token_urlsafe(32) for name in (LAUNCHER, APPROVER)}
    port = find_port()
    write_policies(folder / "policies", suite)
    manifest = folder / f"{suite}.yaml"
    shutil.copy(HERE / "manifests" / manifest.name, manifest)
    approve_definitions(manifest, asyncio.run(_list(url)), ALL, "bench")
    config = folder / "countersign.yaml"
    config.write_text(json.dumps(_build_config(port, suite, url, known)), encoding="utf-8")
    process = processes.start("gateway", [*SERVE, str(config)])
    base = f"http://127.0.0.1:{port}"
    try:
        wait_ready(base, process)
    except MeasurementError as error:
        raise MeasurementError(f"{error}\n{processes.tail('gateway')}") from None
    return Deployment(base, known, Stage(side))


async def _list(url: str) -> list[bytes]:
    async with HttpPool() as pool:
        transport = McpHttpTransport("suite", url, limits=Limits(), pool=pool)
        try:
            return await transport.list_tools()
        finally:
            await transport.close()


def write_policies(folder: Path, suite: str) -> None:
    """Write the default pack as it is shipped, and what the suite adds to it, if anything."""
    kept = shutil.ignore_patterns("*_test.rego")
    shutil.copytree(default_pack(), folder, ignore=kept)
    own = HERE / "policies" / suite
    if not own.is_dir():
        return
    shutil.copytree(own, folder, ignore=kept, dirs_exist_ok=True)
    path = folder / "authority.json"
    authority = json.loads(path.read_text(encoding="utf-8"))
    for source in own.glob("*.rego"):
        if not source.stem.endswith("_test"):
            authority["policies"][source.stem] = [suite]
    path.write_text(json.dumps(authority), encoding="utf-8")


def _build_config(port: int, suite: str, url: str, known: dict[str, str]) -> dict[str, Any]:
    launcher = {
        "kind": "launcher",
        "id": LAUNCHER,
        "secret_hash": hash_secret(known[LAUNCHER]),
        "may_launch": [AGENT],
        "grants": [{"server": suite}],
    }
    approver = {"id": APPROVER, "roles": ["approver"], "secret_hash": hash_secret(known[APPROVER])}
    return {
        "environment": "bench",
        "listen": f"127.0.0.1:{port}",
        "policy": {"path": "policies", "workers": 1, "deadline_ms": 2_000, "releases": "off"},
        "clients": [launcher, {"kind": "agent", "id": AGENT, "owner": "bench"}],
        "humans": [approver],
        "servers": {suite: {"transport": "http", "url": url, "manifest": f"{suite}.yaml"}},
        "log": {"level": "warning"},
    }


SCRATCH: Final = ROOT / ".cache"
