"""System calls of a writer that fail, in every way that they can, one at a time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fault.conftest import Figure
from tests.fault.injection import FAULTS, NAMING, SIZING, SYNCING, WRITING
from tests.fault.knobs import amount
from tests.fault.processes import run_part
from tests.fault.story import Ack, Place, Writer, inspect, tell_opened
from tests.fault.tap import Op, Tap

PER_THOUSAND = amount(15, 1000)


@pytest.mark.slow
@pytest.mark.req("AUD-10", "AUD-11")
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_system_call_that_fails_loses_nothing_and_a_failed_sync_ends_the_log_until_a_restart(
    memory: Path, figure: Figure
) -> None:
    result = run_part("injection", PER_THOUSAND / 1000, 7, memory)
    assert result.problems == []
    figures = result.figures
    figure("system calls made to fail (strace)", figures["injected"])
    for name, calls in (
        ("write", WRITING),
        ("sync", SYNCING),
        ("open, rename, link, unlink, mkdir", NAMING),
        ("truncate, allocate", SIZING),
    ):
        ways = {how.partition("=")[2] for call in calls for how in FAULTS[call]}
        total = sum(figures[f"{call}: {way}"] for call in calls for way in ways)
        figure(f"  {name}", total)
    figure("  writers poisoned, and refusing all after it", figures["refused after"])
    figure("  acknowledged records lost", figures["lost"])
    assert figures["injected"] == figures["tried"]
    assert figures["refused after"] > 0


class Short(Tap):
    """Writes half of what it is asked to, rounded up, and says so."""

    def operation(self, op: Op, do: Callable[[], Any]) -> Any:  # noqa: ANN401 - as `os`
        if op.name != "write" or op.size >= 0:
            return do()
        with open(op.fd, "wb", buffering=0, closefd=False) as file:
            return file.write(op.data[: (len(op.data) + 1) // 2])


@pytest.mark.req("AUD-10", "AUD-11")
def test_writes_that_are_cut_short_are_gone_on_with(memory: Path) -> None:
    place = Place(memory)
    acks: list[Ack] = []

    async def live() -> None:
        log = place.open(segment_max_bytes=3_000)
        tell_opened(log, acks.append)
        await log.start()
        writer = Writer(log, acks.append, name="w", seed=1)
        for step in (writer.call, writer.event, writer.rotate, writer.call, writer.erase):
            await asyncio.gather(step(), writer.call())
        await log.close()

    with Short(memory):
        asyncio.run(live())
    assert inspect(place, acks, values_are_kept=True) == []
    assert not list(place.audit.glob("*.torn*"))
