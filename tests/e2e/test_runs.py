"""Runs as operators see them, and what a run's budget and labels do (TOK-11)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.callers import Agent
from tests.e2e.conftest import Build, Start
from tests.e2e.served import Served
from tests.e2e.site import ROOT, secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("TOK-11")


@pytest.fixture(scope="module")
def gateway(build_site: Build, start_here: Start) -> Served:
    return start_here(build_site(), step="never").wait_ready()


def command(gateway: Served, person: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `countersign` as somebody."""
    env = {
        **os.environ,
        "COUNTERSIGN_URL": gateway.site.url,
        "COUNTERSIGN_TOKEN": secret_of(person),
    }
    binary = str(Path(sys.executable).with_name("countersign"))
    return subprocess.run(
        [binary, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def read(gateway: Served, person: str, *words: str) -> dict[str, Any]:
    done = command(gateway, person, *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_budget_of_calls_is_that_of_all_tokens_of_the_run(gateway: Served, stub: Stub) -> None:
    run = gateway.create_run(budget={"calls": 2})
    tokens = [gateway.token(run["run_id"], run["run_credential"]) for _ in range(3)]
    sent = stub.calls["echo"]
    replies = [
        Agent(gateway.http, token, run).call("stub__echo", {"value": "x"}) for token in tokens
    ]
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert replies[2].code == "budget_exhausted"
    assert stub.calls["echo"] == sent + 2


def test_operators_see_what_a_run_spent_and_can_end_it(gateway: Served) -> None:
    agent = gateway.agent(labels=["untrusted"], budget={"calls": 5}, on_behalf_of=None)
    run_id = agent.run["run_id"]
    assert agent.call("stub__echo", {"value": "x"}).status == 200
    shown = read(gateway, "opal", "runs", "show", run_id)
    assert (shown["state"], shown["agent"], shown["launcher"]) == ("active", "helper", "launcher")
    assert shown["spent"]["calls"] == 1
    assert shown["spent"]["counts"] == {"stub.echo": 1}
    assert shown["spent"]["labels"] == ["untrusted"]
    assert shown["spent"]["budget"] == {"calls": {"max": 5, "left": 4}}
    assert run_id in [one["run_id"] for one in read(gateway, "aud", "runs", "list")["runs"]]
    told = command(gateway, "opal", "runs", "show", run_id)
    assert "calls of stub.echo" in told.stdout

    assert command(gateway, "aud", "runs", "close", run_id, "--reason", "no").returncode == 3
    assert command(gateway, "opal", "runs", "close", run_id, "--reason", " ").returncode == 2
    with gateway.adding() as added:
        done = command(gateway, "opal", "runs", "close", run_id, "--reason", "runaway canary")
    assert done.stdout == f"{run_id} ended cancelled\n"
    [record] = added
    assert (record["type"], record["run"], record["outcome"]) == ("run.end", run_id, "cancelled")
    assert "by" in record
    assert "opal" not in json.dumps(record)
    assert agent.call("stub__echo", {"value": "x"}).code == "token_revoked"
    live = read(gateway, "opal", "runs", "list", "--agent", "helper")["runs"]
    assert run_id not in [one["run_id"] for one in live]
    every = read(gateway, "opal", "runs", "list", "--all")["runs"]
    assert run_id in [one["run_id"] for one in every]
    table = command(gateway, "opal", "runs", "list", "--all", "--client", "launcher").stdout
    assert "cancelled" in table


def test_a_launcher_says_how_its_run_ended(gateway: Served) -> None:
    run = gateway.create_run()
    path, auth = f"/v1/runs/{run['run_id']}/close", ("launcher", secret_of("launcher"))
    refused = gateway.http.post(path, auth=auth, json={"outcome": "splendid"})
    assert refused.status_code == 400
    first = gateway.http.post(path, auth=auth, json={"outcome": "failed"})
    again = gateway.http.post(path, auth=auth, json={"outcome": "done"})
    assert [reply.json()["outcome"] for reply in (first, again)] == ["failed", "failed"]
    assert [reply.json()["state"] for reply in (first, again)] == ["ended", "ended"]


def test_people_without_a_role_see_no_runs_and_unknown_runs_are_told(gateway: Served) -> None:
    assert command(gateway, "dana", "runs", "list").returncode == 3
    assert command(gateway, "opal", "runs", "show", "0" * 32).returncode == 5
    gone = command(gateway, "opal", "runs", "close", "0" * 32, "--reason", "x")
    assert gone.returncode == 5
    nobody = gateway.http.get("/v1/runs", headers={"Authorization": "Bearer nobody"})
    assert nobody.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"budget": {"calls": -1}},
        {"budget": {"sums": {"stub.transfer": 5}}},
        {"budget": {"sums": {"stub.transfer#/amount": -5}}},
        {"budget": {"money": 5}},
        {"labels": ["Not A Name"]},
        {"labels": [f"l{n}" for n in range(40)]},
        {"max_depth": 9},
        {"may_act": "no agent"},
    ],
    ids=str,
)
def test_a_run_whose_bounds_are_unclear_is_refused(gateway: Served, body: dict[str, Any]) -> None:
    asked = {"agent": "helper", "grants": [{"server": "stub"}], **body}
    with gateway.adding() as added:
        reply = gateway.http.post("/v1/runs", auth=("launcher", secret_of("launcher")), json=asked)
    assert (reply.status_code, reply.json()["code"]) == (400, "request_invalid")
    assert [record["type"] for record in added] == ["run.refused"]


def test_labels_and_budget_survive_a_restart(build_site: Build, start_here: Start) -> None:
    site = build_site()
    first = start_here(site, step="never").wait_ready()
    agent = first.agent(labels=["untrusted"], budget={"calls": 2})
    assert agent.call("stub__echo", {"value": "x"}).status == 200
    assert first.stop() == 0
    second = start_here(site, step="never").wait_ready()
    shown = read(second, "opal", "runs", "show", agent.run["run_id"])
    assert (shown["spent"]["labels"], shown["spent"]["calls"]) == (["untrusted"], 1)
    agent.http = second.http
    assert agent.call("stub__echo", {"value": "x"}).status == 200
    assert agent.call("stub__echo", {"value": "x"}).code == "budget_exhausted"
