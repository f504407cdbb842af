"""A gateway's approvals desk on loopback: SQLite, the file log, uvicorn, and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_store import SqlState
from gateway.adapters.system import SystemClock, SystemIds
from gateway.cli.approvals import app
from gateway.core.approvals.approval import ApprovalRequest, build_binding, spec_digest
from gateway.core.canonical import digest
from gateway.core.policy.decision import ApprovalSpec, Reason, Stage
from gateway.core.records.approval_entries import state_event
from gateway.http.approvals import ApprovalDeps, build_router
from gateway.http.humans import HumanEntry, Humans, build_admit
from tests.patience import PATIENT

ROLES = {
    "ann": ("approver", "finance"),
    "bob": ("approver", "finance"),
    "olga": ("approver", "finance"),
    "otto": ("operator",),
}


def build_request(**changes: Any) -> ApprovalRequest:  # noqa: ANN401 - any field
    """Build a live PENDING request on behalf of Olga."""
    spec = ApprovalSpec(stages=((Stage(approve=2, groups=("finance",)),),))
    arguments = b'{"amount": 120}'
    now_s = int(time.time())
    request = ApprovalRequest(
        id=SystemIds().new(),
        op=SystemIds().new(),
        state="PENDING",
        version=1,
        agent="refund-bot",
        run_id="run-1",
        root_jti="root-1",
        on_behalf_of="olga",
        launcher="lars",
        server="billing",
        tool="refund",
        tool_id="billing.refund",
        wire_name="billing__refund",
        definition_digest="sha256:dd",
        endpoint_digest="sha256:ee",
        arguments=arguments,
        arguments_digest=digest(arguments),
        join_digest=SystemIds().new(),
        obligations=(),
        reasons=(Reason("large_refund", "more than 100", "refunds"), Reason("night")),
        spec=spec,
        spec_digest=spec_digest(spec),
        policy_revision="sha256:bb",
        binding="",
        nonce=SystemIds().secret(),
        separation=("refund-bot", "lars", "olga"),
        created_at=now_s,
        expires_at=now_s + 600,
        claims={},
        meta={},
    )
    request = replace(request, **changes)
    binding = build_binding(request, issuer="i", environment="test", log_origin="test/log")
    return replace(request, binding=binding)


@contextlib.asynccontextmanager
async def serve(api: FastAPI) -> AsyncIterator[str]:
    """Serve on a free loopback port."""
    config = uvicorn.Config(api, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


class Gateway:
    """What a test may look at and talk to."""

    serve = staticmethod(serve)

    def __init__(self, folder: Path, state: SqlState, audit: FileAuditLog) -> None:
        self.folder = folder
        self.store = SqlApprovals(state, clock=SystemClock())
        self.relay = OutboxRelay(self.store, audit)
        self.approved: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.stopped: set[str] = set()
        self.url = ""
        self.secrets = {name: SystemIds().secret() for name in ROLES}

    async def _refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    def build_app(self) -> FastAPI:
        people = [
            HumanEntry(name, roles, "sha256:" + hashlib.sha256(secret.encode()).hexdigest())
            for (name, roles), secret in zip(ROLES.items(), self.secrets.values(), strict=True)
        ]
        deps = ApprovalDeps(
            store=self.store,
            humans=Humans(people),
            admit=build_admit(Humans(people), self._refuse),
            clock=SystemClock(),
            ids=SystemIds(),
            relay=self.relay.drain,
            on_approved=self.approved.append,
            voting_roles=lambda human: () if human.id in self.stopped else human.roles,
            standing=lambda vote: None if vote.voter in self.stopped else vote,
        )
        api = FastAPI()
        api.include_router(build_router(deps))
        return api

    async def hold(self, **changes: Any) -> ApprovalRequest:  # noqa: ANN401 - any field
        request = build_request(**changes)
        return await self.store.create(request, state_event(request, "request", "PENDING"))

    def log(self) -> bytes:
        """Return the bytes of every segment."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("audit/*.jsonl")))

    async def cli(self, who: str, *arguments: str, **env: str) -> Result:
        """Run `countersign approvals …` as somebody."""
        given = {"COUNTERSIGN_URL": self.url, "COUNTERSIGN_TOKEN": self.secrets.get(who, who)}
        runner = CliRunner()
        return await asyncio.to_thread(runner.invoke, app, list(arguments), env={**given, **env})


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="test.example/log")
    audit = FileAuditLog.open(
        tmp_path / "audit",
        origin="test.example/log",
        signer=Ed25519PrivateKey.generate(),
        kek=bytes(32),
        clock=SystemClock(),
        limits=PATIENT,
        deployment={"environment": "test"},
    )
    await audit.start()
    gateway = Gateway(tmp_path, state, audit)
    async with serve(gateway.build_app()) as url:
        gateway.url = url
        yield gateway
    await audit.close()
    await state.close()


@pytest.fixture
def make_request() -> Callable[..., ApprovalRequest]:
    return build_request
