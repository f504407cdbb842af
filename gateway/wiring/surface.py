"""The HTTP surface over the call path, and everything that is asked off it."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

from gateway.core.ports import TokenVerifier
from gateway.enforce import Enforcement
from gateway.holding import HoldDesk
from gateway.http.app import GatewayApp, build_api
from gateway.http.approvals import ApprovalDeps
from gateway.http.approvals import build_router as build_approvals_router
from gateway.http.audit_access import build_audit_access_router
from gateway.http.challenge import Challenges
from gateway.http.humans import Admit
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
from gateway.wiring.audit import build_routers as build_audit_routers
from gateway.wiring.authzen import build_authzen
from gateway.wiring.engine import load_bundle_token
from gateway.wiring.identity import HandOff, build_grant_types
from gateway.wiring.keys import build_router as build_keys_router
from gateway.wiring.kill import build_hand_off, build_is_known, build_kill_routers
from gateway.wiring.parts import Parts


def build_app(
    parts: Parts,
    *,
    enforcement: Enforcement,
    desk: HoldDesk,
    admit: Admit,
    issue: IssueDeps,
    tokens: TokenVerifier,
    approvals: ApprovalDeps,
) -> GatewayApp:
    """Return the one ASGI application: calls on raw routes, the rest below FastAPI."""
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
        authzen=build_authzen(parts, enforcement=enforcement, issue=issue, admit=admit)
        if config.authzen.enabled
        else None,
        ready=lambda: {
            "audit": parts.audit.healthy and parts.audit.keeps_up,
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
        *parts.releases.routers(admit, parts.publishes),
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
            runs=parts.runs,
        ),
    )
