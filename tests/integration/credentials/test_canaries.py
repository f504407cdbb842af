"""A real gateway, an upstream of every kind that tells all it was told, and the search for it.

Whatever the gateway says, writes or logs, in this process or with the secrets in a broker of their
own, is searched for every secret and every token, as they are and in the usual encodings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_openings import Vault, read_sealed, unseal
from gateway.core.credentials import build_needles, holds_any
from tests.e2e.callers import Agent, build_call
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import ROOT, secret_of
from tests.integration.credentials.house import KINDS, House, World

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-09", "TOK-12")]

COMMAND = Path(sys.executable).with_name("countersign")


class Running:
    """A gateway in its house, and all that it has answered so far."""

    def __init__(
        self, house: House, served: Served, broker: subprocess.Popen[bytes] | None
    ) -> None:
        self.house, self.served, self.broker = house, served, broker
        self.world = house.world
        self.said: list[bytes] = []
        served.http.event_hooks = {"response": [lambda answer: self.said.append(answer.read())]}
        self.agent: Agent = served.agent(on_behalf_of="ann")
        self.nobody: Agent = served.agent()

    def ask(self, server: str, tool: str, *, agent: Agent | None = None) -> tuple[str, str, str]:
        """Call a tool over either surface; return code, and status and delivery as recorded."""
        agent = agent or self.agent
        with self.served.adding() as added:
            answer = agent.rest(f"{server}__{tool}", {})
            message = json.loads(build_call(f"{server}__{tool}", {}))
            message["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = "debug"
            agent.post(json.dumps(message).encode(), f"{server}__{tool}")
        body = answer.json()
        outcome = next(record for record in added if record["type"] == "call.outcome")
        return body.get("code", "ok"), outcome["status"], outcome["delivery"]


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Have these variables, for processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start_broker(house: House, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        process = subprocess.Popen([COMMAND, "broker", "-c", house.path], cwd=ROOT, stderr=file)
    eventually((house.folder / "broker.sock").is_socket, f"the broker listens; see {log}")
    return process


@pytest.fixture(scope="module", params=["in the gateway", "in a broker"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    apart = request.param == "in a broker"
    world = World()
    with ExitStack() as stack:
        stack.callback(world.office.stop)
        house = House(tmp_path_factory.mktemp("house"), world, socket=apart)
        broker = None
        with environment({"PYTHONPATH": str(ROOT), **house.variables}):
            if apart:
                broker = start_broker(house, house.folder / "broker.log")
                stack.callback(broker.wait)
                stack.callback(broker.terminate)
        with environment({"PYTHONPATH": str(ROOT)} | ({} if apart else house.variables)):
            served = Served(house)
        stack.callback(served.stop)
        yield Running(house, served.wait_ready(), broker)


def outcomes(running: Running, tool: str) -> dict[str, tuple[str, str, str]]:
    return {server: running.ask(server, tool) for server in KINDS}


def test_every_kind_of_credential_reaches_its_upstream(running: Running) -> None:
    assert outcomes(running, "echo") == dict.fromkeys(KINDS, ("ok", "ok", "sent"))
    assert running.ask("desk", "length") == ("ok", "ok", "sent")


@pytest.mark.parametrize("tool", ["tell_request", "tell_error"])
def test_an_upstream_that_repeats_its_credential_is_not_heard(running: Running, tool: str) -> None:
    withheld = ("result_withheld", "failed", "sent")
    assert outcomes(running, tool) == dict.fromkeys(KINDS, withheld)
    assert running.ask("desk", "tell") == withheld


def test_what_it_streams_or_says_in_an_error_page_is_not_relayed(running: Running) -> None:
    before = len(running.said)
    assert outcomes(running, "tell_stream") == dict.fromkeys(KINDS, ("ok", "ok", "sent"))
    streamed = b"".join(running.said[before:])
    assert streamed.count(b"working on it") == len(KINDS)  # the line without a secret comes through
    assert b"authorization" not in streamed.lower()
    unavailable = ("upstream_unavailable", "failed", "unknown")
    assert outcomes(running, "tell_http") == dict.fromkeys(KINDS, unavailable)


def test_a_call_for_nobody_gets_no_credential_of_anybody(running: Running) -> None:
    refused = ("upstream_credential_unavailable", "failed", "not_sent")
    assert running.ask("person", "echo", agent=running.nobody) == refused
    assert running.ask("client", "echo", agent=running.nobody) == ("ok", "ok", "sent")


def test_an_upstream_that_refuses_everything_is_told_and_recorded(running: Running) -> None:
    running.world.refusing = True
    try:
        found = outcomes(running, "echo")
    finally:
        running.world.refusing = False
    refused = ("upstream_credential_refused", "failed", "sent")
    assert found == dict.fromkeys(KINDS, refused)


def test_a_token_endpoint_that_fails_fails_the_calls_and_sends_nothing(running: Running) -> None:
    agent = running.served.agent(on_behalf_of="bob")  # for whom there is no token yet
    running.world.token_endpoint_fails, before = True, len(running.world.upstream.calls)
    try:
        found = running.ask("person", "echo", agent=agent)
    finally:
        running.world.token_endpoint_fails = False
    assert found == ("upstream_credential_unavailable", "failed", "not_sent")
    assert len(running.world.upstream.calls) == before


def test_no_upstream_ever_sees_a_token_of_an_agent(running: Running) -> None:
    served = running.served
    for request in running.world.office.seen:
        for secret in (running.agent.token, running.nobody.token, secret_of("launcher")):
            assert secret.encode() not in request.raw
    assert served.process.poll() is None


def test_the_gateways_own_environment_holds_no_secret_where_a_broker_does(
    running: Running,
) -> None:
    if running.broker is None:
        return  # it is the one that holds them
    seen = Path(f"/proc/{running.served.process.pid}/environ").read_bytes()
    assert not holds_any(seen, build_needles(running.world.canaries.of.values()))


def test_without_its_broker_a_gateway_sends_nothing_and_with_it_again_it_does(
    running: Running,
) -> None:
    if running.broker is None:
        return
    running.broker.terminate()
    running.broker.wait()
    agent = running.served.agent(on_behalf_of="cid")
    before = len(running.world.upstream.calls)
    refused = ("upstream_credential_unavailable", "failed", "not_sent")
    assert running.ask("person", "echo", agent=agent) == refused
    assert len(running.world.upstream.calls) == before
    with environment({"PYTHONPATH": str(ROOT), **running.house.variables}):
        replaced = start_broker(running.house, running.house.folder / "broker.log")
    try:
        answered = ("ok", "ok", "sent")
        eventually(lambda: running.ask("person", "echo", agent=agent) == answered, "it is back")
    finally:
        replaced.terminate()
        replaced.wait()


def test_no_secret_is_in_anything_that_the_gateway_emitted(running: Running) -> None:
    """Last: what all the tests above made it say."""
    with environment({"PYTHONPATH": str(ROOT), **running.house.variables}):
        shown = [run(running, "config", "show"), run(running, "config", "show", "-o", "json")]
        if running.broker is None:
            shown += [run(running, "tools", "list", "-o", "json"), run(running, "tools", "diff")]
    running.served.stop()
    running.served.verify()
    needles = build_needles(running.world.canaries.all())
    assert len(running.said) > 50
    for body in (*running.said, *shown):
        assert not holds_any(body, needles), body
    files = [path for path in running.house.folder.rglob("*") if path.is_file()]
    assert {"stderr.log", "state.db"} <= {path.name for path in files}
    for path in files:
        assert not holds_any(path.read_bytes(), needles), path
    found = list(open_values(running.house))
    assert len(found) > 50
    assert not any(holds_any(value, needles) for value in found)


def run(running: Running, *words: str) -> bytes:
    """Run a command on the house; return all that it says."""
    command: list[Any] = [COMMAND, *words, "-c", running.house.path]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    ).stdout


def open_values(house: House) -> Iterator[bytes]:
    """Every value that the log keeps encrypted, in the clear."""
    kek = bytes.fromhex((house.folder / "keys" / "kek").read_text(encoding="utf-8"))
    vault = Vault(house.audit / "openings" / "keys", kek, "", Files())
    for file in list_segments(house.audit / "openings"):
        for sealed in read_sealed(file):
            for _, value in unseal(sealed, vault).values():
                yield value
