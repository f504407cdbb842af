"""When a release that decides is taken back by itself: it denies, or fails, what went before.

The same inputs are put to the release before, off the call path. What both refuse says nothing, so
calls that are sent only to be denied bring nothing about; and no agent alone can.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from gateway.core.policy.decision import Decision, Deny, Hold

STEP_S: Final = 10
AGENT_CALLS_MIN: Final = 10
"""An agent of whom fewer calls were compared says nothing."""

_AGENTS_MAX: Final = 4_096
_FAILED: Final = "policy_"
Counted = Literal["permit", "hold", "deny", "error"]
Jump = Literal["denials", "errors"]


class Limits(Struct, frozen=True, kw_only=True):
    """`window_s`: how long is looked. `calls_min`: fewer compared calls say nothing.

    `agents_min`: so many agents must see it. The rises are of shares: 0.2 is of ten calls that the
    release before let through more than two.
    """

    enabled: bool = True
    window_s: int = 600
    calls_min: int = 200
    agents_min: int = 2
    denials_rise: float = 0.2
    errors_rise: float = 0.02


class Rates(Struct, frozen=True):
    """How many answers there were, and of which kind."""

    calls: int = 0
    denials: int = 0
    errors: int = 0

    def share(self, count: int) -> float:
        """Return the share of all calls; 0 where there were none."""
        return count / self.calls if self.calls else 0.0

    def plus(self, kind: Counted) -> Rates:
        """Return these and one more."""
        return Rates(
            self.calls + 1, self.denials + (kind == "deny"), self.errors + (kind == "error")
        )


class Compared:
    """What a release and the one before said of the same calls, by agent. Memory is bounded."""

    def __init__(self) -> None:
        self.before = Rates()
        self.after = Rates()
        self.agents: Final[dict[str, Rates]] = {}
        """Of each agent: calls; denied and failed only what the release before had not."""

    def add(self, agent: str, before: Counted, after: Counted) -> None:
        """Count one call."""
        self.before, self.after = self.before.plus(before), self.after.plus(after)
        if agent not in self.agents and len(self.agents) >= _AGENTS_MAX:
            agent = ""
        own = self.agents.get(agent, Rates())
        was_let_go = before in {"permit", "hold"}
        is_new = was_let_go if after == "deny" else before != "error"
        self.agents[agent] = own.plus(after if is_new else "permit")


def kind_of(decision: Decision | str) -> Counted:
    """Return as what an answer counts; the code of a failure, and a deny for want of one: error."""
    if isinstance(decision, str):
        return "error"
    if not isinstance(decision, Deny):
        return "hold" if isinstance(decision, Hold) else "permit"
    reasons = decision.reasons
    failed = len(reasons) == 1 and not reasons[0].policy and reasons[0].code.startswith(_FAILED)
    return "error" if failed else "deny"


def find_jump(compared: Compared, limits: Limits) -> Jump | None:
    """Say what jumped, or return None.

    Each agent's share weighs the same, however many calls it makes, so that one can neither bring
    a halt about nor keep one away; and `agents_min` of them must see a rise of their own.
    """
    if not limits.enabled or compared.after.calls < limits.calls_min:
        return None
    heard = [one for one in compared.agents.values() if one.calls >= AGENT_CALLS_MIN]
    kinds: tuple[tuple[Jump, float, list[float]], ...] = (
        ("errors", limits.errors_rise, [one.share(one.errors) for one in heard]),
        ("denials", limits.denials_rise, [one.share(one.denials) for one in heard]),
    )
    for name, rise, shares in kinds:
        seen = sum(share > rise for share in shares)
        if seen >= limits.agents_min and sum(shares) / len(shares) > rise:
            return name
    return None
