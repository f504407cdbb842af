"""An agent acts for a person, on the word of a trusted issuer (RFC 8693, RFC 7523, ID-JAG).

`UserExchange` takes a person's own token together with the agent's; `JwtBearer` takes an assertion
that the issuer made for this client. Either gives a run under the limits of the issuer's launcher.
"""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec.structs import replace

from gateway.core.errors import CredentialError
from gateway.core.oauth import federation
from gateway.core.oauth.federation import TrustedIssuer, Vouched
from gateway.core.ports import Barred, IssuerTokenReader, SpentNames, TokenVerifier
from gateway.core.tokens.clients import Agent, Launcher
from gateway.http.grants.token_exchange import ACCESS_TOKEN
from gateway.http.issue_desk import Issued, IssueDeps, IssueDesk, Withheld
from gateway.http.oauth_forms import Failure
from gateway.http.token_endpoint import TokenRequest

JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a type's name

Answer = Issued | Withheld | Failure


class _UserRuns:
    """What both grants share: from a believed person to a token of the agent's run."""

    def __init__(self, desk: IssueDesk, deps: IssueDeps, reader: IssuerTokenReader) -> None:
        self._desk = desk
        self._deps = deps
        self._reader = reader

    async def act(
        self, ask: TokenRequest, issuer: TrustedIssuer, vouched: Vouched, agent: Agent
    ) -> Answer:
        launcher = self._deps.clients.launcher(issuer.launcher)
        if launcher is None:
            return Failure("invalid_grant", "agents may not act for people of this issuer")
        misfit = federation.find_misfit(vouched, agent, launcher)
        if misfit is not None:
            return Failure("invalid_grant", misfit)
        return await self._launch(ask, vouched, agent, launcher)

    async def _launch(
        self, ask: TokenRequest, vouched: Vouched, agent: Agent, launcher: Launcher
    ) -> Answer:
        deps = self._deps
        now_ns = deps.clock.now_ns()
        now_s = now_ns // 1_000_000_000
        run = federation.build_user_run(vouched, agent, launcher, deps.site, now_s)
        settled = await self._desk.settle_run(run, launcher, deps.ids.new(), now_ns)
        if isinstance(settled, Withheld):
            return settled
        return await self._desk.issue(settled, ask.wish)

    def now_s(self) -> int:
        return self._deps.clock.now_ns() // 1_000_000_000


class UserExchange(_UserRuns):
    """Exchanges a person's token for one with which the agent acts for that person."""

    def __init__(
        self,
        desk: IssueDesk,
        deps: IssueDeps,
        reader: IssuerTokenReader,
        *,
        tokens: TokenVerifier,
        barred: Barred,
    ) -> None:
        super().__init__(desk, deps, reader)
        self._tokens = tokens
        self._barred = barred

    async def __call__(self, ask: TokenRequest) -> Answer:
        """Answer one exchange; the token endpoint has seen that there is an actor token."""
        # 1. Somebody who says that an agent acts, without that agent.
        agent = self._find_actor(ask)
        if agent is None:
            return Failure("invalid_request", "the actor token is none of this client's own")
        # 2. A person's token that is forged, stale or for another service.
        try:
            signed = await self._reader.read(ask.one["subject_token"])
        except CredentialError as error:
            return Failure("invalid_request", f"the subject token is refused: {error}")
        vouched = federation.read_user_token(signed.issuer, signed.typ, signed.claims, self.now_s())
        if isinstance(vouched, str):
            return Failure("invalid_request", f"the subject token is refused: {vouched}")
        result = await self.act(ask, signed.issuer, vouched, agent)
        if not isinstance(result, Issued):
            return result
        return Issued(result.token, result.claims, {"issued_token_type": ACCESS_TOKEN})

    def _find_actor(self, ask: TokenRequest) -> Agent | None:
        try:
            acting = self._tokens.verify(ask.one["actor_token"].encode(), self.now_s())
        except CredentialError:
            return None
        who = ask.who
        if ask.one["actor_token_type"] != ACCESS_TOKEN or not isinstance(who, Agent):
            return None
        return who if who.id == acting.subject and self._barred(acting) is None else None


class JwtBearer(_UserRuns):
    """Takes identity assertions, each once."""

    name = "urn:ietf:params:oauth:grant-type:jwt-bearer"

    def __init__(
        self, desk: IssueDesk, deps: IssueDeps, reader: IssuerTokenReader, *, spent: SpentNames
    ) -> None:
        super().__init__(desk, deps, reader)
        self._spent = spent

    async def answer(self, ask: TokenRequest) -> Answer:
        """Answer one assertion."""
        who, assertion = ask.who, ask.one.get("assertion")
        if not isinstance(who, Agent):
            return Failure("unauthorized_client", "only an agent may act for a person")
        if assertion is None:
            return Failure("invalid_request", "`assertion` is missing")
        try:
            signed = await self._reader.read(assertion)
        except CredentialError as error:
            return Failure("invalid_grant", f"the assertion is refused: {error}")
        now_s = self.now_s()
        vouched = federation.read_assertion(
            signed.issuer,
            signed.typ,
            signed.claims,
            now_s,
            own_issuer=self._deps.site.issuer,
            client_id=who.id,
            public_url=self._deps.site.public_url,
        )
        if isinstance(vouched, str):
            return Failure("invalid_grant", f"the assertion is refused: {vouched}")
        # One that was overheard. Spent durably, so that a restart does not revive it.
        name = hashlib.sha256(b"id-jag." + vouched.name).digest()
        until_s = vouched.expires_at + federation.SKEW_S
        if not await self._spent.spend(name, until_s, now_s):
            return Failure("invalid_grant", "the assertion was used before")
        # More than the provider let the agent do for this person.
        if vouched.scopes is not None:
            if not (ask.wish.scopes or vouched.scopes) <= vouched.scopes:
                return Failure("invalid_scope", "the assertion does not have this scope")
            narrowed = ask.wish.scopes or vouched.scopes
            ask = replace(ask, wish=replace(ask.wish, scopes=narrowed))
        return await self.act(ask, signed.issuer, vouched, who)
