"""The desk where authority is handed out: runs to launchers, access tokens to agents.

Each method is one story from a proven client to a record and a reply. Nothing leaves before its
record is durable, and whatever goes wrong leaves nothing but a refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.errors import CountersignError, PolicyError
from gateway.core.kills.kill import KILLED
from gateway.core.oauth.apps import App, Apps
from gateway.core.policy.decision import Decision
from gateway.core.ports import AuditLog, Barred, Clock, Ids, PolicyEngine, RunStore, TokenIssuer
from gateway.core.proofs.client_proof import AssertionDesk
from gateway.core.proofs.possession import ProofDesk
from gateway.core.records import issue_records as records
from gateway.core.tokens import jwt_claims
from gateway.core.tokens.attenuation import TooWide, build_child
from gateway.core.tokens.clients import (
    Agent,
    Client,
    ClientRegistry,
    Launcher,
    hash_secret,
    is_secret,
)
from gateway.core.tokens.grants import EffectOf, find_excess, knows_nothing
from gateway.core.tokens.issuing import (
    Question,
    Site,
    Wish,
    ask_about_run,
    ask_about_token,
    build_claims,
    build_own_run,
)
from gateway.core.tokens.launching import find_cut
from gateway.core.tokens.token import Claims, Run
from gateway.http.client_auth import Presented

_NO_TOOL: Final = ""


@dataclass(frozen=True, kw_only=True)
class IssueDeps:
    """What handing out authority needs.

    `refuse(stage, reason)` records a refusal of somebody not yet known (stages `read` and
    `authenticate`) and may sum such refusals up; it raises `AuditError` when it cannot.
    `effect_of(server, tool)` is what the catalog's reviewers say a tool does, None if nothing: with
    it a launcher's limit on one tool does not stand in the way of a wide grant for other effects.
    `stands_by(person, at)`: whether what a person consented to at a time (seconds) still counts.
    `barred(claims)` is the kill switch. `on_run_ended(run_id)` is told as soon as a run has ended,
    so that its live tokens die with it; `on_run_created(run)`, before it is on record.
    """

    site: Site
    clients: ClientRegistry
    runs: RunStore
    issuer: TokenIssuer
    policy: PolicyEngine
    audit: AuditLog
    clock: Clock
    ids: Ids
    refuse: Callable[[str, str], Awaitable[None]]
    barred: Barred
    on_run_ended: Callable[[str], None]
    on_run_created: Callable[[Run], None]
    on_issued: Callable[[Claims], None]
    effect_of: EffectOf = knows_nothing
    apps: Apps = field(default_factory=Apps)
    stands_by: Callable[[str, int], bool] = lambda _person_id, _at_s: False
    proofs: ProofDesk | None = None
    assertions: AssertionDesk | None = None


class Issued(Struct, frozen=True):
    """A token whose record is durable."""

    token: str
    claims: Claims
    extra: dict[str, Any] = {}
    """Further members of the reply."""


class Created(Struct, frozen=True):
    """A run whose record is durable. `credential` is told here once and kept nowhere."""

    run: Run
    credential: str


class Withheld(Struct, frozen=True):
    """Nothing was handed out. `code` is stable; `detail` is for the client that asked."""

    code: str
    detail: str
    error: str = ""
    """The error code of OAuth, where it is not the usual one."""


class IssueDesk:
    """Hands out authority. See `IssueDeps`."""

    def __init__(self, deps: IssueDeps) -> None:
        self._deps = deps

    async def authenticate(self, presented: Presented | None) -> Client | Run | None:
        """Return whose secret this is: a client of the configuration, or a run. None if nobody's.

        Constant time in the secret; an id that is not known costs the same comparison.
        """
        deps = self._deps
        if presented is None:
            return None
        if presented.assertion:
            return await self.authenticate_key(presented)
        if deps.clients.get(presented.client_id) is not None:
            return deps.clients.authenticate(presented.client_id, presented.secret)
        run = await deps.runs.get_run(presented.client_id)
        stored = "" if run is None else run.credential_hash
        return run if is_secret(presented.secret, stored) else None

    async def authenticate_key(self, presented: Presented) -> Client | None:
        """Return the client that signed this assertion, or None."""
        deps = self._deps
        if deps.assertions is None:
            return None
        assertion, named = presented.assertion.encode("utf-8", "replace"), presented.client_id
        now_s = deps.clock.now_ns() // 1_000_000_000
        return await deps.assertions.authenticate(assertion, named or None, now_s)

    async def believe(
        self, form: Mapping[str, str], presented: Presented | None
    ) -> Client | Run | App | None:
        """Return who sent a form. Apps first: a public one has nothing but its name to show."""
        if "client_assertion" not in form:
            app = self._find_app(form.get("client_id", ""), presented)
            if app is not None:
                return app
        return await self.authenticate(presented)

    def _find_app(self, client_id: str, presented: Presented | None) -> App | None:
        """Return the app that asks, or None. A public one proves nothing here but its name."""
        apps = self._deps.apps
        named = client_id if presented is None else presented.client_id
        app = apps.get(named) or apps.guest(named)
        secret = None if presented is None else presented.secret or None
        return app if app is not None and apps.authenticate(app, secret) else None

    async def issue(self, who: Agent | Run, wish: Wish) -> Issued | Withheld:
        """Issue a token of a run, or of the agent's own run.

        Raises `CountersignError` when no decision, no record or no state could be had.
        """
        deps = self._deps
        now_ns = deps.clock.now_ns()
        now_s = now_ns // 1_000_000_000
        op = deps.ids.new()
        run = await self._own_run(who, op, now_ns) if isinstance(who, Agent) else who
        if isinstance(run, Withheld):
            return run
        # 1. Authority that has been taken back since: run over, agent or launcher gone or cut.
        agent = deps.clients.agent(run.agent)
        over = self._find_over(run, now_s)
        if agent is None or over is not None:
            why = over or "the agent is no longer configured"
            return await self._refuse_token(op, records.run_actor(run), "run_over", why)
        jti = deps.ids.new()
        claims = build_claims(run, agent, site=deps.site, jti=jti, wish=wish, now_s=now_s)
        # 2. Details wider than the run.
        excess = find_excess(run.grants, claims.grants, deps.effect_of)
        if excess is not None:
            actor = records.token_actor(claims)
            return await self._refuse_token(
                op, actor, "details_exceeded", excess, "invalid_authorization_details"
            )
        return await self._finish(op, claims, now_ns, bound=agent.dpop or run.dpop)

    async def would_issue(self, run_id: str, now_s: int) -> Claims | None:
        """Return what a token of a live run would say now; None for a run that would get none.

        Nothing is issued, nothing is recorded, and policy is not asked.
        """
        deps = self._deps
        run = await deps.runs.get_run(run_id)
        if run is None or self._find_over(run, now_s) is not None:
            return None
        agent = deps.clients.agent(run.agent)
        if agent is None:
            return None
        jti = f"evaluate:{run.id}"  # one name for each run: what is kept by it does not pile up
        claims = build_claims(run, agent, site=deps.site, jti=jti, wish=Wish(), now_s=now_s)
        # Written and read, so that policies see it exactly as they see what a token says.
        said, _ = jwt_claims.decode(orjson.dumps(jwt_claims.encode(claims)))
        return said

    async def hand_on(self, parent: Claims, actor: Agent, wish: Wish) -> Issued | Withheld:
        """Issue a token with which `actor` acts for `parent`'s agent, and may do no more.

        The caller has checked that `parent` is genuine and that it may be handed to `actor`.
        Raises `CountersignError` as `issue` does.
        """
        deps = self._deps
        now_ns = deps.clock.now_ns()
        now_s, op = now_ns // 1_000_000_000, deps.ids.new()
        refused = records.token_actor(parent)
        run = await deps.runs.get_run(parent.run_id)
        over = "the run is not known" if run is None else self._find_over(run, now_s)
        if over is not None:
            return await self._refuse_token(op, refused, "run_over", over)
        child = build_child(
            parent,
            actor,
            site=deps.site,
            jti=deps.ids.new(),
            wish=wish,
            now_s=now_s,
            effect_of=deps.effect_of,
        )
        if isinstance(child, TooWide):
            return await self._refuse_token(
                op, refused, "exchange_too_wide", child.why, child.error
            )
        bound = actor.dpop or (run is not None and run.dpop)
        return await self._finish(op, child, now_ns, bound=bound)

    async def _finish(
        self, op: str, claims: Claims, now_ns: int, *, bound: bool
    ) -> Issued | Withheld:
        """Issue what `claims` say, if nothing bars it and policy permits.

        `bound`: whether it must be bound to a key.
        """
        deps = self._deps
        # 1. Killed agents, clients, runs, humans.
        if deps.barred(claims) is not None:
            actor = records.token_actor(claims)
            return await self._refuse_token(op, actor, "revoked", "this authority was revoked")
        # 2. A token that whoever steals it could use, where that was ruled out.
        if bound and not claims.jkt:
            actor, text = records.token_actor(claims), "send a proof in a `DPoP` header"
            return await self._refuse_token(op, actor, "proof_missing", text, "invalid_dpop_proof")
        # 3. What policy does not permit.
        question = ask_about_token(claims, now_ns)
        decision = await self._judge("token.refused", op, records.token_actor(claims), question)
        if not records.is_permitted(decision):
            return _denied(decision)
        # 4. INVARIANT: the record is durable before the token leaves.
        token = await deps.issuer.issue(claims)
        await deps.audit.record(records.build_token_issued(claims, op, question, decision))
        deps.on_issued(claims)
        return Issued(token, claims)

    async def create(self, run: Run, launcher: Launcher, op: str) -> Created | Withheld:
        """Create `run`, whose contents the caller has checked against what `launcher` may give.

        Raises `CountersignError` as `issue` does. A record without a run is harmless; a run
        without a record cannot be.
        """
        deps = self._deps
        credential = deps.ids.secret()
        run = replace(run, credential_hash=hash_secret(credential))
        now_ns = run.created_at * 1_000_000_000
        if self._is_stopped(run):
            await self.refuse_run(op, records.run_actor(run), KILLED)
            return Withheld(KILLED, "an operator has stopped this agent, launcher or person")
        question = ask_about_run(run, launcher, deps.site.environment, now_ns)
        decision = await self._judge("run.refused", op, records.run_actor(run), question)
        if not records.is_permitted(decision):
            return _denied(decision)
        # INVARIANT: before its record is durable: who keeps the state of things as of a record, as
        # the ledger does, has what the record says.
        deps.on_run_created(run)
        await deps.audit.record(records.build_run_created(run, op, question, decision))
        await deps.runs.create_run(run)
        return Created(run, credential)

    def _is_stopped(self, run: Run) -> bool:
        """Whether a token of this run would be refused: then there is no use in the run."""
        deps = self._deps
        agent = deps.clients.agent(run.agent)
        if agent is None:
            return False
        site, now_s = deps.site, run.created_at
        claims = build_claims(run, agent, site=site, jti="", wish=Wish(), now_s=now_s)
        return deps.barred(claims) is not None

    async def close(self, run: Run, outcome: str, *, by: str = "", reason: str = "") -> Run:
        """End a run: no more tokens, live ones die, nothing held in it is dispatched.

        `by`: the person who did it, where it was not its launcher. Ended runs stay as they ended.
        """
        deps = self._deps
        # INVARIANT: in force at once, as a kill is; an error says only that it is not kept yet.
        deps.on_run_ended(run.id)
        await deps.runs.end_run(run.id, outcome)
        entry = records.build_run_ended(run, deps.ids.new(), outcome, by=by, reason=reason)
        await deps.audit.record(entry)
        return await deps.runs.get_run(run.id) or run

    def bar_run(self, run_id: str) -> None:
        """Let no token of a run be good, from now on, although there is no such run yet."""
        self._deps.on_run_ended(run_id)

    async def refuse_run(self, op: str, actor: dict[str, Any], code: str) -> None:
        """Record that a known launcher did not get a run."""
        await self._deps.audit.record(records.build_issue_refused("run.refused", op, actor, code))

    async def refuse_token(self, who: Client | Run | App, code: str) -> None:
        """Record that a known client asked for a token in a way that gets none."""
        actor = records.run_actor(who) if isinstance(who, Run) else {"client": who.id}
        entry = records.build_issue_refused("token.refused", self._deps.ids.new(), actor, code)
        await self._deps.audit.record(entry)

    async def _own_run(self, agent: Agent, op: str, now_ns: int) -> Run | Withheld:
        """Return the run in which `agent` acts under its own secret, creating it once a day."""
        run = build_own_run(agent, now_ns // 1_000_000_000)
        itself = Launcher(id=agent.id, secret_hash="", owner=agent.owner, grants=agent.grants)
        return await self.settle_run(run, itself, op, now_ns)

    async def settle_run(
        self, run: Run, launcher: Launcher, op: str, now_ns: int
    ) -> Run | Withheld:
        """Return the run of this id, creating it as `run` if policy lets `launcher`.

        For runs whose id follows from what they are for: asking again gives the same budget.
        """
        deps = self._deps
        found = await deps.runs.get_run(run.id)
        if found is not None:
            return found
        question = ask_about_run(run, launcher, deps.site.environment, now_ns)
        decision = await self._judge("run.refused", op, records.run_actor(run), question)
        if not records.is_permitted(decision):
            return _denied(decision)
        await deps.audit.record(records.build_run_created(run, op, question, decision))
        try:
            await deps.runs.create_run(run)
        except CountersignError as error:
            if error.code != "run_exists":  # the same was asked twice at once
                raise
        return run

    def _find_over(self, run: Run, now_s: int) -> str | None:
        if run.ended:
            return "the run has ended"
        if now_s >= run.deadline:
            return "the run is past its deadline"
        deps, giver = self._deps, run.launcher
        return find_cut(
            run,
            agent=deps.clients.agent(run.agent),
            giver=deps.clients.launcher(giver) or deps.apps.launcher(giver),
            effect_of=deps.effect_of,
            stands_by=deps.stands_by,
        )

    async def _judge(
        self, kind: str, op: str, actor: dict[str, Any], question: Question
    ) -> Decision:
        """Ask policy; record anything but a permit. Raises `PolicyError` when nothing answers."""
        audit = self._deps.audit
        try:
            decision = await self._deps.policy.decide(_NO_TOOL, "issue", question.document)
        except PolicyError as error:
            await audit.record(records.build_issue_refused(kind, op, actor, error.code))
            raise
        if not records.is_permitted(decision):
            await audit.record(records.build_issue_denied(kind, op, actor, question, decision))
        return decision

    async def _refuse_token(
        self, op: str, actor: dict[str, Any], code: str, detail: str, error: str = ""
    ) -> Withheld:
        entry = records.build_issue_refused("token.refused", op, actor, code)
        await self._deps.audit.record(entry)
        return Withheld(code, detail, error)


def _denied(decision: Decision) -> Withheld:
    code = records.refusal_code(decision)
    return Withheld("policy_denied", f"policy does not permit this: `{code}`")
