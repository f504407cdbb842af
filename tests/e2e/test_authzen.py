"""AuthZEN and the decision log at a real gateway: its policies, its log, nobody's secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import build
from tests.collector import Collector, run_collector
from tests.e2e.callers import Agent
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("POL-10")
CANARY = "canary of a question"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as running:
        yield running


@pytest.fixture
def served(build_site: Build, start: Start, collector: Collector) -> Served:
    site = build_site(decision_log={"url": collector.url})
    return start(site, step="never").wait_ready()


def question(agent: Agent, tool: str, **arguments: object) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": "helper"},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": tool},
        "context": {"run": agent.run["run_id"], "args": arguments},
    }


def ask(served: Served, body: object, path: str = "evaluation", **how: Any) -> httpx.Response:  # noqa: ANN401 - httpx
    return served.http.post(f"/access/v1/{path}", json=body, **how)


def test_a_launcher_an_agent_and_people_learn_what_would_become_of_calls(
    served: Served, stub: Stub, collector: Collector
) -> None:
    agent = served.agent()
    sent = dict(stub.calls)
    by_launcher: dict[str, Any] = {"auth": ("launcher", secret_of("launcher"))}
    echo = question(agent, "stub.echo", value=CANARY)
    with served.adding() as added:
        answer = ask(served, echo, **by_launcher, headers={"X-Request-ID": "r-1"})
    assert (answer.status_code, answer.json()["decision"]) == (200, True)
    assert answer.headers.get_list("x-request-id") == ["r-1"]
    (record,) = added
    assert (record["type"], record["client"]) == ("policy.evaluate", "launcher")
    # as the agent, and as people
    assert ask(served, echo, headers=agent.auth).json()["decision"] is True
    for name, status in (("opal", 200), ("aud", 200), ("dana", 403)):
        headers = {"Authorization": f"Bearer {secret_of(name)}"}
        assert ask(served, echo, headers=headers).status_code == status
    # the real policies: held, forbidden, wrong arguments, no tool; one record for the box
    box = {
        "evaluations": [
            question(agent, "stub.transfer", to="x", amount=5),
            question(agent, "stub.forbidden", value=CANARY),
            question(agent, "stub.transfer", to=1),
            question(agent, "stub.nothing"),
            echo,
        ]
    }
    with served.adding() as added:
        told = ask(served, box, "evaluations", **by_launcher).json()["evaluations"]
    assert [one["decision"] for one in told] == [False, False, False, False, True]
    assert [one["context"].get("code") for one in told] == [
        "two_people",
        "house_forbids",
        "arguments_invalid",
        "tool_unknown",
        None,
    ]
    assert told[0]["context"]["approval_required"] is True
    assert [record["type"] for record in added] == ["policy.evaluate"]
    # nothing was sent, and what was said is what happens
    assert dict(stub.calls) == sent
    assert agent.call("stub__echo").text == "{}"
    assert agent.call("stub__forbidden").code == "house_forbids"
    assert served.http.get("/.well-known/authzen-configuration").json() == {
        "policy_decision_point": served.site.url,
        "access_evaluation_endpoint": f"{served.site.url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{served.site.url}/access/v1/evaluations",
    }
    check_decision_log(served, collector)
    assert served.stop() == 0
    audit = served.site.audit
    words = ("replay", "--dir", str(audit), "--kek", str(served.site.folder / "keys" / "kek"))
    replayed = CliRunner().invoke(build("audit"), ["audit", *words, "-o", "json"])
    assert replayed.exit_code == 0, replayed.output
    told = json.loads(replayed.stdout)
    asked = sum(one["type"] == "policy.evaluate" for one in served.records("policy.evaluate"))
    assert (told["differs"], told["unreplayable"]) == (0, 0)
    assert told["agreed"] >= asked >= 5


def test_where_it_is_switched_off_nobody_asks(build_site: Build, start: Start) -> None:
    served = start(build_site(authzen={"enabled": False}), step="never").wait_ready()
    agent = served.agent()
    asked = ask(served, question(agent, "stub.echo"), auth=("launcher", secret_of("launcher")))
    told = served.http.get("/.well-known/authzen-configuration")
    assert (asked.status_code, told.status_code) == (404, 404)
    assert agent.call("stub__echo").text == "{}"


def check_decision_log(served: Served, collector: Collector) -> None:
    """Calls and questions are in it, in more than one phase, and no value of theirs is."""

    def outcomes() -> set[tuple[str, str]]:
        return {(one["input"]["phase"], one["result"]["outcome"]) for one in collector.events}

    expected = {("issue", "permit"), ("call", "permit"), ("call", "hold"), ("call", "deny")}
    eventually(lambda: expected <= outcomes(), "the decisions arrive")
    text = json.dumps(collector.events)
    assert "canary" not in text
    assert "lars" not in text  # who owns the launcher
    assert "hanna" not in text  # who owns the agent
    assert served.http.get("/readyz").json()["decision_log"]["dropped"] == 0


def test_a_run_that_is_closed_and_an_agent_that_is_killed_get_no_permit(served: Served) -> None:
    agent = served.agent()
    body = question(agent, "stub.echo")
    by_launcher: dict[str, Any] = {"auth": ("launcher", secret_of("launcher"))}
    assert ask(served, body, **by_launcher).json()["decision"] is True
    run = agent.run["run_id"]
    served.http.post(f"/v1/runs/{run}/close", json={"outcome": "done"}, **by_launcher)
    closed = ask(served, body, **by_launcher).json()
    assert (closed["decision"], closed["context"]["code"]) == (False, "run_unknown")
    assert ask(served, body, headers=agent.auth).status_code == 401


def test_strangers_get_nothing(served: Served) -> None:
    agent = served.agent()
    body = question(agent, "stub.echo")
    assert ask(served, body).status_code == 401
    assert ask(served, body, auth=("launcher", "guessed")).status_code == 401
    assert ask(served, body, auth=("helper", "guessed")).status_code == 401
