"""Writers that are killed with SIGKILL, at any point, again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fault.conftest import Figure
from tests.fault.knobs import amount

ROOT = Path(__file__).parents[2]
CI, FULL = 250, 10_000


def run_loop(cycles: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run the loop in a process of its own, which no thread keeps from forking."""
    environ = {name: value for name, value in os.environ.items() if "COV" not in name}
    words = [sys.executable, "-m", "tests.fault.kill_loop", str(cycles), str(seed), str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
@pytest.mark.req("AUD-10", "AUD-11")
def test_no_acknowledged_record_is_lost_however_often_a_writer_is_killed(
    memory: Path, figure: Figure
) -> None:
    cycles = amount(CI, FULL)
    result = run_loop(cycles, 20_261_121, memory)
    assert result["problems"] == []
    figures = result["figures"]
    figure("writers killed (SIGKILL)", figures["kills"])
    figure("  of these between two file operations", figures["kills at an operation"])
    figure("  tails cut at the next opening", figures["cut tails"])
    figure("  records acknowledged", figures["acknowledged"])
    figure("  acknowledged records lost", figures["lost"])
    assert figures["kills"] == cycles
    assert figures["acknowledged"] > 10 * cycles
