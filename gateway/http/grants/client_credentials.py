"""`client_credentials` (RFC 6749 §4.4): a run's credential, or an agent's own secret."""

from __future__ import annotations

from gateway.core.tokens.clients import Agent
from gateway.core.tokens.token import Run
from gateway.http.issue_desk import Issued, IssueDesk, Withheld
from gateway.http.oauth_forms import Failure
from gateway.http.token_endpoint import TokenRequest


class ClientCredentials:
    """Turns a run credential into a token of the run, and an agent's secret into a baseline one."""

    name = "client_credentials"

    def __init__(self, desk: IssueDesk) -> None:
        self._desk = desk

    async def answer(self, ask: TokenRequest) -> Issued | Withheld | Failure:
        """Issue a token of the run, or of the agent's own run."""
        if isinstance(ask.who, Agent | Run):
            return await self._desk.issue(ask.who, ask.wish)
        return Failure("unauthorized_client", "this client has no authority of its own")
