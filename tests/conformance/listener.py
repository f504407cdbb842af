"""The gateway as the harness meets it, which sends no token: one is put on each request here.

    python -m tests.conformance.listener FOLDER UPSTREAM_URL [--real-tokens]

Makes a configuration in FOLDER with one upstream, every tool of it reviewed and pinned, and a
policy that permits everything; starts the gateway on it and wraps its application. Nothing else of
a request or an answer is touched. The first line on stdout is the URL.

Without `--real-tokens` every request is one fixed subject's, under a token signed here with the
gateway's key. With it, tokens come the whole way: a launcher creates a run, and `/oauth/token`
turns its credential into a token. Each query string (`/mcp?<scenario>`) has a run of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
import uvloop

from gateway.adapters.jose_tokens import JoseIssuer
from gateway.adapters.token_keys import load_token_key
from gateway.cli.tools import survey
from gateway.config import Config, load_config
from gateway.core.clients import hash_secret
from gateway.core.token import SCOPE_CALL, SCOPE_LIST, Claims, Grant
from gateway.http.asgi import App, Receive, Scope, Send
from gateway.logs import configure_logging
from gateway.wiring import Gateway

SERVER: Final = "fixture"
MANIFEST: Final = "fixture.yaml"
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
"""Returns a token for the requests that carry this query string."""


async def write_files(folder: Path, port: int, upstream: str, secret: str) -> Path:
    """Write everything that the gateway reads; return the configuration's path. JSON is YAML."""
    path = folder / "countersign.yaml"
    path.write_text(json.dumps(build_config(port, upstream, secret)))
    (folder / "policies").mkdir()
    (folder / "policies" / "everything.rego").write_text(ALLOW_ALL)
    (folder / "policies" / "authority.json").write_text('{"policies": {"everything": ["*"]}}')
    manifest = {"id": SERVER, "transport": "http", "egress": ["127.0.0.1"], "tools": []}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    offered = await survey(load_config(path, {}))
    reviews = [
        {
            "name": tool.name,
            "effect": "update",
            "definition_digest": tool.live_digest,
            "reviewed_by": "conformance",
        }
        for tool in offered.catalog.states()
    ]
    (folder / MANIFEST).write_text(json.dumps(manifest | {"tools": reviews}))
    return path


def build_config(port: int, upstream: str, secret: str) -> dict[str, Any]:
    """Return the gateway's configuration."""
    return {
        "dev": True,
        "environment": "conformance",
        "listen": f"127.0.0.1:{port}",
        "policy": {"path": "policies", "workers": 1, "deadline_ms": 2_000},
        "clients": [
            {"kind": "agent", "id": AGENT},
            {
                "kind": "launcher",
                "id": LAUNCHER,
                "secret_hash": hash_secret(secret),
                "may_launch": [AGENT],
                "grants": [{"server": SERVER}],
            },
        ],
        "servers": {
            SERVER: {"transport": "http", "url": upstream, "manifest": MANIFEST, "prefix": False}
        },
    }


def fixed_subject(config: Config) -> Source:
    """Sign tokens of one subject that may call everything. No run stands behind them."""
    issuer = JoseIssuer(load_token_key(config.tokens.key))
    kept: list[tuple[float, str]] = []

    async def token(_: str) -> str:
        if not kept or kept[-1][0] < time.time() - REFRESH_S:
            now_s = int(time.time())
            claims = Claims(
                issuer=config.tokens.issuer,
                audience=config.public_url,
                subject=AGENT,
                client_id=LAUNCHER,
                jti=secrets.token_hex(16),
                issued_at=now_s,
                expires_at=now_s + config.tokens.ttl_s,
                scopes=frozenset({SCOPE_LIST, SCOPE_CALL}),
                grants=(Grant(SERVER),),
                environment=config.environment,
                run_id="conformance",
                root_jti="conformance",
                sid="conformance",
            )
            kept[:] = [(now_s, issuer.issue(claims))]
        return kept[-1][1]

    return token


def launched_runs(app: App, config: Config, secret: str) -> Source:
    """Get tokens as agents do, from a run of the launcher for each query string."""
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url=config.public_url)
    runs: dict[str, tuple[str, str]] = {}
    kept: dict[str, tuple[float, str]] = {}
    turn = asyncio.Lock()

    async def post(path: str, auth: tuple[str, str], **content: Any) -> dict[str, Any]:  # noqa: ANN401
        reply = await client.post(path, auth=auth, **content)
        reply.raise_for_status()
        answer: dict[str, Any] = reply.json()
        return answer

    async def token(query: str) -> str:
        async with turn:
            if query not in runs:
                asked = {"agent": AGENT, "grants": [{"server": SERVER}]}
                run = await post("/v1/runs", (LAUNCHER, secret), json=asked)
                runs[query] = (run["run_id"], run["run_credential"])
            if query not in kept or kept[query][0] < time.monotonic() - REFRESH_S:
                grant = {"grant_type": "client_credentials"}
                made = await post("/oauth/token", runs[query], data=grant)
                kept[query] = (time.monotonic(), made["access_token"])
            return kept[query][1]

    return token


def authorized(app: App, source: Source) -> App:
    """Wrap `app`: every request to `/mcp` carries a token of `source`."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        token = await source(scope["query_string"].decode())
        header = (b"authorization", b"Bearer " + token.encode())
        await app({**scope, "headers": [*scope["headers"], header]}, receive, send)

    return serve


class Server(uvicorn.Server):
    """Leaves it to us what comes after the last answer: uvicorn would raise SIGTERM once more."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """End on SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.handle_exit, signal.SIGTERM, None)
        yield


async def serve(folder: Path, upstream: str, *, real_tokens: bool) -> None:
    """Serve until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", 0))
    port, secret = listener.getsockname()[1], secrets.token_urlsafe()
    config = load_config(await write_files(folder, port, upstream, secret), {})
    gateway = Gateway(config)
    await gateway.start()
    try:
        assert gateway.app is not None
        source = (
            launched_runs(gateway.app, config, secret) if real_tokens else fixed_subject(config)
        )
        sys.stdout.write(f"{config.public_url}/mcp\n")
        sys.stdout.flush()
        # As `countersign serve` does: httptools keeps the blanks around header values.
        settings = uvicorn.Config(
            authorized(gateway.app, source),
            http="httptools",
            lifespan="off",
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        await Server(settings).serve(sockets=[listener])
    finally:
        await gateway.stop()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("upstream")
    parser.add_argument("--real-tokens", action="store_true")
    options = parser.parse_args()
    configure_logging("console", "warning")
    uvloop.run(serve(options.folder, options.upstream, real_tokens=options.real_tokens))


if __name__ == "__main__":
    main()
