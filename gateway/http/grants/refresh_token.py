"""`refresh_token` (OAuth 2.1 §4.3): an app keeps acting without asking its person again.

Each refresh token is good once and replaced by the next. One that comes again is in two hands, and
nobody can tell whose are the thief's: the run ends (RFC 9700 §4.14.2). Only within seconds of its
use, before anybody has used the next one, does it get that same next one again (ADR 0034).
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.core.oauth.apps import App
from gateway.core.oauth.authorization import Refresh
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.issuing import Wish
from gateway.http.authorizations import Authorizations
from gateway.http.issue_desk import Issued, IssueDesk, Withheld
from gateway.http.oauth_forms import Failure
from gateway.http.token_endpoint import TokenRequest


class RefreshToken:
    """Answers refreshes."""

    name = "refresh_token"

    def __init__(self, desk: IssueDesk, authorizations: Authorizations) -> None:
        self._desk = desk
        self._authorizations = authorizations

    async def answer(self, ask: TokenRequest) -> Issued | Withheld | Failure:
        """Issue another token of the run, and the next refresh token."""
        app = ask.who
        if not isinstance(app, App):
            return Failure("unauthorized_client", "refresh tokens are for apps")
        found = await self._authorizations.store.get_refresh(
            hash_secret(ask.one.get("refresh_token", ""))
        )
        # 1. Tokens made up, and tokens of another app.
        if found is None or found.client_id != app.id:
            return Failure("invalid_grant", "the refresh token is not known")
        # 2. A token used twice.
        if await self._authorizations.is_spent(found):
            await self._authorizations.end(found.run_id, app.id, "refresh_reused")
            return Failure("invalid_grant", "it was used before; everything of it is revoked")
        # 3. A stolen token in the hands of somebody without the app's key.
        if found.jkt and ask.wish.jkt != found.jkt:
            return Failure("invalid_dpop_proof", "prove that you hold the key of the first token")
        wish = _narrow(found, ask)
        if isinstance(wish, Failure):
            return wish
        return await self._refresh(app, found, wish)

    async def _refresh(self, app: App, old: Refresh, wish: Wish) -> Issued | Withheld | Failure:
        run = await self._authorizations.runs.get_run(old.run_id)
        if run is None or self._authorizations.now_s() >= old.expires_at:
            return Failure("invalid_grant", "the authorization is over; ask the person again")
        issued = await self._desk.issue(run, wish)
        if isinstance(issued, Withheld):
            return issued
        # Only now is the old one spent: a refusal for a moment's reason costs the app nothing.
        refresh = await self._authorizations.go_on_refreshing(old)
        if refresh is None:
            await self._authorizations.end(old.run_id, app.id, "refresh_reused")
            return Failure("invalid_grant", "it was used before; everything of it is revoked")
        return replace(issued, extra={**issued.extra, "refresh_token": refresh})


def _narrow(found: Refresh, ask: TokenRequest) -> Wish | Failure:
    granted = frozenset(found.scopes)
    scopes = granted if ask.wish.scopes is None else ask.wish.scopes
    if not scopes <= granted:
        return Failure("invalid_scope", "a scope was not consented to")
    if ask.one.get("resource", found.resource) != found.resource:
        return Failure("invalid_target", "`resource` is not that of the authorization")
    return replace(ask.wish, scopes=scopes)
