"""Writers that are killed with SIGKILL, at any point, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.conftest import Figure
from tests.fault.knobs import amount
from tests.fault.processes import run_part

PARTS = 2
CI, FULL = 250 // PARTS, 10_000 // PARTS


@pytest.mark.slow
@pytest.mark.req("AUD-10", "AUD-11")
@pytest.mark.parametrize("seed", range(PARTS))
def test_no_acknowledged_record_is_lost_however_often_a_writer_is_killed(
    memory: Path, seed: int, figure: Figure
) -> None:
    cycles = amount(CI, FULL)
    result = run_part("kill_loop", cycles, seed, memory)
    assert result.problems == []
    figures = result.figures
    figure("writers killed (SIGKILL)", figures["kills"])
    figure("  of these between two file operations", figures["kills at an operation"])
    figure("  tails cut at the next opening", figures["cut tails"])
    figure("  records acknowledged", figures["acknowledged"])
    figure("  acknowledged records lost", figures["lost"])
    assert figures["kills"] == cycles
    assert figures["acknowledged"] > 10 * cycles
