"""AuthZEN, wired: questions meet the same policies, ledger and catalog as calls."""

from __future__ import annotations

from gateway.core.caller import CallerCache
from gateway.enforce import Enforcement
from gateway.evaluating import Evaluator
from gateway.http.authzen import AuthZenEndpoint
from gateway.http.challenge import Challenges
from gateway.http.humans import Admit
from gateway.http.issue_desk import IssueDeps, IssueDesk
from gateway.judge import Judge
from gateway.wiring.parts import Parts


def build_authzen(
    parts: Parts, *, enforcement: Enforcement, issue: IssueDeps, admit: Admit
) -> AuthZenEndpoint:
    """Build the endpoint.

    Its judge asks an engine whose answers count for no release: who asks for denials must not have
    one taken back. It keeps callers of its own, so that questions displace nothing of calls.
    """
    judge = Judge(
        policy=parts.decisions.beside(parts.policy),
        ledger=parts.ledger,
        callers=CallerCache(),
        audit=parts.audit,
        catalog=parts.catalog.view,
        limits=parts.limits,
    )
    desk = IssueDesk(issue)
    evaluator = Evaluator(
        judge=judge,
        enforcement=enforcement,
        catalog=parts.catalog.view,
        audit=parts.audit,
        claims_of=desk.would_issue,
        barred=parts.barred,
        clock=parts.clock,
    )
    return AuthZenEndpoint(
        evaluator=evaluator,
        enforcement=enforcement,
        clients=desk,
        admit=admit,
        refuse=issue.refuse,
        challenges=Challenges(parts.config.public_url),
        public_url=parts.config.public_url,
        clock=parts.clock,
        limits=parts.limits,
    )
