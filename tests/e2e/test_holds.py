"""Held calls, from the agent that asks to the people who agree (GW-12)."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.callers import Agent
from tests.e2e.conftest import Acme
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-12")


@pytest.fixture
def agent(house: Served) -> Agent:
    return house.agent()


def note(text: str) -> dict[str, str]:
    return {"customer_id": "cus_1003", "body": f"held: canary {text}"}


def types_of(house: Served, approval_id: str) -> list[str]:
    """Return what the log says of a held call, in order."""
    return [r["type"] for r in house.records() if r.get("approval") == approval_id]


def test_an_approved_call_is_executed_once_and_its_caller_gets_the_result(
    house: Served, agent: Agent, acme: Acme
) -> None:
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", note("one"))
    assert agent.status(held)["structuredContent"]["status"] == "pending_approval"
    assert acme.rows("notes") == before
    assert house.person("dana").vote(held).json()["state"] == "APPROVED"
    result = agent.status(held, wait_seconds=20)
    assert result["structuredContent"]["customer_id"] == "cus_1003"
    assert agent.status(held) == result
    assert acme.rows("notes") == before + 1
    assert types_of(house, held) == [
        "approval.request",
        "approval.vote",
        "approval.grant",
        "call.intent",
    ]


def test_the_same_call_again_joins_the_one_that_waits(
    house: Served, agent: Agent, acme: Acme
) -> None:
    before = acme.rows("notes")
    with ThreadPoolExecutor(4) as pool:
        held = set(pool.map(lambda _: agent.hold("acme__notes_add", note("join")), range(4)))
    assert len(held) == 1
    assert house.agent().hold("acme__notes_add", note("join")) not in held
    house.person("dana").vote(held.pop())
    eventually(lambda: acme.rows("notes") == before + 1, "the note is written")


def test_a_denied_call_is_never_sent(house: Served, agent: Agent, acme: Acme) -> None:
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", note("no"))
    assert house.person("dana").vote(held, "deny").json()["state"] == "DENIED"
    told = agent.status(held, wait_seconds=5)
    assert (told["isError"], told["structuredContent"]["status"]) == (True, "denied")
    assert house.person("eli").vote(held).status_code == 409
    assert types_of(house, held)[-2:] == ["approval.vote", "approval.deny"]
    assert acme.rows("notes") == before


def test_what_nobody_approves_in_time_is_denied(house: Served, agent: Agent, stub: Stub) -> None:
    before = stub.calls["brief"]
    held = agent.hold("stub__brief", {"value": "canary"})
    told = eventually(
        lambda: (found := agent.status(held)).get("isError") and found, "the request expires"
    )
    assert told["structuredContent"]["status"] == "expired"
    assert house.person("dana").vote(held).status_code == 409
    eventually(lambda: "approval.expire" in types_of(house, held), "the log says so")
    assert stub.calls["brief"] == before


def test_two_approvers_are_two_people(house: Served, agent: Agent, stub: Stub) -> None:
    before = stub.calls["transfer"]
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 1})
    dana, eli = house.person("dana"), house.person("eli")
    assert dana.vote(held).json()["state"] == "PENDING"
    assert dana.vote(held).json()["state"] == "PENDING"
    assert dana.vote(held, "deny").status_code == 409
    assert stub.calls["transfer"] == before
    assert eli.vote(held).json()["state"] == "APPROVED"
    eventually(lambda: stub.calls["transfer"] == before + 1, "the transfer is made")
    assert agent.status(held, wait_seconds=5)["content"][0]["text"] == (
        '{"to": "canary", "amount": 1}'
    )


def test_one_of_two_approvers_can_deny(house: Served, agent: Agent, stub: Stub) -> None:
    before = stub.calls["transfer"]
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 2})
    house.person("dana").vote(held)
    assert house.person("eli").vote(held, "deny").json()["state"] == "DENIED"
    assert agent.status(held)["structuredContent"]["status"] == "denied"
    assert stub.calls["transfer"] == before


def test_neither_agents_nor_their_side_nor_other_roles_can_vote(
    house: Served, agent: Agent, acme: Acme
) -> None:
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", note("whose"))
    body = {"decision": "approve", "binding": house.person("dana").show(held)["binding"]}
    path = f"/v1/approvals/{held}/votes"
    credentials = {
        agent.token: 401,
        agent.run["run_credential"]: 401,
        secret_of("launcher"): 401,
        secret_of("hanna"): 403,  # owns the agent
        secret_of("opal"): 403,
        secret_of("aud"): 403,
    }
    for credential, status in credentials.items():
        headers = {"Authorization": f"Bearer {credential}"}
        assert house.http.post(path, json=body, headers=headers).status_code == status
    assert house.http.get("/v1/approvals", headers=agent.auth).status_code == 401
    shown = house.person("dana").show(held)
    assert (shown["state"], shown["votes"]) == ("PENDING", [])
    assert acme.rows("notes") == before


def test_a_vote_about_something_else_does_not_count(house: Served, agent: Agent) -> None:
    one = agent.hold("acme__notes_add", note("this"))
    two = agent.hold("acme__notes_add", note("that"))
    dana = house.person("dana")
    body = {"decision": "approve", "binding": dana.show(two)["binding"]}
    answer = house.http.post(f"/v1/approvals/{one}/votes", json=body, headers=dana.auth)
    assert answer.status_code == 409
    assert dana.show(one)["state"] == "PENDING"


def test_a_held_call_ends_with_its_run(house: Served, agent: Agent, acme: Acme) -> None:
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", note("too late"))
    basic = ("launcher", secret_of("launcher"))
    house.http.post(f"/v1/runs/{agent.run['run_id']}/close", auth=basic)
    house.person("dana").vote(held)
    eventually(lambda: "approval.stale" in types_of(house, held), "it is stale")
    assert house.person("dana").show(held)["state"] == "STALE"
    assert acme.rows("notes") == before


def test_nobody_elses_held_call_can_be_asked_after(house: Served, agent: Agent) -> None:
    held = agent.hold("acme__notes_add", note("mine"))
    reply = house.agent("other").call("countersign_approval_status", {"approval_id": held})
    assert reply.code == "approval_not_found"


def test_the_command_line_approves_what_it_shows(house: Served, agent: Agent, acme: Acme) -> None:
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", note("by hand"))
    command = str(Path(sys.executable).with_name("countersign"))
    env = os.environ | {
        "COUNTERSIGN_URL": house.site.url,
        "COUNTERSIGN_TOKEN": secret_of("dana"),
    }
    done = subprocess.run(
        [command, "approvals", "approve", held, "--reason", "as asked"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{held} APPROVED" in done.stdout
    eventually(lambda: acme.rows("notes") == before + 1, "the note is written")
