"""What a run spent is forgotten only together with the run itself."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.system import SystemClock
from gateway.cli import build
from gateway.config.settings import load_config
from gateway.core.entry import Entry
from gateway.core.tokens.token import Run
from gateway.wiring.gateway import Gateway

pytestmark = [pytest.mark.network, pytest.mark.req("GW-10")]

HOUR_NS = 3_600_000_000_000


class SteppedClock(SystemClock):
    """The machine's clock, set wrong by `ahead_ns`."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


def build_run(run_id: str, deadline: int) -> Run:
    return Run(
        id=run_id,
        agent="agent",
        launcher="launcher",
        grants=(),
        allowed_values={},
        created_at=0,
        deadline=deadline,
        credential_hash="",
    )


def intent(op: str, family: str, at_s: int) -> Entry:
    charge = {"family": family, "tool": "shop.pay", "sums": {}, "at": at_s, "payer": "a b"}
    return Entry(type="call.intent", op=op, fields={"charge": charge})


SPENT = ("DELETE FROM ledger_snapshot", "DELETE FROM ledger_families")


@pytest.mark.parametrize(
    ("lost", "kept"),
    [
        ((*SPENT, "DELETE FROM runs"), ["day:a b", "of today"]),
        (SPENT, ["day:a b", "known", "of today"]),
    ],
)
async def test_of_what_the_log_tells_anew_nothing_is_kept_of_runs_that_are_gone_for_long(
    tmp_path: Path, lost: tuple[str, ...], kept: list[str]
) -> None:
    assert CliRunner().invoke(build("init"), ["init", str(tmp_path / "g")]).exit_code == 0
    config = load_config(tmp_path / "g" / "countersign.yaml", os.environ)
    gateway = Gateway(config)
    clock = gateway._clock = SteppedClock()  # noqa: SLF001 - no public way to set a clock wrong
    now_s = clock.now_ns() // 1_000_000_000
    clock.ahead_ns = -72 * HOUR_NS
    await gateway.start()
    audit, runs = gateway._audit, gateway._runs  # noqa: SLF001 - the log and the state it writes
    assert audit is not None
    await runs.create_run(build_run("known", now_s + 36_000))
    for number, family in enumerate(("old", "known")):
        await audit.record(intent(f"{number}" * 32, family, now_s - 72 * 3_600))
    clock.ahead_ns = 0
    await audit.record(intent("2" * 32, "of today", now_s))
    await gateway.stop()
    with closing(sqlite3.connect(tmp_path / "g" / "state.db")) as state, state:
        for each in lost:
            state.execute(each)
    gateway = Gateway(config)
    await gateway.start()
    try:
        assert sorted(gateway._ledger.snapshot()) == kept  # noqa: SLF001 - as it is stored
    finally:
        await gateway.stop()


async def test_a_clock_that_jumps_ahead_and_back_gives_no_run_its_budget_again(
    tmp_path: Path,
) -> None:
    assert CliRunner().invoke(build("init"), ["init", str(tmp_path / "g")]).exit_code == 0
    gateway = Gateway(load_config(tmp_path / "g" / "countersign.yaml", os.environ))
    clock = gateway._clock = SteppedClock()  # noqa: SLF001 - no public way to set a clock wrong
    await gateway.start()
    try:
        now_s = clock.now_ns() // 1_000_000_000
        await gateway._runs.create_run(build_run("spent", now_s + 600))  # noqa: SLF001
        await gateway._runs.create_run(build_run("longer", now_s + 36_000))  # noqa: SLF001
        for run_id in ("spent", "longer"):
            gateway._ledger.family(run_id).calls = 3  # noqa: SLF001
        ended = gateway._forgetting.ended  # noqa: SLF001 - what every token is held against
        clock.ahead_ns = HOUR_NS
        await gateway.tidy()
        clock.ahead_ns = 0
        assert ended.bars("spent", now_s + 300)  # at once
        await gateway.tidy()
        assert list(gateway._ledger.snapshot()) == ["longer"]  # noqa: SLF001
        assert ended.bars("spent", now_s + 300)
        assert not ended.bars("longer", now_s + 300)  # it is a good one as before
        spent = await gateway._runs.get_run("spent")  # noqa: SLF001
        assert spent is not None
        assert spent.ended  # and no new ones are issued, by this process or the next
    finally:
        await gateway.stop()
