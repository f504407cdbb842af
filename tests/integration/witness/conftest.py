from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.adapters.bounded_http import build_client
from gateway.adapters.system import SystemIds
from gateway.adapters.witness.witness_client import Witness
from gateway.adapters.witness.witness_file import WitnessFile
from gateway.adapters.witness.witnessing import Anchor, Settings, Witnessing
from gateway.core.log.note import Checkpoint
from tests.integration.audit.parts import StillClock
from tests.integration.witness.parts import Log, WitnessIdentity
from tests.integration.witness.served import ServedWitness

TIMEOUT_S = 0.3


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with build_client() as client:
        yield client


@pytest.fixture
async def log() -> Log:
    return await Log().grow(3)


@pytest.fixture
async def served(log: Log, clock: StillClock) -> AsyncIterator[list[ServedWitness]]:
    """Three honest witnesses."""
    async with contextlib.AsyncExitStack() as stack:
        witnesses = [
            ServedWitness(WitnessIdentity(f"witness.example/{n}", n), log.audit.key, clock)
            for n in (1, 2, 3)
        ]
        for witness in witnesses:
            await stack.enter_async_context(witness.serving())
        yield witnesses


def introduce(_checkpoint: Checkpoint) -> str:
    """These witnesses know the log by its own key."""
    return ""


class Build:
    """Makes clients of the log, one after the other as a gateway that restarts would."""

    def __init__(
        self,
        log: Log,
        served: list[ServedWitness],
        http: httpx.AsyncClient,
        clock: StillClock,
        directory: Path,
    ) -> None:
        self.log, self.served, self.http, self.clock = log, served, http, clock
        self.directory = directory

    def witnesses(self, *, timeout_s: float = 10.0) -> list[Witness]:
        return [
            Witness(
                name=f"w{number}",
                url=one.url,
                key=one.identity.key,
                introduce=introduce,
                prove=self.log.prove,
                http=self.http,
                clock=self.clock,
                timeout_s=timeout_s,
            )
            for number, one in enumerate(self.served, 1)
        ]

    def __call__(
        self, *, quorum: int = 2, timeout_s: float = 10.0, anchors: tuple[Anchor, ...] = ()
    ) -> Witnessing:
        witnessing = Witnessing(
            audit=self.log.audit,
            newest=self.log.newest,
            witnesses=self.witnesses(timeout_s=timeout_s),
            anchors=anchors,
            file=WitnessFile(self.directory, origin=self.log.audit.key.name),
            settings=Settings(quorum=quorum, interval_s=60, alert_after_s=300),
            clock=self.clock,
            ids=SystemIds(),
        )
        witnessing.resume()
        return witnessing


@pytest.fixture
def build(
    log: Log,
    served: list[ServedWitness],
    http: httpx.AsyncClient,
    clock: StillClock,
    tmp_path: Path,
) -> Build:
    return Build(log, served, http, clock, tmp_path)
