"""A running gateway lets a new key sign when the old one's time is over (AUD-07)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.audit_verify import verify
from gateway.adapters.system import SystemClock
from gateway.cli import build
from gateway.config.settings import load_config
from gateway.wiring.gateway import Gateway

pytestmark = [pytest.mark.network, pytest.mark.req("AUD-07")]

HOUR_NS = 3_600_000_000_000


class SteppedClock(SystemClock):
    """The machine's clock, `ahead_ns` later."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


async def test_the_key_changes_by_the_clock_and_the_log_stays_valid(tmp_path: Path) -> None:
    assert CliRunner().invoke(build("init"), ["init", str(tmp_path / "g")]).exit_code == 0
    config = load_config(tmp_path / "g" / "countersign.yaml", os.environ)
    gateway = Gateway(config)
    clock = gateway._clock = SteppedClock()  # noqa: SLF001 - no public way to wait for a day
    await gateway._rotate_key()  # noqa: SLF001 - before the log is open: nothing to do
    await gateway.start()
    try:
        for hours in (23, 24, 25, 48):
            clock.ahead_ns = hours * HOUR_NS + HOUR_NS // 60
            await gateway._rotate_key()  # noqa: SLF001 - what the gateway does once a minute
    finally:
        await gateway.stop()
    rotations = [r for r in read_records(config.audit.dir) if r["type"] == "key.rotate"]
    assert [(r["epoch"], r["why"]) for r in rotations] == [(1, "schedule"), (2, "schedule")]
    assert verify(config.audit.dir, every_signature=True).valid
