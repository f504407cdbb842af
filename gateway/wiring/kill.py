"""The kill switch and what becomes of tokens, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from fastapi import APIRouter, Request

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.state.sql_kills import SqlKills
from gateway.adapters.state.sql_store import SqlState
from gateway.config.settings import Config
from gateway.core.catalog import Tool
from gateway.core.errors import CountersignError, CredentialError
from gateway.core.kills.kill import Kind, actor_target
from gateway.core.oauth.apps import App
from gateway.core.ports import Barred, Clock, Ids, RunStore, TokenVerifier
from gateway.core.tokens.clients import Client
from gateway.core.tokens.issued import IssuedTokens
from gateway.core.tokens.issuing import OWN_RUN_MAX_S
from gateway.core.tokens.token import Claims, Run
from gateway.http.client_auth import read_client
from gateway.http.humans import Admit, Human
from gateway.http.issue_desk import IssueDesk
from gateway.http.kill_admin import KillAdminDeps, build_kill_router
from gateway.http.token_admin import (
    SKEW_S,
    EndRefresh,
    TokenAdminDeps,
    build_oauth_tokens_router,
    build_token_router,
)
from gateway.kill_switch import KillSwitch
from gateway.wiring.broker import find_bindings, load_manifests

Refuse = Callable[[str, str], Awaitable[None]]


async def start_kill_switch(
    *,
    state: SqlState,
    log: FileAuditLog,
    clock: Clock,
    ids: Ids,
    credentials: Mapping[str, Sequence[str]],
) -> KillSwitch:
    """Return the switch over a state and a log, knowing what both say.

    `credentials`: by server, what it is reached with. Call before anything is served.
    """
    kills = KillSwitch(
        store=SqlKills(state),
        log=log,
        clock=clock,
        ids=ids,
        credentials=lambda server: credentials.get(server, ()),
        stopped=log.recovered.stopped,
    )
    await kills.start(log.recovered.kills)
    return kills


def find_credentials(config: Config) -> dict[str, tuple[str, ...]]:
    """Return, by server, where the secrets are that it is reached with; no secret is read."""
    bindings = find_bindings(config, load_manifests(config))
    return {server: binding.references for server, binding in bindings.items()}


def guard_admit(admit: Admit, kills: KillSwitch, refuse: Refuse) -> Admit:
    """Return what lets people in, but for those who are stopped."""

    async def admit_unless_killed(authorization: str | None) -> Human:
        human = await admit(authorization)
        if kills.bars_person(human.id):
            await refuse("authenticate", "killed")
            raise CredentialError("this person is stopped; ask another admin", code="killed")
        return human

    return admit_unless_killed


def build_hand_off(
    kills: KillSwitch, clock: Clock, run_max_s: int
) -> Callable[[Claims], Awaitable[None]]:
    """Return what ends an agent's own part in its run, once it has handed that on."""

    async def hand_off(giver: Claims) -> None:
        until = clock.now_ns() // 1_000_000_000 + run_max_s + SKEW_S
        target = actor_target(giver.run_id, giver.subject)
        await kills.kill("actor", target, reason="handed_off", until=until)

    return hand_off


def build_kill_routers(
    *,
    config: Config,
    kills: KillSwitch,
    issued: IssuedTokens,
    tokens: TokenVerifier,
    barred: Barred,
    desk: IssueDesk,
    refuse: Refuse,
    admit: Admit,
    clock: Clock,
    is_known: Callable[[Kind, str], Awaitable[bool]],
    end_refresh: EndRefresh,
) -> list[APIRouter]:
    """Build `/v1/kills`, `/v1/tokens`, `/oauth/revoke` and `/oauth/introspect`."""

    async def authenticate(form: dict[str, str], request: Request) -> Client | Run | App | None:
        return await desk.believe(form, read_client(form, request))

    deps = TokenAdminDeps(
        kills=kills,
        issued=issued,
        tokens=tokens,
        barred=barred,
        authenticate=authenticate,
        refuse=refuse,
        admit=admit,
        clock=clock,
        token_max_s=config.tokens.ttl_s,
        run_max_s=max(config.tokens.run_max_s, OWN_RUN_MAX_S),
        end_refresh=end_refresh,
    )
    return [
        build_kill_router(KillAdminDeps(kills=kills, admit=admit, clock=clock, is_known=is_known)),
        build_token_router(deps),
        build_oauth_tokens_router(deps),
    ]


def build_is_known(
    *,
    config: Config,
    agents: Callable[[str], bool],
    clients: Callable[[str], bool],
    people: Callable[[str], bool],
    tools: Callable[[], Sequence[Tool]],
    runs: RunStore,
) -> Callable[[Kind, str], Awaitable[bool]]:
    """Return what says whether a target exists, so that a slip of the pen is noticed.

    What it does not know is stopped all the same: it may come later. Where runs cannot be looked
    up, it says nothing against one.
    """
    credentials = find_credentials(config)
    checks: Mapping[Kind, Callable[[str], bool]] = {
        "agent": agents,
        "client": clients,
        "human": people,
        "tool": lambda target: any(tool.id == target for tool in tools()),
        "server": lambda target: target in config.servers,
        "credential": lambda target: any(target in held for held in credentials.values()),
    }

    async def is_known(kind: Kind, target: str) -> bool:
        if kind == "run":
            with suppress(CountersignError):
                return await runs.get_run(target) is not None
        check = checks.get(kind)
        return True if check is None else check(target)

    return is_known
