"""What a bundle must show of itself on an engine before that engine decides with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from gateway.adapters.policy.policy_sample import SELF_TEST_TOOL, build_sample
from gateway.adapters.policy.policy_scope import PHASES
from gateway.core.errors import ConfigurationError
from gateway.core.policy.decision import Decision, Deny, Phase, Reason
from gateway.core.policy.policy_answer import INVALID, UNDEFINED

Decide = Callable[[str, Phase, bytes], Awaitable[Decision]]
"""Takes (tool id, phase, input)."""


async def try_bundle(decide: Decide) -> None:
    """See that policies answer in each phase, and deny what they must.

    Raises `ConfigurationError`: `policy_invalid`, `policy_selftest_failed`.
    """
    phases = cast("tuple[Phase, ...]", PHASES)
    asked = (decide(SELF_TEST_TOOL, phase, build_sample(phase)) for phase in phases)
    for phase, decision in zip(phases, await asyncio.gather(*asked), strict=True):
        first = decision.reasons[0] if decision.reasons else Reason(code="")
        if first.code in {UNDEFINED, INVALID}:
            raise ConfigurationError(
                f"the policies give no usable answer in phase `{phase}`: {first.message}",
                code="policy_invalid",
            )
        if phase in {"call", "resume"} and not isinstance(decision, Deny):
            raise ConfigurationError(
                f"the policies let a tool that nobody reviewed through in phase `{phase}` "
                f"(`{first.code}`); permit only tools and effects that you name",
                code="policy_selftest_failed",
            )
