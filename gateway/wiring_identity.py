"""Who may ask for authority, and how: the grant types of the token endpoint, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gateway.core.ports import TokenVerifier
from gateway.core.token import Claims
from gateway.http.grants.client_credentials import ClientCredentials
from gateway.http.grants.token_exchange import TokenExchange
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.http.token_endpoint import GrantType

HandOff = Callable[[Claims], Awaitable[None]]


def build_grant_types(
    deps: IssueDeps, *, tokens: TokenVerifier, hand_off: HandOff
) -> Callable[[IssueDesk], Sequence[GrantType]]:
    """Return what makes every grant type, given the desk that issues."""

    def build(desk: IssueDesk) -> Sequence[GrantType]:
        return (
            ClientCredentials(desk),
            TokenExchange(
                desk,
                tokens=tokens,
                clients=deps.clients,
                barred=deps.barred,
                clock=deps.clock,
                hand_off=hand_off,
            ),
        )

    return build
