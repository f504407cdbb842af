"""Who may ask for authority, and how: the grant types of the token endpoint, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gateway.core.ports import IssuerTokenReader, SpentNames, TokenVerifier
from gateway.core.tokens.token import Claims
from gateway.http.grants.client_credentials import ClientCredentials
from gateway.http.grants.token_exchange import TokenExchange
from gateway.http.grants.user_tokens import ID_TOKEN, JWT, JwtBearer, UserExchange
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.http.token_endpoint import GrantType

HandOff = Callable[[Claims], Awaitable[None]]


def build_grant_types(
    deps: IssueDeps,
    *,
    tokens: TokenVerifier,
    hand_off: HandOff,
    trusted: IssuerTokenReader | None = None,
    spent: SpentNames | None = None,
    more: Callable[[IssueDesk], Sequence[GrantType]] = lambda _desk: (),
) -> Callable[[IssueDesk], Sequence[GrantType]]:
    """Return what makes every grant type, given the desk that issues.

    Without `trusted` and `spent` there is nobody whose word about people is taken. `more` makes
    those of other parts.
    """

    def build(desk: IssueDesk) -> Sequence[GrantType]:
        found: list[GrantType] = [ClientCredentials(desk)]
        others = {}
        if trusted is not None and spent is not None:
            found.append(JwtBearer(desk, deps, trusted, spent=spent))
            for_people = UserExchange(desk, deps, trusted, tokens=tokens, barred=deps.barred)
            others = {JWT: for_people, ID_TOKEN: for_people}
        exchange = TokenExchange(
            desk,
            tokens=tokens,
            clients=deps.clients,
            barred=deps.barred,
            clock=deps.clock,
            hand_off=hand_off,
            others=others,
        )
        return (*found, exchange, *more(desk))

    return build
