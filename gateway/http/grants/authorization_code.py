"""`authorization_code` (OAuth 2.1 §4.1.3): what a person consented to becomes a run, and its token.

The run's agent is the app's, its launcher the app, and it acts on behalf of the person. A refresh
token comes with it, good until the run's deadline.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from gateway.core.oauth.apps import App, as_launcher
from gateway.core.oauth.authorization import Code, Consent, is_verifier
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.issuing import Wish
from gateway.core.tokens.launching import CONSENT_ORIGIN
from gateway.core.tokens.token import Run
from gateway.http.authorizations import Authorizations
from gateway.http.issue_desk import Issued, IssueDesk, Withheld
from gateway.http.oauth_forms import Failure
from gateway.http.token_endpoint import TokenRequest

_VOID: Final = "-"
"""Stands where a run's id would, for a code that was presented wrongly: nobody redeems it."""


class AuthorizationCode:
    """Redeems codes, each once."""

    name = "authorization_code"

    def __init__(self, desk: IssueDesk, authorizations: Authorizations) -> None:
        self._desk = desk
        self._authorizations = authorizations

    async def answer(self, ask: TokenRequest) -> Issued | Withheld | Failure:
        """Issue the first token of what was consented to."""
        app, one = ask.who, ask.one
        if not isinstance(app, App):
            return Failure("unauthorized_client", "codes are for apps that people consent to")
        found = await self._authorizations.store.get_code(hash_secret(one.get("code", "")))
        # 1. Codes made up, and codes of another app (a code injected into this one's flow).
        if found is None or found.consent.client_id != app.id:
            return Failure("invalid_grant", "the code is not known")
        # 2. A code used twice: one of the two stole it, so what came of it ends.
        if found.run_id == _VOID:
            return Failure("invalid_grant", "the code was presented wrongly before")
        if found.run_id:
            await self._authorizations.end(found.run_id, app.id, "code_reused")
            return Failure("invalid_grant", "the code was used before; its tokens are revoked")
        # 3. Stolen codes: brought late, without the verifier, or for another place.
        fault = self._find_fault(found.consent, one)
        if fault is not None:
            await self._authorizations.store.redeem_code(found.code_hash, _VOID)
            return fault
        wish = _narrow(found.consent, ask.wish)
        if isinstance(wish, Failure):
            return wish
        # 4. A code in the hands of somebody without the key that it is bound to; a token that
        # whoever steals it can use, where the app's are to be bound.
        if found.consent.jkt not in ("", wish.jkt) or (app.dpop and not wish.jkt):
            return Failure("invalid_dpop_proof", "send a DPoP proof of the app's key")
        return await self._redeem(app, found, wish)

    async def _redeem(self, app: App, code: Code, wish: Wish) -> Issued | Withheld | Failure:
        run = self._build_run(app, code.consent)
        if not await self._authorizations.store.redeem_code(code.code_hash, run.id):
            taken = await self._authorizations.store.get_code(code.code_hash)
            run_id = "" if taken is None else taken.run_id
            await self._authorizations.end(run_id, app.id, "code_reused")
            return Failure("invalid_grant", "the code was used before; its tokens are revoked")
        created = await self._desk.create(run, as_launcher(app), self._authorizations.ids.new())
        if isinstance(created, Withheld):
            return created
        issued = await self._desk.issue(created.run, wish)
        if isinstance(issued, Withheld):
            return issued
        refresh = await self._authorizations.start_refreshing(created.run, code.consent, wish.jkt)
        return replace(issued, extra={**issued.extra, "refresh_token": refresh})

    def _find_fault(self, consent: Consent, one: dict[str, str]) -> Failure | None:
        if self._authorizations.now_s() >= consent.expires_at:
            return Failure("invalid_grant", "the code is too old")
        if one.get("redirect_uri", "") != consent.redirect_uri:
            return Failure("invalid_grant", "`redirect_uri` is not that of the request")
        if not is_verifier(one.get("code_verifier", ""), consent.challenge):
            return Failure("invalid_grant", "`code_verifier` does not fit the challenge")
        if one.get("resource", consent.resource) != consent.resource:
            return Failure("invalid_target", "`resource` is not that of the request")
        return None

    def _build_run(self, app: App, consent: Consent) -> Run:
        return Run(
            id=self._authorizations.ids.new(),
            agent=consent.agent,
            launcher=consent.client_id,
            grants=consent.grants,
            allowed_values={},
            created_at=self._authorizations.now_s(),
            deadline=consent.deadline,
            credential_hash="",  # the desk makes one, which is told to nobody
            origin=CONSENT_ORIGIN,
            on_behalf_of=consent.person,
            dpop=app.dpop,
        )


def _narrow(consent: Consent, wish: Wish) -> Wish | Failure:
    granted = frozenset(consent.scopes)
    scopes = granted if wish.scopes is None else wish.scopes
    if not scopes <= granted:
        return Failure("invalid_scope", "a scope was not consented to")
    return replace(wish, scopes=scopes)
