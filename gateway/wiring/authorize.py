"""What the composition root makes of apps that people consent to (docs/interactive-clients.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import APIRouter

from gateway.adapters.client_documents import Documents
from gateway.adapters.state.sql_authorizations import SqlAuthorizations
from gateway.adapters.state.sql_sessions import SqlSessions, SqlTickets
from gateway.adapters.state.sql_store import SqlState
from gateway.config.settings import Config
from gateway.core.oauth.apps import Apps
from gateway.core.oauth.metadata import Interactive
from gateway.core.people.sign_in_changes import SignInChanges
from gateway.core.ports import Clock
from gateway.http.authorizations import Authorizations
from gateway.http.authorize import AuthorizeDeps, SessionDoor, build_authorize_router
from gateway.http.authorize_register import build_register_router
from gateway.http.consent_page import ToolSeen
from gateway.http.grants.authorization_code import AuthorizationCode
from gateway.http.grants.refresh_token import RefreshToken
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.http.token_endpoint import GrantType

_log: Final = structlog.get_logger("gateway.sign_in")


async def end_undone_sign_ins(changes: SignInChanges, state: SqlState) -> None:
    """End what a state put back from a backup would revive. Call before anybody is let in.

    A session, a claim and a code that the state undid cannot be told from good ones, so all of them
    end. A refresh token can: the log knows when its run last got a token.
    """
    store = SqlAuthorizations(state)
    if not changes.count:
        ended = await store.forget_older(changes.issued)
        if ended:
            _log.warning("refresh_tokens_ended", count=ended, reason="state_older_than_log")
        return
    ended = await SqlSessions(state).forget_all() + await SqlTickets(state).forget_all()
    ended += await store.forget_all()
    if ended:
        _log.warning("signed_out_everybody", count=ended, reason="state_older_than_log")


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """Apps, what is stored of them, and where those that name themselves are described."""

    apps: Apps
    store: SqlAuthorizations
    documents: Documents | None
    deadline_s: int

    @property
    def interactive(self) -> Interactive:
        """What the metadata tell clients of it."""
        registration = self.apps.strangers.registration
        return Interactive(documents=self.documents is not None, registration=registration)

    async def open(self) -> None:
        """Know the apps that registered themselves; what they may have is configured anew."""
        if not self.apps.strangers.registration:
            return
        for app in await self.store.find_apps():
            known = self.apps.stranger(
                app.id,
                name=app.name,
                redirect_uris=app.redirect_uris,
                secret_hash=app.secret_hash,
            )
            self.apps.put(known)

    async def close(self) -> None:
        """Let connections go."""
        if self.documents is not None:
            await self.documents.close()

    def grant_types(self, issue: IssueDeps, desk: IssueDesk) -> Sequence[GrantType]:
        """Build the grant types of codes and refresh tokens."""
        authorizations = self.after(issue, desk)
        return AuthorizationCode(desk, authorizations), RefreshToken(desk, authorizations)

    def after(self, issue: IssueDeps, desk: IssueDesk) -> Authorizations:
        """Build what becomes of authorizations once the browser is gone."""
        return Authorizations(
            store=self.store,
            runs=issue.runs,
            desk=desk,
            audit=issue.audit,
            clock=issue.clock,
            ids=issue.ids,
        )

    def routers(
        self, issue: IssueDeps, sessions: SessionDoor, tools: Callable[[], Iterable[ToolSeen]]
    ) -> list[APIRouter]:
        """Build the page of consent and, where it is on, the registration."""
        deps = AuthorizeDeps(
            site=issue.site,
            apps=self.apps,
            documents=self.documents,
            sessions=sessions,
            store=self.store,
            audit=issue.audit,
            clock=issue.clock,
            ids=issue.ids,
            effect_of=issue.effect_of,
            tools=tools,
            refuse=issue.refuse,
            deadline_s=self.deadline_s,
        )
        routers = [build_authorize_router(deps)]
        if self.apps.strangers.registration:
            routers.append(build_register_router(deps))
        return routers


def build_authorization(config: Config, *, state: SqlState, clock: Clock) -> Authorization:
    """Connect what apps and their consents need. Nothing is fetched yet."""
    section = config.oauth.client_id_metadata_documents
    documents = (
        Documents(section.allowed_hosts, clock=clock, dev=config.dev) if section.enabled else None
    )
    return Authorization(
        apps=config.apps(),
        store=SqlAuthorizations(state),
        documents=documents,
        deadline_s=config.oauth.authorization_s,
    )
