"""The authorization server on a real socket, in front of a resource that its tokens open."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.keys.token_keys import LocalSigner, create_token_key
from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.adapters.system import SystemClock, SystemIds
from gateway.core.errors import CredentialError
from gateway.core.policy.decision import Permit
from gateway.core.tokens.clients import Agent, ClientRegistry, Launcher, hash_secret
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.token import Grant
from gateway.http.challenge import Challenges
from gateway.http.issue_desk import IssueDeps
from gateway.http.oauth import build_oauth_router
from gateway.http.runs import build_runs_router

READS = (Grant("shop", "*", ("read",)),)
CLIENTS = ClientRegistry(
    [
        Agent(id="bot", grants=READS, secret_hash=hash_secret("bot-secret")),
        Launcher(
            id="workflow",
            secret_hash=hash_secret("workflow-secret"),
            may_launch=("bot",),
            grants=READS,
        ),
    ]
)


async def refuse(_stage: str, _reason: str) -> None:
    """Strangers are not recorded here."""


def build_app(url: str, folder: Path) -> FastAPI:
    key, clock = create_token_key(folder / "tokens.pem"), SystemClock()
    verifier = JoseVerifier([key], issuer=url, audience=url, environment="test")
    deps = IssueDeps(
        site=Site(issuer=url, public_url=url, environment="test"),
        clients=CLIENTS,
        runs=MemoryRuns(),
        issuer=JoseIssuer(LocalSigner(key)),
        policy=MemoryPolicy({"": Permit((), (), "sha256:" + "0" * 64)}),
        audit=MemoryAuditLog(),
        clock=clock,
        ids=SystemIds(),
        refuse=refuse,
        barred=lambda _claims, _tool=None: None,
        on_run_created=lambda _run: None,
        on_issued=lambda _claims: None,
        on_run_ended=lambda _run_id: None,
    )
    app = FastAPI()
    app.include_router(build_oauth_router(deps))
    app.include_router(build_runs_router(deps))

    @app.post("/mcp")
    async def resource(request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        try:
            claims = verifier.verify(token, clock.now_ns() // 1_000_000_000)
        except CredentialError as error:
            headers = Challenges(url).headers(error.code, "/mcp")
            return Response(
                status_code=401, headers={name.decode(): value.decode() for name, value in headers}
            )
        return Response(f"{claims.subject} of {claims.client_id}")

    return app


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Serve until the test is over; return the public URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(build_app(url, tmp_path), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield url
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()
