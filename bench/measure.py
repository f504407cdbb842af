"""One run: governed and bare by turns, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.audit import AuditPlan
from bench.engine import EnginePlan
from bench.fsync import measure_fsync
from bench.kill import KillPlan
from bench.load import Figures, LoadGenerator
from bench.processes import read_family
from bench.replay import ReplayPlan
from bench.tokens import TokenPlan

FULL_LOAD: Final = 64
"""Connections at which throughput is compared."""


class Plan(Struct, frozen=True, kw_only=True):
    """How long to measure what. `pairs`: a turn of each side; times in seconds for each turn."""

    pairs: int
    pair_s: float
    alone_pairs: int
    alone_s: float
    sweep: tuple[int, ...]
    sweep_s: float
    fsync_s: float
    decision_rounds: int
    audit: AuditPlan
    kill: KillPlan
    tokens: TokenPlan
    replay: ReplayPlan
    engine: EnginePlan


QUICK: Final = Plan(
    pairs=2,
    pair_s=2,
    alone_pairs=1,
    alone_s=2,
    sweep=(),
    sweep_s=0,
    fsync_s=0.5,
    decision_rounds=1_000,
    audit=AuditPlan(1.0, 50_000),
    kill=KillPlan(8),
    tokens=TokenPlan(1_000, 3.0),
    replay=ReplayPlan(5_000, 1_000),
    engine=EnginePlan(1_000, 1.0, 50),
)
FULL: Final = Plan(
    pairs=5,
    pair_s=4,
    alone_pairs=3,
    alone_s=3,
    sweep=(8, 32, 128),
    sweep_s=3,
    fsync_s=0.5,
    decision_rounds=5_000,
    audit=AuditPlan(4.0, 1_000_000),
    kill=KillPlan(30),
    tokens=TokenPlan(2_000, 10.0),
    replay=ReplayPlan(50_000, 4_000),
    engine=EnginePlan(5_000, 5.0, 50),
)


class Side(Struct, frozen=True):
    """One of the two things compared. `pid` is its main process; its children count too."""

    pid: int
    port: int
    requests: Sequence[bytes]


class Turn(Struct, frozen=True):
    """One load on one side. CPU time is that of all its processes, the load's own not included."""

    figures: Figures
    cpu_us_per_call: float
    rss_mb: float


class Pair(Struct, frozen=True):
    """Both sides under the same load, one after the other; `usual`: a proxy on aiohttp."""

    governed: Turn
    bare: Turn
    usual: Turn | None = None

    @property
    def ratio(self) -> float:
        """Governed throughput over bare throughput."""
        return self.governed.figures.per_second / self.bare.figures.per_second


class Measured(Struct, frozen=True, kw_only=True):
    """Everything that the loads told. `fsync_ms` holds every single time."""

    full: list[Pair]
    alone: list[Pair]
    sweep: dict[int, Pair]
    fsync_ms: list[float]

    @property
    def governed_requests(self) -> int:
        """Governed calls that got their answer."""
        pairs = [*self.full, *self.alone, *self.sweep.values()]
        return sum(pair.governed.figures.requests for pair in pairs)

    @property
    def governed_cut_max(self) -> int:
        """How many calls may have been under way when a load ended."""
        cut = FULL_LOAD * len(self.full) + len(self.alone)
        return cut + sum(self.sweep)


class Bench:
    """Runs a plan against two sides."""

    def __init__(
        self, load: LoadGenerator, governed: Side, bare: Side, usual: Side, audit: Path
    ) -> None:
        self._load = load
        self._governed = governed
        self._bare = bare
        self._usual = usual
        self._audit = audit

    def run(self, plan: Plan, say: Callable[[str], None]) -> Measured:
        """Measure. Raises `MeasurementError` when answers were no success."""
        fsync_ms: list[float] = []
        alone: list[Pair] = []
        for number in range(plan.alone_pairs):
            say(f"one caller, turn {number + 1} of {plan.alone_pairs}")
            fsync_ms += measure_fsync(self._audit, plan.fsync_s)
            alone.append(self._pair(1, plan.alone_s))
        fsync_ms += measure_fsync(self._audit, plan.fsync_s)
        full: list[Pair] = []
        for number in range(plan.pairs):
            say(f"{FULL_LOAD} callers, turn {number + 1} of {plan.pairs}")
            pair = self._pair(FULL_LOAD, plan.pair_s)
            usual = self._turn(self._usual, FULL_LOAD, plan.pair_s)
            full.append(Pair(pair.governed, pair.bare, usual))
        sweep: dict[int, Pair] = {}
        for connections in plan.sweep:
            say(f"{connections} callers")
            sweep[connections] = self._pair(connections, plan.sweep_s)
        return Measured(full=full, alone=alone, sweep=sweep, fsync_ms=fsync_ms)

    def _pair(self, connections: int, seconds: float) -> Pair:
        governed = self._turn(self._governed, connections, seconds)
        return Pair(governed, self._turn(self._bare, connections, seconds))

    def _turn(self, side: Side, connections: int, seconds: float) -> Turn:
        before = read_family(side.pid)
        figures = self._load.run(side.port, side.requests, connections=connections, seconds=seconds)
        after = read_family(side.pid)  # a policy worker may have been killed and replaced
        cpu_s = sum(
            used.cpu_s - (before[pid].cpu_s if pid in before else 0.0)
            for pid, used in after.items()
        )
        rss_bytes = sum(used.rss_bytes for used in after.values())
        return Turn(figures, cpu_s * 1e6 / figures.requests, rss_bytes / 1e6)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
