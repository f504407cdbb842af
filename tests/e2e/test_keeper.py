"""The process that keeps the log: what happens when it, or the gateway, is gone."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually, is_running
from tests.e2e.site import Site
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-13", "AUD-10")


@pytest.fixture
def site(build_site: Build, stub: Stub) -> Site:
    return build_site(urls={"stub": stub.url}, limits={"audit_wait_ms": 500})


def test_what_a_killed_gateway_had_asked_for_becomes_durable_and_the_next_one_waits_for_it(
    start: Start, site: Site, stub: Stub
) -> None:
    served = start(site, step="never").wait_ready()
    agent, (keeper,) = served.agent(), served.keepers()
    assert agent.rest("stub__echo").status_code == 200
    sent, kept = stub.calls["echo"], len(served.records())
    os.kill(keeper, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(_ask, agent)
        eventually(lambda: "overloaded" in asked.result() if asked.done() else None, "refused")
        served.process.kill()
        served.wait()
        assert is_running(keeper)
        following = start(site, step="never")
        os.kill(keeper, signal.SIGCONT)
        following.wait_ready()
    assert not is_running(keeper)
    assert stub.calls["echo"] == sent
    kinds = [record["type"] for record in following.records(first=kept)]
    assert kinds[:2] == ["call.intent", "boot"]
    assert "call.orphan" in kinds  # intended, and never sent
    assert following.agent().rest("stub__echo").status_code == 200
    assert following.stop() == 0
    following.verify()


def _ask(agent: object) -> str:
    with suppress(httpx.TransportError):
        return str(agent.rest("stub__echo").json())  # type: ignore[attr-defined]
    return "gone"


def test_a_gateway_whose_keeper_hangs_refuses_says_so_and_ends_when_it_is_told_to(
    start: Start, site: Site, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = start(site, step="never").wait_ready()
    agent, (keeper,) = served.agent(), served.keepers()
    sent = stub.calls["echo"]
    monkeypatch.setattr(stub, "on_call", lambda _name: os.kill(keeper, signal.SIGSTOP))
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(_ask, agent)  # its outcome cannot be written
        eventually(lambda: stub.calls["echo"] > sent, "a call is under way")
        answer = agent.rest("stub__echo")
        assert (answer.status_code, answer.json()["code"]) == (503, "audit_overloaded")
        assert stub.calls["echo"] == sent + 1
        eventually(lambda: served.http.get("/readyz").status_code == 503, "it is not ready")
        served.stop()
        assert "outcome_unrecorded" in under_way.result()
    assert not is_running(keeper)
    following = start(site, step="never").wait_ready()
    assert following.stop() == 0
    following.verify()


def test_without_its_keeper_a_gateway_executes_nothing_and_says_so(
    start: Start, site: Site, stub: Stub
) -> None:
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    assert agent.rest("stub__echo").status_code == 200
    sent = stub.calls["echo"]
    (keeper,) = served.keepers()
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: served.http.get("/readyz").status_code == 503, "it is not ready any more")
    answer = agent.rest("stub__echo")
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    assert stub.calls["echo"] == sent
    eventually(lambda: "killed by signal 9" in served.said(), "it says how")
    assert not Path(f"/proc/{keeper}").exists()  # no zombie, either
    assert served.stop() == 0
    assert served.said().count("audit_log_failed") == 1
    following = start(site, step="never").wait_ready()
    assert following.agent().rest("stub__echo").status_code == 200
    assert following.stop() == 0
    following.verify()


def test_signals_to_the_whole_group_end_the_keeper_only_with_its_gateway(
    start: Start, site: Site
) -> None:
    served = start(site, step="never").wait_ready()
    (keeper,) = served.keepers()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(keeper, number)
    assert served.agent().rest("stub__echo").status_code == 200
    assert served.stop() == 0
    assert not is_running(keeper)
    assert served.records()[-1]["type"] == "shutdown"


def test_a_keeper_holds_nothing_of_the_gateway_but_the_log(start: Start, site: Site) -> None:
    served = start(site, step="never").wait_ready()
    root = Path(f"/proc/{served.keepers()[0]}")
    assert b"COUNTERSIGN" not in (root / "environ").read_bytes()
    opened = [str(name.readlink()) for name in (root / "fd").iterdir()]
    files = [name for name in opened if name.startswith("/") and not name.startswith("/dev/")]
    files.remove(str(site.audit))  # the folder's own lock
    own = {str(site.audit), str(site.audit / "openings")}
    assert {str(Path(name).parent) for name in files if not name.endswith(".log")} == own
    assert sum(name.startswith("socket:") for name in opened) == 1
    assert "Max core file size        0" in (root / "limits").read_text()
