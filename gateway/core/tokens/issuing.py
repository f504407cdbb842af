"""Handing out authority: what a run's token says and what policy is asked before.

Phase `issue` (DESIGN §3, §4). A run is the root of its token family: `sid` and `root_jti` of
every token are the run's id, so ten tokens of a run have one budget (docs/adr/0010).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from gateway.core.canonical import canonicalize
from gateway.core.tokens.clients import Agent, Launcher
from gateway.core.tokens.narrowing import find_narrowed
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST, Claims, Grant, Run

DAY_S: Final = 86_400
OWN_RUN_MAX_S: Final = 2 * DAY_S
"""How long an agent's own run lives at most, whatever is configured for launched ones."""

AGENT_ORIGIN: Final = "agent"
SCOPES: Final = (SCOPE_LIST, SCOPE_CALL)


class Site(Struct, frozen=True, kw_only=True):
    """The deployment that hands out authority. `ttl_s`: seconds that an access token lives.

    `run_max_s`: seconds that a run may live. `max_depth`: how often its authority may be handed on.
    """

    issuer: str
    public_url: str
    environment: str
    ttl_s: int = 300
    run_max_s: int = DAY_S
    max_depth: int = 2


class Wish(Struct, frozen=True, kw_only=True):
    """How far a client narrows what it asks for. None: everything that there is to have.

    `jkt`: thumbprint of the key that the token shall be bound to (RFC 9449), or empty.
    """

    scopes: frozenset[str] | None = None
    grants: tuple[Grant, ...] | None = None
    jkt: str = ""


class Question(Struct, frozen=True):
    """What policy is asked in phase `issue`, and under whose key the log keeps it."""

    document: bytes
    data_subject: str


def build_claims(run: Run, agent: Agent, *, site: Site, jti: str, wish: Wish, now_s: int) -> Claims:
    """Build what a new token of `run` says. It never outlives the run.

    `client_id` is the run's launcher: the client on whose authority the agent acts.
    """
    return Claims(
        issuer=site.issuer,
        audience=site.public_url,
        subject=agent.id,
        client_id=run.launcher,
        jti=jti,
        issued_at=now_s,
        expires_at=min(now_s + site.ttl_s, run.deadline),
        scopes=frozenset(SCOPES) if wish.scopes is None else wish.scopes,
        grants=run.grants if wish.grants is None else wish.grants,
        jkt=wish.jkt,
        environment=site.environment,
        run_id=run.id,
        root_jti=run.id,
        sid=run.id,
        workflow=run.workflow,
        on_behalf_of=run.on_behalf_of,
        allowed_values=run.allowed_values,
        budget=run.budget,
        max_depth=run.max_depth,
        may_act=run.may_act,
        roles=agent.roles,
        owner=agent.owner,
        origin=run.origin,
        version=agent.version,
        narrowed=() if wish.grants is None else find_narrowed(run.grants, wish.grants),
    )


def build_own_run(agent: Agent, now_s: int) -> Run:
    """Build the run in which an agent acts under its own secret.

    One for each agent, baseline and UTC day: asking again gives the same run and the same budget.
    It ends a day after its own, so that what was held late in the day can still be approved.
    """
    day = now_s // DAY_S
    name = canonicalize(
        ["countersign.own-run/v1", agent.id, day, msgspec.to_builtins(agent.grants)]
    )
    return Run(
        id=hashlib.sha256(name).hexdigest()[:32],
        agent=agent.id,
        launcher=agent.id,
        grants=agent.grants,
        allowed_values={},
        created_at=now_s,
        deadline=day * DAY_S + OWN_RUN_MAX_S,
        credential_hash="",
        origin=AGENT_ORIGIN,
    )


def ask_about_token(claims: Claims, now_ns: int) -> Question:
    """Build the policy input for a token: the agent asks (`tokens/issue`)."""
    subject: dict[str, Any] = {
        "type": "agent",
        "id": claims.subject,
        "version": claims.version,
        "owner": claims.owner,
        "roles": list(claims.roles),
        "on_behalf_of": claims.on_behalf_of,
        "act": list(claims.actors),
    }
    token = {
        "scopes": sorted(claims.scopes),
        "constraints": msgspec.to_builtins(claims.grants),
        "allowed_values": claims.allowed_values,
        "depth": claims.depth,
        "expires_in_s": claims.expires_at - claims.issued_at,
        "origin": claims.origin,
        "narrowed": claims.narrowed,
    }
    context = {
        "now_ns": now_ns,
        "token": token,
        "run": {"id": claims.run_id, "workflow": claims.workflow},
        "client": {"id": claims.client_id},
    }
    document = _document("tokens/issue", claims.environment, subject, claims.subject, context)
    return Question(document, _data_subject(claims.on_behalf_of, claims.owner, claims.subject))


def ask_about_run(run: Run, launcher: Launcher, environment: str, now_ns: int) -> Question:
    """Build the policy input for a run: the launcher asks (`runs/create`).

    `context.token` holds what the run's tokens would say.
    """
    subject: dict[str, Any] = {
        "type": "launcher",
        "id": launcher.id,
        "version": "",
        "owner": launcher.owner,
        "roles": [],
        "on_behalf_of": run.on_behalf_of,
        "act": [],
    }
    token = {
        "scopes": [],
        "constraints": msgspec.to_builtins(run.grants),
        "allowed_values": run.allowed_values,
        "depth": 0,
        "expires_in_s": run.deadline - run.created_at,
        "origin": run.origin,
        "narrowed": [],
    }
    context = {
        "now_ns": now_ns,
        "token": token,
        "run": {"id": run.id, "workflow": run.workflow},
        "client": {"id": launcher.id},
    }
    document = _document("runs/create", environment, subject, run.agent, context)
    return Question(document, _data_subject(run.on_behalf_of, launcher.owner, launcher.id))


def _document(
    action: str, environment: str, subject: dict[str, Any], agent: str, context: dict[str, Any]
) -> bytes:
    document = {
        "version": 1,
        "phase": "issue",
        "environment": environment,
        "subject": subject,
        "action": {"name": action},
        "resource": {"type": "run", "id": agent, "server": ""},
        "context": {"args": {}, **context, "claimed": {}, "approval": None},
    }
    return orjson.dumps(document)


def _data_subject(on_behalf_of: str | None, owner: str, client: str) -> str:
    return on_behalf_of or owner or client
