"""What is up before the call path is: every adapter that it stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.catalog import Catalog
from connectors.mcp_stdio import McpStdioTransport
from connectors.refresh import Refresher
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.keys.issuer_tokens import IssuerTokens
from gateway.adapters.keys.key_keeper import TokenKeys
from gateway.adapters.state.sql_approvals import SqlApprovals
from gateway.adapters.state.sql_idempotency import SqlIdempotency
from gateway.adapters.state.sql_runs import SqlRuns
from gateway.adapters.state.sql_spent import SqlSpent
from gateway.config.settings import Config
from gateway.core.approvals.approval import Vote
from gateway.core.calls.ledger import Ledger
from gateway.core.catalog import Tool
from gateway.core.limits import Limits
from gateway.core.ports import Clock, Ids, ToolTransport
from gateway.core.releases.publishing import PUBLISHER
from gateway.core.tokens.ended_runs import EndedRuns
from gateway.core.tokens.launching import find_cut
from gateway.core.tokens.token import Claims, Run
from gateway.custody import Custody
from gateway.http.humans import Human
from gateway.kill_switch import KillSwitch
from gateway.notices import NoticeDesk
from gateway.wiring.authorize import Authorization
from gateway.wiring.decisions import Decisions
from gateway.wiring.engine import Engine
from gateway.wiring.people import PeopleDesk
from gateway.wiring.registry import Registered
from gateway.wiring.releases import ReleaseKeeper
from gateway.wiring.shadow import Shadowing


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Every adapter, and what several of them say together."""

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
    ended_runs: EndedRuns
    trusted: IssuerTokens | None
    registered: Registered
    kills: KillSwitch
    people: PeopleDesk
    authorization: Authorization
    notices: NoticeDesk
    decisions: Decisions

    def barred(self, claims: Claims, tool: Tool | None = None) -> str | None:
        """The code under which authority is refused that ended before its time, or None."""
        if self.ended_runs.bars(claims.run_id, claims.expires_at):
            return "token_revoked"
        return self.registered.desk.registry.bars(claims) or self.kills.barred(claims, tool)

    def end_run(self, run_id: str) -> None:
        """Let nothing of a run be good any more, and end the processes that served it alone."""
        self.ended_runs.add([run_id])
        for transport in self.transports.values():
            if isinstance(transport, McpStdioTransport):
                transport.end_run(run_id)

    def voting_roles(self, human: Human) -> tuple[str, ...]:
        """Return the roles of a person that count in a vote now; none of who is stopped."""
        stopped = self.kills.bars_person(human.id)
        return () if stopped else self.registered.voting_roles(human)

    def standing(self, vote: Vote) -> Vote | None:
        """What of a vote counts now; None where its voter may not vote, or was stopped since."""
        voter = vote.voter
        if self.kills.bars_person(voter) or self.kills.voids(voter, vote.voted_at):
            return None
        return self.registered.standing(vote)

    def publishes(self, person: str, said_at: int) -> bool:
        """Whether what a person said at a time is still the word of a publisher."""
        found = self.registered.registry.active_person(person)
        may_publish = found is not None and PUBLISHER in found.roles
        stopped = self.kills.bars_person(person) or self.kills.voids(person, said_at)
        return may_publish and not stopped

    def cut(self, run: Run) -> str | None:
        """Why a run could not be launched any more as it is, or None."""
        clients, apps = self.registered.clients, self.authorization.apps
        return find_cut(
            run,
            agent=clients.agent(run.agent),
            giver=clients.launcher(run.launcher) or apps.launcher(run.launcher),
            effect_of=self.effect_of,
            stands_by=self.stands_by,
        )

    def stands_by(self, person_id: str, at_s: int) -> bool:
        """Whether what somebody consented to counts: they are known, and were not stopped since."""
        known = self.registered.registry.find(person_id, "human") is not None
        return known and not self.kills.voids(person_id, at_s)

    def effect_of(self, server: str, tool: str) -> str | None:
        """What reviewers say that a tool does; None for one that nobody reviewed."""
        for status in self.catalog.states():
            if (status.server, status.name) == (server, tool):
                return status.effect
        return None
