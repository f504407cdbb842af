"""Token exchange (RFC 8693): an agent hands a part of its authority to another agent.

The subject token is the giver's, the actor token the receiver's: who acts has shown that it can.
Either of the two may ask, nobody else. `handoff=true` ends the giver's own part in the run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec.structs import replace

from gateway.core.errors import CredentialError
from gateway.core.oauth.apps import App
from gateway.core.ports import Barred, Clock, TokenVerifier
from gateway.core.tokens.attenuation import may_hand_on
from gateway.core.tokens.clients import Agent, Client, ClientRegistry
from gateway.core.tokens.token import Claims, Run
from gateway.http.issue_desk import Issued, IssueDesk, Withheld
from gateway.http.oauth_forms import Failure
from gateway.http.token_endpoint import TokenRequest

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name

Exchange = Callable[[TokenRequest], Awaitable[Issued | Withheld | Failure]]


class TokenExchange:
    """Answers exchanges. `hand_off(claims)` bars an agent from its run, durably.

    `others`: by subject token type, who answers exchanges of tokens that are not this gateway's.
    """

    name = "urn:ietf:params:oauth:grant-type:token-exchange"

    def __init__(
        self,
        desk: IssueDesk,
        *,
        tokens: TokenVerifier,
        clients: ClientRegistry,
        barred: Barred,
        clock: Clock,
        hand_off: Callable[[Claims], Awaitable[None]],
        others: Mapping[str, Exchange] | None = None,
    ) -> None:
        self._desk = desk
        self._tokens = tokens
        self._clients = clients
        self._barred = barred
        self._clock = clock
        self._hand_off = hand_off
        self._others = others or {}

    async def answer(self, ask: TokenRequest) -> Issued | Withheld | Failure:
        """Exchange. Numbered by attack."""
        one = ask.one
        # 1. An exchange that names nobody who acts: the subject itself would be impersonated.
        unclear = _find_unclear(one)
        if unclear is not None:
            return Failure("invalid_request", unclear)
        if (other := self._others.get(one["subject_token_type"])) is not None:
            return await other(ask)
        if one["subject_token_type"] != ACCESS_TOKEN or one["actor_token_type"] != ACCESS_TOKEN:
            return Failure("invalid_request", f"both token types are `{ACCESS_TOKEN}`")
        # 2. Forged, expired, revoked tokens.
        parent = self._verify(one["subject_token"])
        acting = self._verify(one["actor_token"])
        if parent is None or acting is None:
            return Failure("invalid_request", "the subject or the actor token is not valid")
        # 3. Somebody who came by two tokens of others.
        if not any(_is_of(ask.who, claims) for claims in (parent, acting)):
            return Failure("invalid_request", "neither token is of this client")
        # 4. Agents that nobody said may work for each other.
        giver = self._clients.agent(parent.subject)
        actor = self._clients.agent(acting.subject)
        if giver is None or actor is None or not may_hand_on(parent, giver, actor):
            return Failure("invalid_request", "the actor may not act for this subject")
        # 5. A stolen bound token, exchanged for one that is bound to the thief's key.
        if parent.jkt and ask.wish.jkt != parent.jkt:
            return Failure("invalid_dpop_proof", "prove that you hold the subject token's key")
        if parent.jkt and not acting.jkt:
            return Failure("invalid_request", "the subject token is bound; so must the actor be")
        return await self._issue(ask, parent, acting, actor)

    async def _issue(
        self, ask: TokenRequest, parent: Claims, acting: Claims, actor: Agent
    ) -> Issued | Withheld | Failure:
        wish = replace(ask.wish, jkt=acting.jkt or ask.wish.jkt)
        result = await self._desk.hand_on(parent, actor, wish)
        if isinstance(result, Withheld):
            return result
        if ask.one.get("handoff") == "true":
            # 6. A giver that goes on with what it gave away. The new token leaves only after.
            await self._hand_off(parent)
        return Issued(result.token, result.claims, {"issued_token_type": ACCESS_TOKEN})

    def _verify(self, token: str) -> Claims | None:
        now_s = self._clock.now_ns() // 1_000_000_000
        try:
            claims = self._tokens.verify(token.encode(), now_s)
        except CredentialError:
            return None
        return claims if self._barred(claims) is None else None


_NEEDED: Final = ("subject_token", "subject_token_type", "actor_token", "actor_token_type")


def _find_unclear(one: Mapping[str, str]) -> str | None:
    """Say which parameter is missing or has no clear meaning, or return None."""
    missing = next((name for name in _NEEDED if name not in one), None)
    if missing is not None:
        return f"`{missing}` is missing"
    if one.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        return f"the requested token type is `{ACCESS_TOKEN}`"
    if one.get("handoff", "false") not in {"true", "false"}:
        return "`handoff` is `true` or `false`"
    return None


def _is_of(who: Client | Run | App, claims: Claims) -> bool:
    """Whether `who` is the agent of these claims: by its own secret, or as its run."""
    if isinstance(who, Run):
        return (who.id, who.agent) == (claims.run_id, claims.subject)
    return isinstance(who, Agent) and who.id == claims.subject
