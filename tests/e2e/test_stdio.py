"""A server that the gateway runs itself, behind a served gateway (GW-09)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.processes import eventually, is_running
from tests.e2e.served import Served
from tests.e2e.site import secret_of

pytestmark = pytest.mark.req("GW-09")


def test_each_run_has_a_process_of_its_own_below_the_gateway(house: Served) -> None:
    one, two = house.agent(), house.agent()
    pids = [int(agent.call("desk__whoami").text) for agent in (one, two, one)]
    assert pids[0] == pids[2] != pids[1]
    assert {pids[0], pids[1]} <= set(house.children())


def test_the_process_of_a_run_ends_with_the_run(house: Served) -> None:
    agent = house.agent()
    pid = int(agent.call("desk__whoami").text)
    basic = ("launcher", secret_of("launcher"))
    house.http.post(f"/v1/runs/{agent.run['run_id']}/close", auth=basic)
    eventually(lambda: not is_running(pid), "the process has ended")


def test_the_server_sees_nothing_of_the_gateways_environment(house: Served) -> None:
    pid = int(house.agent().call("desk__whoami").text)
    seen = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0].decode() for entry in seen if entry}
    assert names <= {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"}
    assert len(names) < len(os.environ)


def test_the_server_holds_nothing_open_but_its_input_and_its_outputs(house: Served) -> None:
    pid = int(house.agent().call("desk__whoami").text)
    assert {entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}


def test_a_call_whose_server_dies_is_told_as_unknown_and_not_sent_again(house: Served) -> None:
    agent = house.agent()
    pid = int(agent.call("desk__whoami").text)
    with house.adding() as added:
        reply = agent.call("desk__die")
    assert reply.code == "upstream_unavailable"
    intents = [record for record in added if record["type"] == "call.intent"]
    outcomes = [record for record in added if record["type"] == "call.outcome"]
    assert len(intents) == 1
    assert [(o["status"], o["delivery"], o["intent"]) for o in outcomes] == [
        ("failed", "unknown", intents[0]["seq"])
    ]
    # Its last word is heard before the system has taken it down.
    eventually(lambda: not is_running(pid), "the process has ended")
    again = eventually(
        lambda: not (found := agent.call("desk__whoami")).result.get("isError") and found,
        "the server is started again",
    )
    assert int(again.text) != pid
