"""A disk that is really full, under a log and under a gateway; and one that hangs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import SERVE, Served
from tests.e2e.site import ROOT, Site
from tests.e2e.stub import Stub
from tests.fault.conftest import Figure
from tests.fault.full_disk import fill
from tests.fault.knobs import amount
from tests.fault.processes import run_part
from tests.fault.verifiers import ask_script

pytestmark = [pytest.mark.slow, pytest.mark.req("AUD-10", "AUD-11")]
DISK_MIB = 4
OWN_DISK = ["unshare", "-rm"]
"""Runs a command that may mount: what it mounts is seen by itself alone."""


def may_mount() -> bool:
    """Whether this machine lets a test have a disk of its own."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*OWN_DISK, "true"], capture_output=True, check=False)
    return done.returncode == 0


has_own_disk = pytest.mark.skipif(not may_mount(), reason="`unshare -rm` is not allowed here")
has_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@has_own_disk
def test_a_full_disk_refuses_intents_and_takes_every_outcome_of_an_admitted_one(
    tmp_path: Path, figure: Figure
) -> None:
    result = run_part("full_disk", amount(1, 40), 3, tmp_path, before=OWN_DISK)
    assert result.problems == []
    figures = result.figures
    figure("disks filled up under a log", figures["filled"])
    figure("  outcomes that had to fit, and did", figures["outcomes"])
    assert figures["refused"] > 0


@pytest.fixture
def narrow(build_site: Build, stub: Stub) -> Iterator[Served]:
    """A gateway whose log is on a small disk of its own."""
    site = build_site(urls={"stub": stub.url}, audit={"reserve_mib": 1})
    site.audit.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_MIB}m tmpfs "$0" && exec "$@"'
    words = [*OWN_DISK, "sh", "-c", mount, str(site.audit), *SERVE, str(site.path)]
    with (site.folder / "stderr.log").open("ab") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
    site.audit = Path(f"/proc/{process.pid}/root") / site.audit.relative_to("/")
    served = Served(site, process).wait_ready()
    yield served
    served.stop()


@has_own_disk
@pytest.mark.network
def test_a_gateway_on_a_full_disk_answers_503_ends_what_it_admitted_and_goes_on_when_there_is_room(
    narrow: Served, stub: Stub, figure: Figure
) -> None:
    agent, other = narrow.agent(), narrow.agent()
    stub.entered.clear()
    stub.released.clear()
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(agent.rest, "stub__slow", {"value": "x"})
        assert stub.entered.wait(20)
        filler = narrow.site.audit / "filler"
        fill(filler)
        asked, sent = 0, stub.calls["echo"]
        while (answer := other.rest("stub__echo", {"value": "y" * 1_000})).status_code == 200:
            asked += 1
        assert (answer.status_code, answer.json()["code"]) == (503, "audit_overloaded")
        assert other.rest("stub__echo").status_code == 503
        assert other.call("stub__echo").code == "audit_overloaded"
        assert stub.calls["echo"] == sent + asked
        stub.released.set()
        assert under_way.result(20).status_code == 200
    filler.unlink()
    eventually(lambda: other.rest("stub__echo").status_code == 200, "there is room again")
    narrow.verify()
    assert found_by_script(narrow.site) == []
    assert narrow.records("call.outcome")[0]["delivery"] == "sent"
    figure("gateways on a full disk: 503, nothing sent, on again without a restart", 1)


def found_by_script(site: Site) -> list[object]:
    """Verify with the verifier that stands alone."""
    return list(ask_script(site.audit, (site.audit / "log.vkey").read_text().split()[0]))


@contextmanager
def stalled(served: Served, seconds: int) -> Iterator[None]:
    """Let each sync of the newest segment take so long."""
    segment = max(served.site.audit.glob("*.jsonl"))
    words = ["strace", "-f", "-o", "/dev/null", "-p", str(served.keepers()[0]), "-P", str(segment)]
    words += ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_enter={seconds}000000"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)


@has_strace
@pytest.mark.network
def test_a_disk_that_hangs_is_waited_for_half_a_second_and_nothing_is_sent(
    build_site: Build, start: Start, stub: Stub, figure: Figure
) -> None:
    site = build_site(urls={"stub": stub.url}, limits={"audit_wait_ms": 500})
    served = start(site).wait_ready()
    agent = served.agent()
    assert agent.rest("stub__echo").status_code == 200
    sent = stub.calls["echo"]
    with stalled(served, 2):
        began = time.monotonic()
        answer = agent.rest("stub__echo")
        took_ms = round((time.monotonic() - began) * 1000)
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_overloaded")
    assert 400 <= took_ms < 1_900
    assert stub.calls["echo"] == sent
    eventually(lambda: agent.rest("stub__echo").status_code == 200, "the disk goes on")
    assert stub.calls["echo"] == sent + 1
    assert served.stop() == 0
    served.verify()
    assert found_by_script(site) == []
    late = [r for r in served.records("call.outcome") if r["delivery"] == "not_sent"]
    assert [r["reason"] for r in late] == ["audit_overloaded"]
    figure("a call on a disk that hangs is refused after (ms)", took_ms)
