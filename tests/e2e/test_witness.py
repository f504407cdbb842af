"""The gateway as people start it, its log cosigned by a witness that nobody here wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.audit.audit_keys import load_or_create
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import SERVE, Served
from tests.e2e.site import ROOT, Site
from tests.integration.witness.parts import OMNIWITNESS, Omniwitness, WitnessIdentity

pytestmark = [
    pytest.mark.req("AUD-08"),
    pytest.mark.skipif(
        OMNIWITNESS is None, reason="no omniwitness: tests/integration/witness builds it"
    ),
]
ORIGIN = "countersign/audit"
IDENTITY = WitnessIdentity("witness.example/w1", 5)
VERIFIER = [sys.executable, str(ROOT / "verify" / "countersign_verify.py"), "--state", "none"]


class Parts:
    """A site whose log a witness is to see, and the witness."""

    def __init__(self, build_site: Build, folder: Path) -> None:
        self.site: Site = build_site()
        _, vkey = load_or_create(self.site.folder / "keys" / "witness.pem", name=ORIGIN)
        self.program = Omniwitness(folder / "witness", IDENTITY, [(ORIGIN, vkey)])

    @contextlib.asynccontextmanager
    async def witness(self) -> AsyncIterator[None]:
        """Run the witness, and have the configuration say where."""
        async with self.program.running() as url:
            self.site.settings["audit"] = {
                "witness": {
                    "interval_s": 1,
                    "alert_after_s": 1,
                    "witnesses": [{"url": url, "vkey": IDENTITY.vkey, "name": "w1"}],
                },
                "anchors": [{"type": "file", "path": "anchors"}],
            }
            self.site.write()
            yield


@pytest.fixture
def parts(build_site: Build, tmp_path: Path) -> Parts:
    return Parts(build_site, tmp_path)


def status(gateway: Served) -> dict[str, Any]:
    answer = gateway.http.get("/readyz")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()["witness"]
    return found


def told(gateway: Served, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, gateway.said().splitlines())
    return [line for line in lines if line["event"] == event]


async def wait(gateway: Served, **expected: object) -> None:
    def holds() -> bool:
        return expected.items() <= status(gateway).items()

    await asyncio.to_thread(eventually, holds, f"{expected}; see {gateway.log}")


async def test_a_gateways_log_is_witnessed_and_a_lost_witness_is_told(
    parts: Parts, start: Start
) -> None:
    async with parts.witness():
        gateway = start(parts.site, step="never").wait_ready()
        agent = gateway.agent()
        await wait(gateway, records_beyond=0, behind=False, problems={})
        agent.call("stub__echo", {"value": "seen by a witness"})
        await wait(gateway, records_beyond=0, behind=False)
    agent.call("stub__echo", {"value": "seen by nobody else"})
    await wait(gateway, behind=True, problems={"w1": "unreachable"})
    assert [line["witness"] for line in told(gateway, "witness_failed")] == ["w1"]
    assert len(told(gateway, "witness_behind")) == 1
    assert gateway.stop() == 0

    # Whoever has one file and the witness's key finds what it saw.
    check = run(*VERIFIER, parts.site.audit, "--witness", IDENTITY.vkey, "--require", "witness")
    assert check.returncode == 0, check.stdout + check.stderr
    command = [SERVE[0], "audit", "witnesses", parts.site.audit]
    shown = run(*command, "--vkey", IDENTITY.vkey, "-o", "json")
    (seen,) = json.loads(shown.stdout)["witnesses"]
    assert (seen["witness"], seen["good"]) == (IDENTITY.key.name, True)
    assert 0 < seen["records_beyond"] <= 6
    anchored = parts.site.folder / "anchors" / f"{seen['size']}.checkpoint"
    assert anchored.read_bytes() == (parts.site.audit / "witness" / "checkpoint").read_bytes()


async def test_a_log_begun_anew_under_the_same_keys_is_refused_and_told(
    parts: Parts, start: Start
) -> None:
    async with parts.witness():
        gateway = start(parts.site, step="never").wait_ready()
        gateway.agent()
        await wait(gateway, records_beyond=0)
        assert gateway.stop() == 0
        # Who has the disk and every key puts another history in its place.
        shutil.rmtree(parts.site.audit)
        shutil.rmtree(parts.site.folder / "anchors")
        for file in parts.site.folder.glob("state.db*"):
            file.unlink()
        forged = start(parts.site, step="never").wait_ready()
        for _ in range(3):
            forged.agent()
        await asyncio.to_thread(
            eventually, lambda: told(forged, "witness_saw_other_history"), "it is told"
        )
        assert told(forged, "witness_saw_other_history")[0]["witness"] == "w1"
        await wait(forged, behind=True, size=0, age_s=None)
        assert forged.records("checkpoint.witnessed") == []


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
