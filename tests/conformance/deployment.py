"""A gateway in front of given upstreams, each of their tools reviewed and pinned, all permitted.

For tests that are about the wire: what may be called is no question in them.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.cli.tools import survey
from gateway.config.settings import Config, load_config
from gateway.core.tokens.clients import hash_secret
from gateway.http.asgi import App
from tests.patience import PATIENT

AGENT: Final = "harness"
LAUNCHER: Final = "launcher"
REFRESH_S: Final = 120
"""Age at which a token is replaced; it lives 300 s."""

ALLOW_ALL: Final = """\
package policies.everything

permit contains {"code": "conformance"} if input.phase == "issue"

permit contains {"code": "conformance"} if input.resource.effect == "update"
"""
Source = Callable[[str], Awaitable[str]]
"""Returns a token for whoever goes by this name."""


@dataclass(frozen=True)
class Deployment:
    """What was written for a gateway, and its launcher's secret."""

    config: Config
    secret: str


async def deploy(
    folder: Path,
    port: int,
    upstreams: Mapping[str, str],
    *,
    prefix: bool,
    apps: Sequence[Mapping[str, Any]] = (),
    **settings: Any,  # noqa: ANN401 - sections of the configuration
) -> Deployment:
    """Write everything that a gateway reads into `folder`, empty so far. JSON is YAML.

    `upstreams`: URLs by server id; they are asked for their tools. `apps`: further clients.
    """
    path, secret = folder / "countersign.yaml", secrets.token_urlsafe()
    config = build_config(port, upstreams, hash_secret(secret), prefix=prefix) | settings
    config["clients"] += apps
    path.write_text(json.dumps(config))
    (folder / "policies").mkdir()
    (folder / "policies" / "everything.rego").write_text(ALLOW_ALL)
    (folder / "policies" / "authority.json").write_text('{"policies": {"everything": ["*"]}}')
    for server in upstreams:
        write_manifest(folder, server, [])
    offered = (await survey(load_config(path, {}))).catalog.states()
    for server in upstreams:
        reviews = [
            {
                "name": tool.name,
                "effect": "update",
                "definition_digest": tool.live_digest,
                "reviewed_by": AGENT,
            }
            for tool in offered
            if tool.server == server
        ]
        write_manifest(folder, server, reviews)
    return Deployment(load_config(path, {}), secret)


def write_manifest(folder: Path, server: str, reviews: list[dict[str, Any]]) -> None:
    """Write the manifest of a server on this machine."""
    manifest = {"id": server, "transport": "http", "egress": ["127.0.0.1"], "tools": reviews}
    (folder / f"{server}.yaml").write_text(json.dumps(manifest))


def build_config(
    port: int, upstreams: Mapping[str, str], secret_hash: str, *, prefix: bool
) -> dict[str, Any]:
    """Return the gateway's configuration."""
    launcher = {
        "kind": "launcher",
        "id": LAUNCHER,
        "secret_hash": secret_hash,
        "may_launch": [AGENT],
        "grants": [{"server": server} for server in upstreams],
    }
    return {
        "dev": True,
        "environment": "conformance",
        "listen": f"127.0.0.1:{port}",
        "limits": {"audit_wait_ms": PATIENT.audit_wait_ms},
        "policy": {"path": "policies", "workers": 1, "deadline_ms": 2_000},
        "clients": [{"kind": "agent", "id": AGENT}, launcher],
        "servers": {
            server: {
                "transport": "http",
                "url": url,
                "manifest": f"{server}.yaml",
                "prefix": prefix,
            }
            for server, url in upstreams.items()
        },
    }


def launched_runs(app: App, made: Deployment, servers: Iterable[str] | None = None) -> Source:
    """Get tokens as agents do: a launcher creates a run for each name, `/oauth/token` the rest.

    The runs may call everything, or everything of `servers`.
    """
    granted = made.config.servers if servers is None else servers
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url=made.config.public_url)
    asked = {"agent": AGENT, "grants": [{"server": server} for server in granted]}
    runs: dict[str, tuple[str, str]] = {}
    kept: dict[str, tuple[float, str]] = {}
    turn = asyncio.Lock()

    async def post(path: str, auth: tuple[str, str], **content: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own
        reply = await client.post(path, auth=auth, **content)
        reply.raise_for_status()
        answer: dict[str, Any] = reply.json()
        return answer

    async def token(name: str) -> str:
        async with turn:
            if name not in runs:
                run = await post("/v1/runs", (LAUNCHER, made.secret), json=asked)
                runs[name] = (run["run_id"], run["run_credential"])
            if name not in kept or kept[name][0] < time.monotonic() - REFRESH_S:
                grant = {"grant_type": "client_credentials"}
                issued = await post("/oauth/token", runs[name], data=grant)
                kept[name] = (time.monotonic(), issued["access_token"])
            return kept[name][1]

    return token
