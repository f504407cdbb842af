"""The second half of the composition root: the call path, and the HTTP surface over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import cast

from fastapi import APIRouter

from connectors.catalog import Catalog
from connectors.refresh import Refresher
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.keys.issuer_tokens import IssuerTokens
from gateway.adapters.keys.jose_tokens import JoseIssuer
from gateway.adapters.keys.key_keeper import TokenKeys
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_idempotency import SqlIdempotency
from gateway.adapters.state.sql_runs import SqlRuns
from gateway.adapters.state.sql_spent import SqlSpent
from gateway.authenticator import Authenticator
from gateway.config import Config
from gateway.config_models import HttpServerSection, StdioServerSection
from gateway.core.approvals.approval import Vote
from gateway.core.caller import CallerCache
from gateway.core.calls.ledger import Ledger
from gateway.core.canonical import digest_of
from gateway.core.catalog import Tool
from gateway.core.errors import CountersignError
from gateway.core.limits import Limits
from gateway.core.ports import Clock, Ids, TokenVerifier, ToolTransport
from gateway.core.proofs.possession import ProofDesk
from gateway.core.refusal import Refusal, Stage
from gateway.core.tokens.clients import ClientRegistry
from gateway.core.tokens.issued import describe_issued
from gateway.core.tokens.launching import find_cut
from gateway.core.tokens.token import Claims, Run
from gateway.custody import Custody
from gateway.dispatch import Dispatcher, Step
from gateway.enforce import Enforcement
from gateway.holding import Deployment, HoldDesk
from gateway.http.app import GatewayApp, build_api
from gateway.http.approvals import ApprovalDeps
from gateway.http.approvals import build_router as build_approvals_router
from gateway.http.audit_access import build_audit_access_router
from gateway.http.challenge import Challenges
from gateway.http.humans import Admit, Humans, build_admit
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.http.mcp import McpEndpoint
from gateway.http.oauth import build_oauth_router
from gateway.http.origin import OriginCheck
from gateway.http.policy_bundle import build_bundle_router
from gateway.http.rest import RestEndpoint
from gateway.http.runs import build_runs_router
from gateway.http.runs_admin import RunsDesk
from gateway.http.status_tool import StatusTool
from gateway.http.tools_admin import ToolsAdmin
from gateway.judge import Judge
from gateway.kill_switch import KillSwitch
from gateway.notices import NoticeDesk
from gateway.refusals import RefusalRecorder
from gateway.wiring_audit import build_routers as build_audit_routers
from gateway.wiring_authorize import Authorization
from gateway.wiring_dpop import build_assertion_desk, build_proof_desks
from gateway.wiring_engine import Engine, load_bundle_token
from gateway.wiring_identity import HandOff, build_grant_types
from gateway.wiring_keys import build_router as build_keys_router
from gateway.wiring_kill import build_hand_off, build_is_known, build_kill_routers, guard_admit
from gateway.wiring_people import PeopleDesk
from gateway.wiring_registry import Registered
from gateway.wiring_releases import ReleaseKeeper
from gateway.wiring_shadow import Shadowing

Server = HttpServerSection | StdioServerSection
Refuse = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is up before the path is: every adapter that it stands on."""

    config: Config
    limits: Limits
    clock: Clock
    ids: Ids
    runs: SqlRuns
    approvals: SqlApprovals
    keys: SqlIdempotency
    spent: SqlSpent
    ledger: Ledger
    catalog: Catalog
    policy: Engine
    releases: ReleaseKeeper
    shadow: Shadowing
    audit: FileAuditLog
    token_keys: TokenKeys
    custody: Custody
    transports: Mapping[str, ToolTransport]
    refresher: Refresher
    ended_runs: set[str]
    trusted: IssuerTokens | None
    registered: Registered
    kills: KillSwitch
    people: PeopleDesk
    authorization: Authorization
    notices: NoticeDesk

    def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """The code under which authority is refused that ended before its time, or None."""
        if claims.run_id in self.ended_runs:
            return "token_revoked"
        return self.registered.registry.bars(claims) or self.kills.barred(claims, tool)

    def counts(self, vote: Vote) -> bool:
        """Whether a vote still counts: its voter may vote, and was not stopped since."""
        voter = vote.voter
        may_vote = self.registered.counts(voter) and not self.kills.bars_person(voter)
        return may_vote and not self.kills.voids(voter, vote.voted_at)

    def cut(self, run: Run) -> str | None:
        """Why a run could not be launched any more as it is, or None."""
        clients, apps = self.registered.clients, self.authorization.apps
        return find_cut(
            run,
            agent=clients.agent(run.agent),
            giver=clients.launcher(run.launcher) or apps.launcher(run.launcher),
            effect_of=self.effect_of,
        )

    def effect_of(self, server: str, tool: str) -> str | None:
        """What reviewers say that a tool does; None for one that nobody reviewed."""
        for status in self.catalog.states():
            if (status.server, status.name) == (server, tool):
                return status.effect
        return None


@dataclass(frozen=True, kw_only=True)
class CallPath:
    """The path, built: what `wiring.Gateway` has to start, to sweep and to stop."""

    enforcement: Enforcement
    dispatcher: Dispatcher
    refusals: RefusalRecorder
    app: GatewayApp


def build_path(parts: Parts, *, reached: Callable[[Step], None]) -> CallPath:
    """Connect everything that a call meets, and everything that is asked about calls."""
    config = parts.config
    registry, humans = parts.registered.clients, parts.registered.humans
    relay = OutboxRelay(parts.approvals, parts.audit).drain
    endpoints = {name: _endpoint_digest(server) for name, server in config.servers.items()}
    refusals = RefusalRecorder(
        audit=parts.audit, clock=parts.clock, ids=parts.ids, limits=parts.limits
    )
    callers = CallerCache()
    judge = _build_judge(parts, callers)
    desk = _build_desk(parts, registry, humans, endpoints, relay)
    tokens = parts.token_keys.build_verifier(
        issuer=config.tokens.issuer, audience=config.public_url
    )
    proofs = build_proof_desks(config, parts.clock)
    enforcement = _build_enforcement(
        parts,
        Authenticator(
            tokens=tokens,
            barred=parts.barred,
            clock=parts.clock,
            proofs=proofs.calls,
            look=parts.kills.look,
        ),
        judge=judge,
        desk=desk,
        refusals=refusals,
        notices=parts.notices,
        callers=callers,
    )
    dispatcher = _build_dispatcher(
        parts,
        desk=desk,
        judge=judge,
        enforcement=enforcement,
        relay=relay,
        endpoints=endpoints,
        reached=reached,
    )
    refuse = _build_refuse(parts, refusals)
    credentials = parts.people.sessions.by_credential
    admit = guard_admit(build_admit(humans, refuse, credentials), parts.kills, refuse)
    issue = _build_issue(parts, registry, parts.token_keys.issuer, refuse, proofs.tokens)
    app = _build_app(
        parts,
        enforcement=enforcement,
        desk=desk,
        admit=admit,
        issue=issue,
        tokens=tokens,
        approvals=_build_approvals(
            parts, humans=humans, admit=admit, relay=relay, dispatcher=dispatcher, desk=desk
        ),
    )
    return CallPath(enforcement=enforcement, dispatcher=dispatcher, refusals=refusals, app=app)


def _build_judge(parts: Parts, callers: CallerCache) -> Judge:
    return Judge(
        policy=parts.shadow.beside(parts.releases.counted(parts.policy)),
        ledger=parts.ledger,
        callers=callers,
        audit=parts.audit,
        catalog=parts.catalog.view,
        limits=parts.limits,
    )


def _build_enforcement(
    parts: Parts,
    authenticator: Authenticator,
    *,
    judge: Judge,
    desk: HoldDesk,
    refusals: RefusalRecorder,
    notices: NoticeDesk,
    callers: CallerCache,
) -> Enforcement:
    return Enforcement(
        authenticator=authenticator,
        catalog=parts.catalog.view,
        judge=judge,
        audit=parts.audit,
        transports=parts.transports,
        holds=desk,
        refusals=refusals,
        notices=notices,
        callers=callers,
        clock=parts.clock,
        limits=parts.limits,
    )


def _build_refuse(parts: Parts, refusals: RefusalRecorder) -> Refuse:
    async def refuse(stage: str, reason: str) -> None:
        """Record, or count, a refusal of somebody not yet known off the call path."""
        refusal = Refusal(cast("Stage", stage), reason)
        refused = await refusals.refuse_stranger(parts.ids.new(), refusal)
        if refused.refusal.stage == "record":
            raise CountersignError("no record could be made", code=refused.refusal.code)

    return refuse


def _build_desk(
    parts: Parts,
    registry: ClientRegistry,
    humans: Humans,
    endpoints: Mapping[str, str],
    relay: Callable[[], Awaitable[None]],
) -> HoldDesk:
    config = parts.config
    return HoldDesk(
        store=parts.approvals,
        runs=parts.runs,
        relay=relay,
        people=humans.everyone(),
        owners=lambda name: registry.owners(name) or parts.authorization.apps.owners(name),
        endpoints=endpoints,
        deployment=Deployment(config.tokens.issuer, config.environment, config.audit.origin),
        clock=parts.clock,
        ids=parts.ids,
    )


def _build_dispatcher(
    parts: Parts,
    *,
    desk: HoldDesk,
    judge: Judge,
    enforcement: Enforcement,
    relay: Callable[[], Awaitable[None]],
    endpoints: Mapping[str, str],
    reached: Callable[[Step], None],
) -> Dispatcher:
    return Dispatcher(
        store=parts.approvals,
        runs=parts.runs,
        desk=desk,
        judge=judge,
        enforcement=enforcement,
        relay=relay,
        refresh=parts.refresher.refresh,
        active=parts.registered.registry.is_active_agent,
        counts=parts.counts,
        cut=parts.cut,
        barred=parts.barred,
        told=parts.audit.knows,
        endpoints=endpoints,
        clock=parts.clock,
        ids=parts.ids,
        limits=parts.limits,
        reached=reached,
    )


def _build_approvals(
    parts: Parts,
    *,
    humans: Humans,
    admit: Admit,
    relay: Callable[[], Awaitable[None]],
    dispatcher: Dispatcher,
    desk: HoldDesk,
) -> ApprovalDeps:
    return ApprovalDeps(
        store=parts.approvals,
        humans=humans,
        admit=admit,
        clock=parts.clock,
        ids=parts.ids,
        relay=relay,
        on_approved=dispatcher.schedule,
        on_decided=desk.changed,
        voting_roles=parts.registered.voting_roles,
    )


def _build_issue(
    parts: Parts,
    registry: ClientRegistry,
    issuer: JoseIssuer,
    refuse: Refuse,
    proofs: ProofDesk,
) -> IssueDeps:
    return IssueDeps(
        site=parts.config.site(),
        clients=registry,
        runs=parts.runs,
        issuer=issuer,
        policy=parts.shadow.beside(parts.policy),
        audit=parts.audit,
        clock=parts.clock,
        ids=parts.ids,
        refuse=refuse,
        barred=parts.barred,
        on_issued=lambda claims: parts.audit.recovered.tokens.add(describe_issued(claims)),
        on_run_created=lambda run: parts.ledger.begin(run.id, run.labels),
        on_run_ended=parts.ended_runs.add,
        effect_of=parts.effect_of,
        apps=parts.authorization.apps,
        proofs=proofs,
        assertions=build_assertion_desk(parts.config, registry, parts.spent),
    )


def _build_app(
    parts: Parts,
    *,
    enforcement: Enforcement,
    desk: HoldDesk,
    admit: Admit,
    issue: IssueDeps,
    tokens: TokenVerifier,
    approvals: ApprovalDeps,
) -> GatewayApp:
    config = parts.config
    challenges = Challenges(config.public_url)
    origin = OriginCheck(config.public_url, dev=config.dev)
    mcp = McpEndpoint(
        enforcement=enforcement,
        status_tool=StatusTool(enforcement=enforcement, desk=desk),
        catalog=parts.catalog.view,
        challenges=challenges,
        origin=origin,
        ids=parts.ids,
        limits=parts.limits,
    )
    rest = RestEndpoint(
        enforcement=enforcement,
        approvals=parts.approvals,
        keys=parts.keys,
        challenges=challenges,
        origin=origin,
        clock=parts.clock,
        limits=parts.limits,
    )
    return GatewayApp(
        mcp=mcp,
        rest=rest,
        api=build_api(
            _build_routers(parts, issue, tokens, admit, approvals), version("countersign")
        ),
        ids=parts.ids,
        ready=lambda: {
            "audit": parts.audit.healthy,
            "policy": parts.policy.healthy,
        },
    )


def _build_routers(
    parts: Parts,
    issue: IssueDeps,
    tokens: TokenVerifier,
    admit: Admit,
    approvals: ApprovalDeps,
) -> list[APIRouter]:
    """Build everything that is asked off the call path."""
    return [
        build_oauth_router(
            issue,
            build_grant_types(
                issue,
                tokens=tokens,
                hand_off=_build_hand_off(parts),
                trusted=parts.trusted,
                spent=parts.spent,
                more=lambda desk: parts.authorization.grant_types(issue, desk),
            ),
            interactive=parts.authorization.interactive,
        ),
        *parts.authorization.routers(issue, parts.people.sessions, parts.catalog.states),
        build_runs_router(issue, _build_runs_desk(parts, issue, admit)),
        build_approvals_router(approvals),
        build_keys_router(parts.token_keys, admit),
        *_build_kill_routers(parts, issue, tokens, admit),
        ToolsAdmin(admit=admit, states=parts.catalog.states).router(),
        *parts.registered.routers(admit, parts.config.environment),
        *parts.people.routers(admit),
        *parts.releases.routers(admit, parts.registered.registry.active_person),
        parts.shadow.router(admit),
        *_build_bundle_routers(parts),
        build_audit_access_router(admit=admit, record=parts.audit.record, ids=parts.ids),
        *build_audit_routers(
            config=parts.config,
            log=parts.audit,
            custody=parts.custody,
            clock=parts.clock,
            ids=parts.ids,
            admit=admit,
        ),
    ]


def _build_bundle_routers(parts: Parts) -> list[APIRouter]:
    shelf, token = parts.policy.shelf, load_bundle_token(parts.config)
    return [] if shelf is None or not token else [build_bundle_router(shelf, token)]


def _build_runs_desk(parts: Parts, issue: IssueDeps, admit: Admit) -> RunsDesk:
    return RunsDesk(
        admit=admit,
        runs=parts.runs,
        ledger=parts.ledger,
        closer=IssueDesk(issue),
        clock=parts.clock,
    )


def _build_hand_off(parts: Parts) -> HandOff:
    return build_hand_off(parts.kills, parts.clock, parts.config.tokens.run_max_s)


def _build_kill_routers(
    parts: Parts, issue: IssueDeps, tokens: TokenVerifier, admit: Admit
) -> list[APIRouter]:
    registered, desk = parts.registered, IssueDesk(issue)
    return build_kill_routers(
        config=parts.config,
        kills=parts.kills,
        issued=parts.audit.recovered.tokens,
        tokens=tokens,
        barred=parts.barred,
        desk=desk,
        refuse=issue.refuse,
        admit=admit,
        clock=parts.clock,
        end_refresh=parts.authorization.after(issue, desk).end_refresh,
        is_known=build_is_known(
            config=parts.config,
            agents=lambda name: registered.clients.agent(name) is not None,
            clients=lambda name: (
                registered.clients.get(name) is not None
                or parts.authorization.apps.launcher(name) is not None
            ),
            people=lambda name: registered.registry.active_person(name) is not None,
            tools=lambda: parts.catalog.view().callable_tools(None),
        ),
    )


def _endpoint_digest(server: Server) -> str:
    """Where a server is: an approval for one place is no approval for another."""
    if isinstance(server, HttpServerSection):
        return digest_of({"url": server.url})
    return digest_of({"command": list(server.command), "cwd": str(server.cwd)})
