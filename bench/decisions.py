"""What one policy decision costs as the company grows, through the gateway's own engine port."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, Final

import orjson

from bench.policies import agent_name, write_policies
from bench.processes import MeasurementError
from bench.requests import build_arguments
from gateway.adapters.policy.policy_bundle import load_bundle_dir
from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.policy.decision import Permit

AGENTS: Final = (10, 100, 1000, 3000)
_TOOL: Final = "bench.refund"
_DEADLINE_MS: Final = 2_000
_BLOCK: Final = 100
_STARTS: Final = 3
"""Where the machine puts a worker makes a third of a round trip, and stays: the best counts."""


def build_document(agent: str) -> bytes:
    """Return a policy input that asks about a refund by `agent`."""
    document: dict[str, Any] = orjson.loads(build_sample("call"))
    document["subject"]["id"] = agent
    document["resource"] |= {"id": _TOOL, "server": "bench", "effect": "money"}
    document["context"]["args"] = build_arguments(1)
    return orjson.dumps(document)


class _Company:
    """A company of so many agents, with an engine of its own."""

    def __init__(self, folder: Path, agents: int) -> None:
        write_policies(folder, agents)
        self.agents = agents
        self.times: list[float] = []
        self.policy = RegorusPolicy(load_bundle_dir(folder), deadline_ms=_DEADLINE_MS)
        self._documents = [build_document(agent_name(number % agents)) for number in range(50)]

    async def ask(self, rounds: int) -> None:
        """Ask for one decision at a time, a round trip to the worker each."""
        for number in range(rounds):
            document = self._documents[number % len(self._documents)]
            begin = time.perf_counter()
            decision = await self.policy.decide(_TOOL, "call", document)
            self.times.append((time.perf_counter() - begin) * 1e6)
            if not isinstance(decision, Permit):
                raise MeasurementError(f"policy was to permit, and did not: {decision}")


async def _measure(companies: list[_Company], rounds: int) -> dict[int, float]:
    try:
        for company in companies:
            await company.policy.start()
            company.policy.set_tools({_TOOL: ("bench", "money")})
        for company in companies:
            await company.ask(_BLOCK)
            company.times.clear()
        for _ in range(max(1, rounds // _BLOCK)):  # by turns: what disturbs one, disturbs all
            for company in companies:
                await company.ask(_BLOCK)
    finally:
        for company in companies:
            await company.policy.stop()
    return {company.agents: statistics.median(company.times) for company in companies}


def measure_decisions(folder: Path, rounds: int) -> dict[int, float]:
    """Return the median µs of a decision by number of agents. `folder` is made."""
    starts = []
    for start in range(_STARTS):
        companies = [_Company(folder / f"{agents}-{start}", agents) for agents in AGENTS]
        starts.append(asyncio.run(_measure(companies, max(1, rounds // _STARTS))))
    return {agents: min(start[agents] for start in starts) for agents in AGENTS}
