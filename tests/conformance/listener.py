"""The gateway as the harness meets it, which sends no token: one is put on each request here.

    python -m tests.conformance.listener FOLDER UPSTREAM_URL [--real-tokens]

Starts a gateway (deployment.py) in front of one upstream and wraps its application. Nothing else of
a request or an answer is touched. The first line on stdout is the URL.

Without `--real-tokens` every request is one fixed subject's, under a token signed here with the
gateway's key. With it, tokens come the whole way: a launcher creates a run, and `/oauth/token`
turns its credential into a token. Each query string (`/mcp?<scenario>`) has a run of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import uvicorn
import uvloop

from gateway.adapters.keys.jose_tokens import sign_token
from gateway.adapters.keys.token_keys import load_token_key
from gateway.config.settings import Config
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST, Claims, Grant
from gateway.http.asgi import App, Receive, Scope, Send
from gateway.logs import configure_logging
from gateway.wiring.gateway import Gateway
from tests.conformance.deployment import (
    AGENT,
    LAUNCHER,
    REFRESH_S,
    Source,
    deploy,
    launched_runs,
)

SERVER: Final = "fixture"
RUN: Final = "conformance"


def fixed_subject(config: Config) -> Source:
    """Sign tokens of one subject that may call everything. No run stands behind them."""
    key = load_token_key(config.tokens.key)
    kept: list[tuple[int, str]] = []

    async def token(_: str) -> str:
        now_s = int(time.time())
        if not kept or kept[-1][0] < now_s - REFRESH_S:
            kept[:] = [(now_s, sign_token(build_claims(config, now_s), key))]
        return kept[-1][1]

    return token


def build_claims(config: Config, now_s: int) -> Claims:
    """Return what the fixed subject's tokens say."""
    return Claims(
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
        run_id=RUN,
        root_jti=RUN,
        sid=RUN,
    )


def authorized(app: App, source: Source) -> App:
    """Wrap `app`: every request carries the token that `source` has for its query string."""

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
    port = listener.getsockname()[1]
    made = await deploy(folder, port, {SERVER: upstream}, prefix=False)
    gateway = Gateway(made.config)
    await gateway.start()
    try:
        assert gateway.app is not None
        source = launched_runs(gateway.app, made) if real_tokens else fixed_subject(made.config)
        sys.stdout.write(f"{made.config.public_url}/mcp\n")
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
