"""An insider with the disk: an old state put back, a log cut back (threat model, GW-18)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.callers import Agent
from tests.e2e.processes import Zygote, eventually
from tests.e2e.served import Served
from tests.e2e.site import Site, secret_of
from tests.e2e.stub import Stub

pytestmark = [pytest.mark.network, pytest.mark.req("GW-18")]


@pytest.fixture
def stub() -> Iterator[Stub]:
    running = Stub()
    yield running
    running.stop()


@pytest.fixture
def site(tmp_path: Path, stub: Stub) -> Site:
    return Site(tmp_path, urls={"stub": stub.url}, listings={"stub": stub.listing()})


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    running = Zygote()
    yield running
    running.stop()


@pytest.fixture
def serve(site: Site, zygote: Zygote) -> Iterator[Callable[[], Served]]:
    """Return a starter of gateways that end with the test."""
    started: list[Served] = []

    def run() -> Served:
        started.append(Served(site, zygote.start(site, "never")))
        return started[-1]

    yield run
    for served in started:
        served.stop()


def keep_state(site: Site) -> Path:
    kept = site.folder / "kept"
    kept.mkdir()
    for file in site.folder.glob("state.db*"):
        shutil.copy(file, kept)
    return kept


def put_back(site: Site, kept: Path) -> None:
    for file in site.folder.glob("state.db*"):
        file.unlink()
    for file in kept.iterdir():
        shutil.copy(file, site.folder)


@pytest.mark.req("GW-12", "GW-10")
def test_an_old_state_revives_neither_a_spent_approval_nor_an_ended_run(
    site: Site, stub: Stub, serve: Callable[[], Served]
) -> None:
    served = serve().wait_ready()
    agent = served.agent()
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 5})
    assert served.person("dana").vote(held).json()["state"] == "PENDING"
    assert served.stop() == 0
    kept = keep_state(site)

    served = serve().wait_ready()
    assert served.person("eli").vote(held).json()["state"] == "APPROVED"
    eventually(lambda: served.records("call.outcome"), "it is executed")
    over = served.http.post(
        f"/v1/runs/{agent.run['run_id']}/close", auth=("launcher", secret_of("launcher"))
    )
    assert (over.status_code, stub.calls["transfer"]) == (200, 1)
    assert served.stop() == 0

    put_back(site, kept)
    served = serve().wait_ready()
    assert served.person("eli").vote(held).json()["state"] == "APPROVED"
    eventually(
        lambda: served.person("dana").show(held)["state"] == "EXECUTED", "the log is followed"
    )
    assert stub.calls["transfer"] == 1
    assert len(served.records("call.intent")) == 1
    assert Agent(served.http, agent.token, agent.run).rest("stub__echo").status_code == 401
    answer = served.http.post(
        "/oauth/token",
        auth=(agent.run["run_id"], agent.run["run_credential"]),
        data={"grant_type": "client_credentials"},
    )
    assert answer.status_code == 400
    assert served.stop() == 0


@pytest.mark.req("GW-13")
def test_a_log_cut_back_to_an_earlier_checkpoint_is_not_written_to(
    site: Site, stub: Stub, serve: Callable[[], Served]
) -> None:
    served = serve().wait_ready()
    assert served.stop() == 0
    (segment,) = site.audit.glob("*.jsonl")
    size, checkpoint = segment.stat().st_size, (site.audit / "checkpoint").read_bytes()

    served = serve().wait_ready()
    assert served.agent().rest("stub__echo").status_code == 200
    assert served.stop() == 0

    os.truncate(segment, size)
    (site.audit / "checkpoint").write_bytes(checkpoint)
    served = serve()
    assert served.wait() != 0
    assert "truncated" in served.said()  # the tiles know of the records that are gone
    shutil.rmtree(site.audit / "tile")
    served = serve()
    assert served.wait() != 0
    assert "the log was cut back or replaced" in served.said()
    assert stub.calls["echo"] == 1
