"""An orderly end: calls under way are answered and written down, and no process is left."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.callers import build_call, modern_headers
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually, is_running
from tests.e2e.served import Served
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-13")


@pytest.fixture
def gateway(build_site: Build, start: Start, stub: Stub, desk_listing: list[bytes]) -> Served:
    """`countersign serve` itself, with a stdio server below it."""
    stub.entered.clear()
    stub.released.clear()
    site = build_site(urls={"stub": stub.url}, desk=True, listings={"desk": desk_listing})
    return start(site).wait_ready()


@pytest.mark.req("GW-09")
def test_sigterm_lets_calls_end_writes_shutdown_and_leaves_no_process(
    gateway: Served, stub: Stub
) -> None:
    agent = gateway.agent()
    pid = int(agent.call("desk__whoami").text)
    children = gateway.children()
    assert pid in children
    assert len(children) >= 3  # the desk, a policy worker and its standby
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(agent.call, "stub__slow", {"value": "in flight"})
        assert stub.entered.wait(10)
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: not accepts(gateway), "it takes no new connections")
        assert gateway.process.poll() is None
        stub.released.set()
        assert calling.result().text == '{"value": "in flight"}'
    assert gateway.wait() == 0
    assert [record["type"] for record in gateway.records()][-3:] == [
        "call.intent",
        "call.outcome",
        "shutdown",
    ]
    assert [pid for pid in children if is_running(pid)] == []
    gateway.verify()


def accepts(gateway: Served) -> bool:
    """Whether somebody new may connect."""
    try:
        with httpx.Client(trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP on loopback
            client.get(gateway.site.url + "/livez")
    except httpx.TransportError:
        return False
    return True


@pytest.mark.req("GW-06")
def test_a_client_that_goes_away_leaves_an_intent_with_its_outcome(
    build_site: Build, start: Start, stub: Stub
) -> None:
    stub.entered.clear()
    stub.released.clear()
    served = start(build_site(urls={"stub": stub.url}), step="never").wait_ready()
    agent = served.agent()
    headers = {**agent.auth, **modern_headers("tools/call", "stub__slow")}
    with (
        httpx.Client(base_url=served.site.url, trust_env=False, timeout=0.3) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post("/mcp", content=build_call("stub__slow", {}), headers=headers)
    assert stub.entered.is_set()
    served.process.send_signal(signal.SIGTERM)
    stub.released.set()
    assert served.wait() == 0
    kinds = [record["type"] for record in served.records()]
    assert kinds[-3:] == ["call.intent", "call.outcome", "shutdown"]
    assert served.records("call.outcome")[-1]["delivery"] == "sent"


@pytest.mark.req("GW-13", "GW-10")
def test_strangers_are_counted_and_the_counts_are_written_before_the_end(
    build_site: Build, start: Start, stub: Stub
) -> None:
    served = start(build_site(urls={"stub": stub.url}), step="never").wait_ready()
    for _ in range(60):
        assert served.http.post("/mcp", content=b"{}").status_code == 401
    assert served.stop() == 0
    refused = [r["count"] for r in served.records("call.refused") if r["reason"] == "token_missing"]
    assert sum(refused) == 60
    assert 20 <= len(refused) <= 45
