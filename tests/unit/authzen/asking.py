"""A gateway over the shipped twins that answers AuthZEN questions, and who may ask it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.adapters.keys.jose_assertions import JoseAssertions
from gateway.adapters.keys.jose_tokens import JoseIssuer
from gateway.adapters.keys.token_keys import LocalSigner
from gateway.adapters.state.memory_spent import MemorySpent
from gateway.core.caller import CallerCache
from gateway.core.catalog import Tool
from gateway.core.proofs.client_proof import AssertionDesk
from gateway.core.tokens.clients import Agent, ClientRegistry, Launcher, hash_secret
from gateway.core.tokens.issuing import Site
from gateway.core.tokens.token import Claims, Grant
from gateway.evaluating import Evaluator
from gateway.http.app import GatewayApp, build_api
from gateway.http.authzen import AuthZenEndpoint
from gateway.http.challenge import Challenges
from gateway.http.humans import HumanEntry, Humans, build_admit
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.judge import Judge
from tests.unit.path.world import KEY, URL, Reply, World, build_claims, call_app, sign

SECRET: Final = "lars-secret"
LARS: Final = Launcher(
    id="lars",
    secret_hash=hash_secret(SECRET),
    may_launch=("refund-bot",),
    grants=(Grant("billing"), Grant("mail")),
)
OTHER: Final = Launcher(id="other", secret_hash=hash_secret("other-secret"))
BOT: Final = Agent(id="refund-bot", owner="otto", secret_hash=hash_secret("bot-secret"))
PEOPLE: Final = {
    "opal": ("operator",),
    "aud": ("auditor",),
    "pia": ("policy_author",),
    "dana": ("approver",),
}
EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
REFUND: Final[dict[str, Any]] = {
    "subject": {"type": "agent", "id": "refund-bot"},
    "action": {"name": "tools/call"},
    "resource": {"type": "tool", "id": "billing.refund"},
    "context": {"run": "run-1", "args": {"amount": 1}},
}


def basic(name: str = "lars", secret: str = SECRET) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def bearer(name: str) -> str:
    return f"Bearer secret-of-{name}"


def own_token(claims: Claims | None = None) -> str:
    return "Bearer " + sign(claims or build_claims()).decode()


class Desk(World):
    """The call path's world, with the endpoint."""

    def __init__(
        self,
        answers: Any = None,  # noqa: ANN401 - as `World` takes them
        **more: Any,  # noqa: ANN401 - as `World` takes them
    ) -> None:
        super().__init__(answers, **more)
        self.refused: list[tuple[str, str]] = []
        self.stopped: set[str] = set()
        self.registry = ClientRegistry([LARS, OTHER, BOT])
        self.key_desk = AssertionDesk(
            clients=self.registry,
            reader=JoseAssertions(),
            spent=MemorySpent(),
            audiences=frozenset({URL}),
        )
        self.asking = Judge(
            policy=self.policy,
            ledger=self.ledger,
            callers=CallerCache(),
            audit=self.audit,
            catalog=self.catalog.view,
            limits=self.limits,
        )
        humans = Humans(
            HumanEntry(name, roles, hash_secret(f"secret-of-{name}"))
            for name, roles in PEOPLE.items()
        )
        issue = IssueDesk(self._issue())
        self.evaluator = Evaluator(
            judge=self.asking,
            enforcement=self.enforcement,
            catalog=self.catalog.view,
            audit=self.audit,
            claims_of=issue.would_issue,
            barred=self.barred,
            clock=self.clock,
        )
        self.endpoint = AuthZenEndpoint(
            evaluator=self.evaluator,
            enforcement=self.enforcement,
            clients=issue,
            admit=build_admit(humans, self._refuse),
            refuse=self._refuse,
            challenges=Challenges(URL),
            public_url=URL,
            clock=self.clock,
            limits=self.limits,
        )
        self.asked_app = GatewayApp(
            mcp=self.app._mcp,  # noqa: SLF001 - the world's own
            rest=self.rest,
            api=build_api([], "0"),
            ready=lambda: self.checks,
            ids=self.ids,
            authzen=self.endpoint,
        )

    def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """Bar the tools that a test stopped, besides runs."""
        if tool is not None and tool.id in self.stopped:
            return "tool_killed"
        return super().barred(claims, tool)

    def _issue(self) -> IssueDeps:
        return IssueDeps(
            site=Site(issuer=URL, public_url=URL, environment="test"),
            clients=self.registry,
            runs=self.durable.runs,
            issuer=JoseIssuer(LocalSigner(KEY)),
            policy=self.policy,
            audit=self.audit,
            clock=self.clock,
            ids=self.ids,
            refuse=self._refuse,
            barred=self.barred,
            on_run_ended=lambda _run: None,
            on_run_created=lambda _run: None,
            on_issued=lambda _claims: None,
            assertions=self.key_desk,
        )

    async def _refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    async def ask(
        self,
        body: object = None,
        *,
        who: str | None = None,
        path: str = EVALUATION,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask as the launcher, of its run, unless told else."""
        await self.launch()
        pairs = {"host": "gw.example", "content-type": "application/json", **(headers or {})}
        if who != "":
            pairs["authorization"] = who or basic()
        raw = body if isinstance(body, bytes) else orjson.dumps(REFUND if body is None else body)
        return await call_app(self.asked_app, method, path, list(pairs.items()), raw)

    async def decide(self, body: object = None, *, who: str | None = None) -> dict[str, Any]:
        """Ask, and return the answer to a question that has one."""
        reply = await self.ask(body, who=who)
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found


def about(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The question, with members replaced."""
    return {**REFUND, **changes}
