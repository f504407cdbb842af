"""A gateway's authorization server over in-memory stores, at a time that stands still."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.dpop_replay import MemoryUsedProofs
from gateway.adapters.keys.jose_assertions import JoseAssertions
from gateway.adapters.keys.jose_dpop import JoseProofs
from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.keys.token_keys import LocalSigner, generate_token_key
from gateway.adapters.policy.memory_policy import MemoryPolicy
from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.adapters.state.memory_spent import MemorySpent
from gateway.core.calls.ledger import Ledger
from gateway.core.catalog import Effect, Review, Tool
from gateway.core.errors import AuditError
from gateway.core.oauth.dpop_nonce import Nonces
from gateway.core.policy.decision import Decision, Permit
from gateway.core.ports import RunStore
from gateway.core.proofs.client_proof import AssertionDesk
from gateway.core.proofs.possession import ProofDesk
from gateway.core.tokens.clients import Agent, Client, ClientRegistry, Launcher, hash_secret
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.token import Claims, Constraint, Grant
from gateway.http.issue_desk import IssueDeps
from gateway.http.oauth import build_oauth_router
from gateway.http.runs import build_runs_router
from gateway.wiring.identity import build_grant_types
from tests.fixed import NOW_S, CountingIds, FixedClock

URL = "https://gateway.test"
PERMIT = Permit((), (), "sha256:" + "0" * 64)

EFFECTS = {("shop", "refund"): "money"}

LAUNCHER = Launcher(
    id="workflow",
    secret_hash=hash_secret("workflow-secret"),
    owner="lars",
    may_launch=("bot", "helper"),
    humans=("olga",),
    grants=(
        Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 3),
        Grant("shop", "*", ("read",)),
    ),
)
BOT = Agent(
    id="bot",
    owner="ann",
    roles=("support",),
    grants=(Grant("shop", "*", ("read",)),),
    secret_hash=hash_secret("bot-secret"),
    may_delegate_to=("helper",),
)
SILENT = Agent(id="silent")
HELPER = Agent(
    id="helper",
    owner="hanna",
    roles=("support", "finance"),
    grants=(Grant("shop", "*", ("read",)),),
    secret_hash=hash_secret("helper-secret"),
)
OTHER = Launcher(id="other", secret_hash=hash_secret("other-secret"), may_launch=("bot",))


class AnySchema:
    def failure(self, _arguments: object) -> str | None:
        return None


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


class World:
    """The authorization server, and what came of it."""

    def __init__(self) -> None:
        self.clock, self.ids = FixedClock(), CountingIds()
        self.runs, self.audit = MemoryRuns(), MemoryAuditLog()
        self.ledger = Ledger()
        self.decision: Decision | Exception = PERMIT
        self.policy = MemoryPolicy(self._decide)
        self.refused: list[tuple[str, str]] = []
        self.ended: list[str] = []
        self.killed: set[str] = set()
        self.handed_off: list[tuple[str, str]] = []
        self.nonces, self.spent = Nonces(b"n" * 32), MemorySpent()
        self.proofs: ProofDesk | None = ProofDesk(
            reader=JoseProofs(),
            used=MemoryUsedProofs(),
            public_url=URL,
            nonces=self.nonces,
        )
        key = generate_token_key()
        self.issuer = JoseIssuer(LocalSigner(key))
        self.verifier = JoseVerifier([key], issuer=URL, audience=URL, environment="test")
        self.connect(LAUNCHER, OTHER, BOT, SILENT, HELPER)

    def connect(self, *clients: Client, runs: RunStore | None = None) -> None:
        """Serve these clients from now on, as after a restart with another configuration."""
        registry = ClientRegistry(clients)
        deps = IssueDeps(
            site=Site(issuer=URL, public_url=URL, environment="test"),
            clients=registry,
            runs=runs or self.runs,
            issuer=self.issuer,
            policy=self.policy,
            audit=self.audit,
            clock=self.clock,
            ids=self.ids,
            refuse=self._refuse,
            barred=lambda claims, _tool=None: (
                "token_revoked" if claims.subject in self.killed else None
            ),
            on_run_created=lambda run: self.ledger.begin(run.id, run.labels),
            on_issued=lambda _claims: None,
            on_run_ended=self.ended.append,
            effect_of=lambda server, tool: EFFECTS.get((server, tool)),
            proofs=self.proofs,
            assertions=AssertionDesk(
                clients=registry,
                reader=JoseAssertions(),
                spent=self.spent,
                audiences=frozenset({URL, URL + "/oauth/token"}),
            ),
        )
        self.deps, api = deps, FastAPI()
        grant_types = build_grant_types(deps, tokens=self.verifier, hand_off=self._hand_off)
        api.include_router(build_oauth_router(deps, grant_types))
        api.include_router(build_runs_router(deps))
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url=URL)

    @staticmethod
    def without_edges() -> list[Client]:
        """Return the clients, none of whom may hand anything on by itself."""
        return [LAUNCHER, OTHER, replace(BOT, may_delegate_to=()), SILENT, HELPER]

    def keep_runs_in(self, runs: RunStore) -> None:
        """Use another run store from now on."""
        self.connect(LAUNCHER, OTHER, BOT, SILENT, runs=runs)

    def _decide(self, _tool: str, _phase: str, _document: dict[str, Any]) -> Decision:
        if isinstance(self.decision, Exception):
            raise self.decision
        return self.decision

    async def _hand_off(self, claims: Claims) -> None:
        self.handed_off.append((claims.run_id, claims.subject))

    async def _refuse(self, stage: str, reason: str) -> None:
        if not self.audit.healthy:
            raise AuditError("as asked")
        self.refused.append((stage, reason))

    @property
    def records(self) -> list[dict[str, Any]]:
        """What is in the log after its beginning."""
        return list(self.audit.records)[2:]

    async def token(
        self, client_id: str, secret: str, /, **form: str | list[str]
    ) -> httpx.Response:
        form = {"grant_type": "client_credentials", **form}
        return await self.client.post("/oauth/token", data=form, headers=basic(client_id, secret))

    async def launch(self, **changes: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        body = {"agent": "bot", "grants": [{"server": "shop", "effects": ["read"]}], **changes}
        body = {name: value for name, value in body.items() if value is not None}
        headers = basic("workflow", "workflow-secret")
        return await self.client.post("/v1/runs", json=body, headers=headers)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.client.aclose()


@pytest.fixture
def make_claims() -> Callable[..., Claims]:
    def make(**changes: Any) -> Claims:  # noqa: ANN401 - any field
        fields: dict[str, Any] = {
            "issuer": URL,
            "audience": URL,
            "subject": "bot",
            "client_id": "workflow",
            "jti": "jti-1",
            "issued_at": NOW_S,
            "expires_at": NOW_S + 300,
            "scopes": frozenset({"tools:call", "tools:list"}),
            "grants": (Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 3),),
            "environment": "test",
            "run_id": "run-1",
            "root_jti": "run-1",
            "sid": "run-1",
        }
        return Claims(**{**fields, **changes})

    return make


@pytest.fixture
def make_tool() -> Callable[..., Tool]:
    def make(name: str = "refund", effect: Effect = "money", server: str = "shop") -> Tool:
        return Tool(
            id=f"{server}.{name}",
            server=server,
            name=name,
            wire_name=f"{server}__{name}",
            review=Review(name=name, effect=effect),
            definition=b"{}",
            definition_digest="sha256:" + "0" * 64,
            schema=AnySchema(),
            resource={},
        )

    return make


@pytest.fixture
def basic_of() -> Callable[[str, str], dict[str, str]]:
    return basic
