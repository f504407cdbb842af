"""A folder with all that a gateway reads: configuration, policies, keys, pinned manifests."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connectors.approve import ALL, approve_definitions
from connectors.http_pool import HttpPool
from connectors.mcp_http import McpHttpTransport
from connectors.mcp_stdio import McpStdioTransport
from gateway.adapters.system import SystemClock
from gateway.core.limits import Limits
from gateway.core.tokens.clients import hash_secret
from tests.e2e.stub import EFFECTS, TOOLS
from tests.patience import PATIENT

ROOT = Path(__file__).parents[2]
ACME = ROOT / "examples" / "acme"
HERE = Path(__file__).parent
DESK = [sys.executable, "-S", str(HERE / "desk_server.py")]

CLIENTS = ("launcher", "helper", "other", "clerk")
PEOPLE = {
    "dana": ["approver"],
    "eli": ["approver"],
    "hanna": ["approver"],  # owns the agent `helper`: on its side
    "opal": ["operator"],
    "aud": ["auditor"],
}


def secret_of(name: str) -> str:
    """Return the secret of a client or a person: long, and easy to find where it must not be."""
    return f"canary-secret-of-{name}-0123456789abcdef0123456789"


class Site:
    """One gateway's folder. `servers` has `acme`, `stub`, `gone` or `desk`, as given."""

    def __init__(
        self,
        folder: Path,
        *,
        urls: Mapping[str, str],
        listings: Mapping[str, Sequence[bytes]],
        desk: bool = False,
        **settings: Any,  # noqa: ANN401 - sections of the configuration
    ) -> None:
        self.folder = folder
        self.path = folder / "countersign.yaml"
        self.audit = folder / "audit"
        self.policies = folder / "policies"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._copy_policies()
        (folder / "manifests").mkdir()
        servers: dict[str, Any] = {}
        for name, url in urls.items():
            servers[name] = {"transport": "http", "url": url, "manifest": self._pin(name, listings)}
        if desk:
            manifest = self._pin("desk", listings)
            servers["desk"] = {"transport": "stdio", "command": DESK, "manifest": manifest}
        limits = {"audit_wait_ms": PATIENT.audit_wait_ms, **settings.pop("limits", {})}
        self.settings = {**self._settings(servers), **settings, "limits": limits}
        self.write()

    def write(self) -> None:
        """Write the configuration as it is in `settings`. JSON is YAML."""
        self.path.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")

    def _settings(self, servers: dict[str, Any]) -> dict[str, Any]:
        everything = [{"server": name} for name in servers]
        return {
            "environment": "endtoend",
            "listen": f"127.0.0.1:{self.port}",
            # What tests change in a site's files shall hold; test_releases.py has releases.
            "policy": {"path": "policies", "workers": 1, "deadline_ms": 2_000, "releases": "off"},
            "clients": [
                {
                    "kind": "launcher",
                    "id": "launcher",
                    "owner": "lars",
                    "secret_hash": hash_secret(secret_of("launcher")),
                    "may_launch": ["helper", "other"],
                    "grants": everything,
                },
                {"kind": "agent", "id": "helper", "owner": "hanna"},
                {"kind": "agent", "id": "other"},
                {
                    "kind": "agent",
                    "id": "clerk",
                    "secret_hash": hash_secret(secret_of("clerk")),
                    "grants": [{"server": name, "effects": ["read"]} for name in servers],
                },
            ],
            "humans": [
                {"id": name, "roles": roles, "secret_hash": hash_secret(secret_of(name))}
                for name, roles in PEOPLE.items()
            ],
            "servers": servers,
            "log": {"format": "json", "level": "info"},
        }

    def _copy_policies(self) -> None:
        self.policies.mkdir(parents=True)
        authority: dict[str, list[str]] = {"house": ["stub", "gone", "desk"], "house_notes": []}
        for source in (*ACME.glob("policies/acme_*.rego"), *HERE.glob("policies/*.rego")):
            if not source.stem.endswith("_test"):
                shutil.copy(source, self.policies)
                authority.setdefault(source.stem, ["acme"])
        authority["acme_runs"] = ["*"]
        text = json.dumps({"policies": authority})
        (self.policies / "authority.json").write_text(text, encoding="utf-8")

    def _pin(self, name: str, listings: Mapping[str, Sequence[bytes]]) -> str:
        """Write a server's manifest and approve what the server offers."""
        path = self.folder / "manifests" / f"{name}.yaml"
        if name == "acme":
            shutil.copy(ACME / "manifests" / "acme.yaml", path)
        else:
            path.write_text(json.dumps(_manifest(name)), encoding="utf-8")
        approve_definitions(path, listings[name], ALL, "dana")
        return f"manifests/{name}.yaml"


def _manifest(name: str) -> dict[str, Any]:
    tools = ["whoami", "die"] if name == "desk" else [tool["name"] for tool in TOOLS]
    return {
        "id": name,
        "transport": "stdio" if name == "desk" else "http",
        "egress": [] if name == "desk" else ["127.0.0.1"],
        "tools": [{"name": tool, "effect": EFFECTS.get(tool, "update")} for tool in tools],
    }


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def list_over_http(url: str) -> list[bytes]:
    """Return what a server offers, as a reviewer's `tools approve` gets it."""

    async def ask() -> list[bytes]:
        async with HttpPool() as pool:
            transport = McpHttpTransport("x", url, limits=Limits(), pool=pool)
            try:
                return await transport.list_tools()
            finally:
                await transport.close()

    return asyncio.run(ask())


def list_over_stdio(command: Sequence[str]) -> list[bytes]:
    """Return what a server that is started for it offers."""

    async def ask() -> list[bytes]:
        transport = McpStdioTransport("x", command, limits=Limits(), clock=SystemClock())
        try:
            return await transport.list_tools()
        finally:
            await transport.close()

    return asyncio.run(ask())
