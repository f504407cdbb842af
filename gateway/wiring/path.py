"""The second half of the composition root: the call path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from gateway.adapters.keys.jose_tokens import JoseIssuer
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.authenticator import Authenticator
from gateway.config.models import HttpServerSection, StdioServerSection
from gateway.core.caller import CallerCache
from gateway.core.canonical import digest_of
from gateway.core.errors import CountersignError
from gateway.core.proofs.possession import ProofDesk
from gateway.core.refusal import Refusal, Stage
from gateway.core.tokens.clients import ClientRegistry
from gateway.core.tokens.issued import describe_issued
from gateway.dispatch import Dispatcher, Step
from gateway.enforce import Enforcement
from gateway.holding import Deployment, HoldDesk
from gateway.http.app import GatewayApp
from gateway.http.approvals import ApprovalDeps
from gateway.http.humans import Admit, Humans, build_admit
from gateway.http.issue_desk import IssueDeps
from gateway.judge import Judge
from gateway.notices import NoticeDesk
from gateway.refusals import RefusalRecorder
from gateway.wiring.dpop import build_assertion_desk, build_proof_desks
from gateway.wiring.kill import guard_admit
from gateway.wiring.parts import Parts
from gateway.wiring.surface import build_app

Server = HttpServerSection | StdioServerSection
Refuse = Callable[[str, str], Awaitable[None]]


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
    app = build_app(
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
        policy=parts.decisions.beside(parts.shadow.beside(parts.releases.counted(parts.policy))),
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
        standing=parts.standing,
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
        voting_roles=parts.voting_roles,
        standing=parts.standing,
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
        policy=parts.decisions.beside(parts.shadow.beside(parts.policy)),
        audit=parts.audit,
        clock=parts.clock,
        ids=parts.ids,
        refuse=refuse,
        barred=parts.barred,
        on_issued=lambda claims: parts.audit.recovered.tokens.add(describe_issued(claims)),
        on_run_created=lambda run: parts.ledger.begin(run.id, run.labels),
        on_run_ended=parts.end_run,
        effect_of=parts.effect_of,
        apps=parts.authorization.apps,
        stands_by=parts.stands_by,
        proofs=proofs,
        assertions=build_assertion_desk(parts.config, registry, parts.spent),
    )


def _endpoint_digest(server: Server) -> str:
    """Where a server is: an approval for one place is no approval for another."""
    if isinstance(server, HttpServerSection):
        return digest_of({"url": server.url})
    return digest_of({"command": list(server.command), "cwd": str(server.cwd)})
