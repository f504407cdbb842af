"""Power that fails at any point of a writer's life, with every legal state of the disk after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.conftest import Figure
from tests.fault.knobs import amount, is_full
from tests.fault.power_loss import Budget, PowerLoss

CI = Budget(rounds=2, forms=2, later=10, later_states=1, states=18)
FULL = Budget(rounds=2, forms=16, later=120, later_states=5)


@pytest.mark.slow
@pytest.mark.req("AUD-10", "AUD-11")
@pytest.mark.parametrize("seed", range(amount(1, 6)))
def test_whatever_the_disk_kept_of_what_was_not_synced_the_log_opens_and_keeps_its_promises(
    memory: Path, seed: int, figure: Figure
) -> None:
    result = PowerLoss(memory, seed, FULL if is_full() else CI).run()
    assert result.problems == []
    figure("power lost: distinct states of the disk", len(result.seen))
    figure("  lives of a writer that were cut", result.figures["lives"])
    figure("  acknowledged records lost", result.figures["lost"])
    assert len(result.seen) > (10_000 if is_full() else 2_000)
