"""Runs that are imagined: calls one after another, judged and charged by the gateway's own code.

A scenario is played through `Judge` with a ledger of its own, so a hold, a sum or a label is what
it would be at the gateway. What is left out: nothing is sent, so tools answer nothing, and no
package sees a result. The token grants every tool by its name: that is the most that a launcher can
hand out, and policies may permit only what a grant names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import orjson
from msgspec import Struct

from gateway.core.approvals.approval import spec_digest
from gateway.core.caller import CallerCache
from gateway.core.calls.call import Arguments, AuthenticatedCall, CallMeta, RawCall, ResolvedCall
from gateway.core.calls.ledger import Ledger
from gateway.core.catalog import Tool
from gateway.core.limits import Limits
from gateway.core.policy.decision import Phase
from gateway.core.policy.statement import Goes
from gateway.core.ports import AuditLog, PolicyEngine
from gateway.core.records.call_records import codes
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST, Claims, Grant
from gateway.judge import Denied, Held, Judge, Permitted

WORKDAY_S: Final = 1_795_518_000
"""Tuesday, 24 November 2026, 11:00 UTC."""

WEEKEND_S: Final = 1_795_230_000
"""Saturday, 21 November 2026, 03:00 UTC."""

_TTL_S: Final = 300
_APPROVAL: Final = "apr_search"


class World(Struct, frozen=True):
    """Who acts, for whom and where; the same for a whole run."""

    environment: str = "prod"
    agent: str = "agent"
    owner: str = ""
    roles: tuple[str, ...] = ()
    human: str | None = None
    client: str = "launcher"
    workflow: str = ""
    origin: str = "launcher"
    allowed_values: dict[str, tuple[str, ...]] = {}
    labels: tuple[str, ...] = ()
    start_s: int = WORKDAY_S


class Step(Struct, frozen=True):
    """One call. `approve`: when people agree if it is held: before the next call, or at the end."""

    tool: str
    args: dict[str, Any]
    claimed: dict[str, Any] = {}
    approve: Literal["now", "last"] = "now"


class Scenario(Struct, frozen=True):
    """A run."""

    world: World
    steps: tuple[Step, ...]


class Moment(Struct, frozen=True):
    """One decision of a run: the input, and how the call goes on."""

    step: int
    phase: Phase
    tool: str
    document: bytes
    goes: Goes
    reasons: tuple[str, ...]


class Stage:
    """Plays scenarios with one set of policies and one catalog. `decided` counts decisions."""

    def __init__(self, engine: PolicyEngine, tools: Mapping[str, Tool]) -> None:
        self.tools: Final = dict(tools)
        self.decided = 0
        self._engine: Final = engine
        self._grants: Final = {
            id_: Grant(server=tool.server, tool=tool.name) for id_, tool in sorted(tools.items())
        }

    async def play(self, scenario: Scenario) -> list[Moment]:
        """Return the decisions of a run in order. Steps whose arguments no schema takes are none.

        A call that is held waits for people, who always agree.
        """
        play = _Play(self._engine, self.tools, self._grants, scenario)
        moments = [moment async for moment in play.run()]
        self.decided += len(moments)
        return moments


class _Play:
    """One scenario under way."""

    def __init__(
        self,
        engine: PolicyEngine,
        tools: Mapping[str, Tool],
        grants: Mapping[str, Grant],
        scenario: Scenario,
    ) -> None:
        self._tools: Final = tools
        self._grants: Final = grants
        self._scenario: Final = scenario
        self._claims: Final = _build_claims(scenario.world, tuple(grants.values()))
        ledger = Ledger()
        if scenario.world.labels:
            ledger.begin(self._claims.root_jti, scenario.world.labels)
        self._judge: Final = Judge(
            policy=engine,
            ledger=ledger,
            callers=CallerCache(),
            audit=cast("AuditLog", None),  # judging a call records nothing; its caller does
            catalog=lambda: _View(tools),
            limits=Limits(),
        )

    async def run(self) -> Any:  # noqa: ANN401 - an async generator of moments
        waiting: list[tuple[int, ResolvedCall, str]] = []
        for number, step in enumerate(self._scenario.steps):
            resolved = self._resolve(number, step)
            if resolved is None:
                continue
            verdict = await self._judge.judge(resolved, "call")
            yield _tell(number, "call", resolved, verdict)
            if isinstance(verdict, Held):
                held = number, resolved, spec_digest(verdict.decision.approval)
                if step.approve == "last":
                    waiting.append(held)
                else:
                    yield await self._resume(*held)
        for held in waiting:
            yield await self._resume(*held)

    async def _resume(self, number: int, resolved: ResolvedCall, agreed: str) -> Moment:
        approval = {"id": _APPROVAL, "state": "APPROVED", "spec_digest": agreed}
        verdict = await self._judge.judge(resolved, "resume", approval)
        stale = (
            isinstance(verdict, Permitted)
            and verdict.held is not None
            and spec_digest(verdict.held.approval) != agreed
        )
        if stale and isinstance(verdict, Permitted):
            self._judge.give_back(verdict.charge)
        return _tell(number, "resume", resolved, verdict, stale=stale)

    def _resolve(self, number: int, step: Step) -> ResolvedCall | None:
        tool = self._tools[step.tool]
        if tool.schema.failure(step.args) is not None:
            return None
        raw = RawCall(
            op=f"{number:032x}",
            credential=None,
            tool=tool.wire_name,
            server=tool.server,
            arguments=Arguments(orjson.dumps(step.args), step.args),
            meta=CallMeta(surface="mcp", claimed=step.claimed),
        )
        now_ns = (self._scenario.world.start_s + number) * 1_000_000_000
        call = AuthenticatedCall(raw, self._claims, now_ns)
        return ResolvedCall(call, tool, self._grants[tool.id])


class _View:
    """A catalog of exactly these tools."""

    version = "search"

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    def find(self, name: str, server: str | None) -> Tool | None:
        """See `CatalogView`."""
        named = (tool for tool in self._tools.values() if tool.wire_name == name)
        return next(named, None) if server is None else self._tools.get(f"{server}.{name}")

    def callable_tools(self, server: str | None) -> tuple[Tool, ...]:
        """See `CatalogView`."""
        return tuple(tool for tool in self._tools.values() if server in {None, tool.server})


def _tell(
    number: int,
    phase: Phase,
    resolved: ResolvedCall,
    verdict: Permitted | Held | Denied,
    *,
    stale: bool = False,
) -> Moment:
    goes: Goes = "deny"
    if isinstance(verdict, Held):
        goes = "hold"
    elif isinstance(verdict, Permitted) and not stale:
        goes = "approved" if phase == "resume" else "permit"
    reasons = tuple(codes(verdict.decision.reasons))
    return Moment(number, phase, resolved.tool.id, verdict.document, goes, reasons)


def _build_claims(world: World, grants: tuple[Grant, ...]) -> Claims:
    return Claims(
        issuer="https://search.invalid",
        audience="https://search.invalid",
        subject=world.agent,
        client_id=world.client,
        jti="run_search",
        issued_at=world.start_s,
        expires_at=world.start_s + _TTL_S,
        scopes=frozenset({SCOPE_LIST, SCOPE_CALL}),
        grants=grants,
        environment=world.environment,
        run_id="run_search",
        root_jti="run_search",
        sid="search",
        workflow=world.workflow,
        on_behalf_of=world.human,
        allowed_values=world.allowed_values,
        roles=world.roles,
        owner=world.owner,
        origin=world.origin,
    )
