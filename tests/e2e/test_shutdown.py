"""An orderly end: calls under way are answered and written down, and no process is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.callers import build_call, modern_headers
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually, is_running
from tests.e2e.served import SERVE, Served
from tests.e2e.site import ROOT
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-13")

NEVER = [
    sys.executable,
    "-S",
    str(ROOT / "tests/integration/connectors/plain_server.py"),
    "--never",
]
"""A server that answers nothing, reads nothing and ignores SIGTERM, having written its id."""


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


@pytest.fixture
def hang_up() -> Iterator[None]:
    """SIGHUP has its effect on what is started here, whatever the tests were started by."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up")
def test_a_terminal_that_is_closed_ends_it_in_order(gateway: Served, stub: Stub) -> None:
    agent = gateway.agent()
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(agent.call, "stub__slow", {"value": "in flight"})
        assert stub.entered.wait(10)
        gateway.process.send_signal(signal.SIGHUP)
        eventually(lambda: not accepts(gateway), "it takes no new connections")
        stub.released.set()
        assert calling.result().text == '{"value": "in flight"}'
    assert gateway.wait() == 0
    assert gateway.records()[-1]["type"] == "shutdown"


def test_a_second_sigterm_waits_for_no_caller_but_for_the_outcome_of_what_was_sent(
    gateway: Served, stub: Stub
) -> None:
    agent = gateway.agent()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(agent.call, "stub__slow", {"value": "in flight"})
        assert stub.entered.wait(10)
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: not accepts(gateway), "it takes no new connections")
        assert '"stopping"' not in gateway.said()
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: '"stopping"' in gateway.said(), "it waits no more for who called")
        assert gateway.process.poll() is None
        stub.released.set()
        assert gateway.wait() == 0
    assert gateway.records("call.outcome")[-1]["delivery"] == "sent"


@pytest.mark.req("GW-09")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_while_it_starts_it_ends_in_order_and_leaves_no_process(
    build_site: Build, start: Start, desk_listing: list[bytes], number: signal.Signals
) -> None:
    site = build_site(urls={}, desk=True, listings={"desk": desk_listing})
    told = site.folder / "pid"
    site.settings["servers"]["desk"]["command"] = [*NEVER, str(told)]
    site.write()
    served = start(site)
    pid = int(eventually(lambda: told.is_file() and told.read_text(), "its server was started"))
    served.process.send_signal(number)
    assert served.wait() == 0
    assert not is_running(pid)
    assert served.records()[-1]["type"] == "shutdown"


def test_signals_to_the_whole_group_end_what_runs_beside_it_only_with_the_gateway(
    build_site: Build, start: Start, stub: Stub
) -> None:
    served = start(build_site(urls={"stub": stub.url}), step="never").wait_ready()
    beside = served.children()
    for pid in beside:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    assert served.agent().rest("stub__echo").status_code == httpx.codes.OK
    assert [pid for pid in beside if not is_running(pid)] == []
    assert served.stop() == 0
    assert [pid for pid in beside if is_running(pid)] == []


@pytest.mark.req("GW-14")
@pytest.mark.parametrize("how", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_it_needs_nobody_who_takes_what_it_prints(build_site: Build, stub: Stub, how: str) -> None:
    site = build_site(urls={"stub": stub.url})
    command = ["sh", "-c", f'exec "$0" "$@" {how}', *SERVE, str(site.path)]
    served = Served(site, subprocess.Popen(command)).wait_ready()
    assert served.agent().rest("stub__echo").status_code == httpx.codes.OK
    assert served.stop() == 0
    served.verify()


@pytest.mark.req("GW-14")
def test_it_goes_on_when_whoever_collects_its_log_lines_has_gone(
    build_site: Build, desk_listing: list[bytes]
) -> None:
    site = build_site(urls={}, desk=True, listings={"desk": desk_listing})
    taken, lines = os.pipe()
    served = Served(site, subprocess.Popen([*SERVE, str(site.path)], stderr=lines)).wait_ready()
    os.close(lines)
    os.close(taken)
    agent = served.agent()
    assert agent.call("desk__die").code == "upstream_unavailable"  # which is told in a line
    again = eventually(lambda: agent.call("desk__whoami").text, "its server is started again")
    assert again.isdigit()
    assert served.stop() == 0
    served.verify()


@pytest.mark.req("GW-14")
def test_it_goes_on_when_whoever_collects_its_log_lines_does_not_read(
    build_site: Build, stub: Stub
) -> None:
    site = build_site(urls={"stub": stub.url})
    taken, lines = os.pipe()
    served = Served(site, subprocess.Popen([*SERVE, str(site.path)], stderr=lines)).wait_ready()
    fill(lines)
    for _ in range(3):
        send_nonsense(served)  # which is told in a line
    assert served.agent().rest("stub__echo").status_code == httpx.codes.OK
    os.read(taken, 1 << 20)
    send_nonsense(served)
    told = json.loads(os.read(taken, 1 << 20))
    assert ("Invalid HTTP" in told["event"], told["lines_lost"]) == (True, 3)
    assert served.stop() == 0
    assert b"lines_lost" not in os.read(taken, 1 << 20)
    os.close(lines)
    os.close(taken)
    served.verify()


def fill(pipe: int) -> None:
    """Write to a pipe until it takes no more, by a way of our own: others wait as they do."""
    way = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(way, b"." * 4096):
            pass
    os.close(way)


def send_nonsense(served: Served) -> None:
    """Send what is no request, and wait until it has been refused."""
    address = urlsplit(served.site.url)
    with socket.create_connection((address.hostname, address.port), 10) as stranger:
        stranger.sendall(b"no request\r\n\r\n")
        while stranger.recv(4096):
            pass


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
