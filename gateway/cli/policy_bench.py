"""`countersign policy bench`: how long policies take to decide on one input, and which of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from statistics import median
from typing import Annotated, Any, Final

import orjson
import typer
from msgspec import Struct, structs

from gateway.adapters.authoring.policy_explain import find_heard
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.policy.policy_scope import Scope
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.cli.policy_folder import Directory, Format, Input, Output, failed, load, read_input
from gateway.core.errors import CountersignError
from gateway.core.policy.decision import Phase

_DEADLINE_MS: Final = 2000
_WARM_UP: Final = 50
_ROUNDS: Final = 4
_PERCENTILE: Final = 0.99

Count = Annotated[int, typer.Option(min=10, max=1_000_000, help="Decisions to measure.")]


class Times(Struct, frozen=True):
    """Round trips of one decision after the other to a worker, in µs."""

    p50_us: float
    p99_us: float


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    directory: Directory,
    *,
    document: Input,
    count: Count = 1000,
    output: Format = Output.TABLE,
) -> None:
    """Measure decisions on one input, with all policies and without each that it concerns."""
    bundle = load(directory)
    phase, raw, value = read_input(document)
    heard = find_heard(bundle, value)
    bundles = {"": bundle, **{name: _without(bundle, name) for name in heard}}
    try:
        found = asyncio.run(_measure(bundles, phase, raw, count))
    except CountersignError as error:
        raise failed(error) from None
    whole = found.pop("")
    shares = {name: whole.p50_us - times.p50_us for name, times in found.items()}
    if output is Output.JSON:
        report: dict[str, Any] = {"count": count, **structs.asdict(whole), "packages": shares}
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        return
    for line in _table(whole, shares, count):
        typer.echo(line)


def _without(bundle: Bundle, name: str) -> Bundle:
    """Return the bundle with a package that concerns nothing: loaded where it is read, unheard."""
    muted = structs.replace(bundle.packages[name], scope=Scope(phases=()))
    return structs.replace(bundle, packages={**bundle.packages, name: muted})


async def _measure(
    bundles: dict[str, Bundle], phase: Phase, document: bytes, count: int
) -> dict[str, Times]:
    """Measure in turns, so that a busy moment of the machine is nobody's alone."""
    engines: dict[str, RegorusPolicy] = {}
    taken: dict[str, list[float]] = {name: [] for name in bundles}
    try:
        for name, bundle in bundles.items():
            engines[name] = RegorusPolicy(bundle, workers=1, deadline_ms=_DEADLINE_MS)
            await engines[name].start()
            await _ask(engines[name], phase, document, _WARM_UP)
        for _ in range(_ROUNDS):
            for name, engine in engines.items():
                taken[name] += await _ask(engine, phase, document, -(-count // _ROUNDS))
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines.values()))
    return {name: _times(sorted(each)) for name, each in taken.items()}


async def _ask(engine: RegorusPolicy, phase: Phase, document: bytes, count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter_ns()
        await engine.decide("", phase, document)
        found.append((time.perf_counter_ns() - began) / 1000)
    return found


def _times(ordered: list[float]) -> Times:
    last = min(int(len(ordered) * _PERCENTILE), len(ordered) - 1)
    return Times(round(median(ordered), 1), round(ordered[last], 1))


def _table(whole: Times, shares: dict[str, float], count: int) -> Iterator[str]:
    yield f"{count} decisions, one after the other, each a round trip to a worker"
    yield f"p50 {whole.p50_us:8.1f} µs"
    yield f"p99 {whole.p99_us:8.1f} µs"
    width = max(map(len, shares), default=0)
    yield ""
    yield "what each package adds to the p50 (all of them, less all without it):"
    for name, share in sorted(shares.items(), key=lambda each: -each[1]):
        yield f"  {name:{width}}  {share:8.1f} µs"
