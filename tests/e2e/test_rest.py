"""Agents over REST: tools, calls, holds, and keys that make a repeated call harmless (GW-07)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.callers import Agent
from tests.e2e.conftest import Acme
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-07")

NOTE = {"customer_id": "cus_1002", "body": "canary: called back"}


@pytest.fixture
def agent(house: Served) -> Agent:
    return house.agent()


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    """Whether an answer is this problem document, whole."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:countersign:refusal:{code}"
    assert body["instance"].startswith("/v1/calls/")
    assert body["title"]
    return (answer.status_code, body["status"], body["code"]) == (status, status, code)


def test_tools_are_listed_with_schema_and_effect(agent: Agent) -> None:
    tools = {tool["name"]: tool for tool in agent.get("/v1/tools").json()["tools"]}
    assert tools["acme__refunds_create"]["effect"] == "money"
    assert "order_id" in tools["acme__refunds_create"]["inputSchema"]["properties"]
    assert agent.list_names() - set(tools) == {"countersign_approval_status"}


def test_a_call_is_answered_with_its_result_and_can_be_looked_up(agent: Agent) -> None:
    answer = agent.rest("acme__orders_get", {"order_id": "ord_5003"})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "completed")
    assert body["result"]["structuredContent"]["id"] == "ord_5003"
    assert agent.get(f"/v1/calls/{body['id']}").json() == body


def test_a_call_of_somebody_else_is_as_unknown_as_none(house: Served, agent: Agent) -> None:
    body = agent.rest("acme__orders_get", {"order_id": "ord_5003"}).json()
    other = house.agent("other").get(f"/v1/calls/{body['id']}")
    none = house.agent("other").get("/v1/calls/0")
    assert is_problem(other, 404, "call_unknown")
    assert is_problem(none, 404, "call_unknown")


def test_a_denial_is_a_problem_that_names_the_policys_reason(
    house: Served, agent: Agent, stub: Stub
) -> None:
    before = stub.calls["forbidden"]
    with house.adding() as added:
        answer = agent.rest("stub__forbidden", {})
    assert is_problem(answer, 403, "house_forbids")
    assert "forbidden is forbidden" not in answer.text  # the author's words are for the log
    assert [(r["stage"], r["reason"]) for r in added] == [("decide", "house_forbids")]
    assert answer.json()["instance"] == f"/v1/calls/{added[0]['op']}"
    assert stub.calls["forbidden"] == before


def test_a_held_call_is_accepted_and_its_location_tells_the_result(
    house: Served, agent: Agent, acme: Acme
) -> None:
    before = acme.rows("refunds")
    asked = {"order_id": "ord_5005", "amount_cents": 27_000, "reason": "damaged"}
    held = agent.rest("acme__refunds_create", asked)
    assert held.status_code == 202
    assert held.json()["status"] == "pending_approval"
    location = held.headers["location"]
    waiting = agent.get(location)
    assert (waiting.status_code, waiting.headers["location"]) == (202, location)
    assert acme.rows("refunds") == before
    assert house.person("dana").vote(held.json()["approval_id"]).status_code == 200
    done = eventually(
        lambda: (found := agent.get(location)).status_code == 200 and found, "the refund is made"
    )
    assert (done.json()["status"], done.json()["state"]) == ("completed", "executed")
    assert done.json()["result"]["structuredContent"]["amount_cents"] == 27_000
    assert acme.rows("refunds") == before + 1


def test_the_same_key_gives_the_same_reply_and_one_effect(
    house: Served, agent: Agent, acme: Acme
) -> None:
    before = acme.rows("notes")
    first = agent.rest("acme__notes_add", NOTE, **{"Idempotency-Key": "k1"})
    with house.adding() as added:
        second = agent.rest("acme__notes_add", NOTE, **{"Idempotency-Key": "k1"})
    assert (second.status_code, second.content) == (200, first.content)
    assert acme.rows("notes") == before + 1
    assert not [record for record in added if record["type"] == "call.intent"]


def test_a_key_of_another_run_is_another_key(house: Served, agent: Agent, acme: Acme) -> None:
    before = acme.rows("notes")
    for caller in (agent, house.agent()):
        assert caller.rest("acme__notes_add", NOTE, **{"Idempotency-Key": "k2"}).status_code == 200
    assert acme.rows("notes") == before + 2


def test_a_key_used_for_another_request_is_refused(agent: Agent, acme: Acme) -> None:
    agent.rest("acme__notes_add", NOTE, **{"Idempotency-Key": "k3"})
    before = acme.rows("notes")
    again = agent.rest("acme__notes_add", {**NOTE, "body": "else"}, **{"Idempotency-Key": "k3"})
    assert is_problem(again, 422, "key_reused")
    assert acme.rows("notes") == before


def test_a_key_whose_first_request_runs_is_a_conflict(agent: Agent, stub: Stub) -> None:
    stub.entered.clear()
    stub.released.clear()
    before, key = stub.calls["slow"], {"Idempotency-Key": "k4"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(agent.rest, "stub__slow", {}, **key)
        assert stub.entered.wait(10)
        assert is_problem(agent.rest("stub__slow", {}, **key), 409, "key_running")
        stub.released.set()
        assert first.result().status_code == 200
    assert agent.rest("stub__slow", {}, **key).content == first.result().content
    assert stub.calls["slow"] == before + 1


def test_methods_and_paths_that_are_not_there_are_told_as_such(agent: Agent) -> None:
    assert agent.get("/v1/tools/acme__orders_get/call").status_code == 405
    assert agent.get("/v1/tools/acme__orders_get").status_code == 404
