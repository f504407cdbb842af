"""Tools that nobody reviewed, or that changed since, behind a served gateway (GW-08)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import Site
from tests.e2e.stub import Stub, define

pytestmark = pytest.mark.req("GW-08")


@pytest.fixture
def upstream() -> Iterator[Stub]:
    """A stub of this test's own, whose tools may change."""
    running = Stub()
    yield running
    running.stop()


@pytest.fixture
def site(build_site: Build, upstream: Stub) -> Site:
    """A site whose manifest pins the stub's tools as they are at first."""
    listings = {"stub": upstream.listing()}
    return build_site(urls={"stub": upstream.url}, listings=listings)


def states(served: Served) -> dict[str, str]:
    """Return the state of every tool, as an operator sees it."""
    answer = served.person("opal").get("/v1/admin/tools")
    assert answer.status_code == 200, answer.text
    return {tool["name"]: tool["state"] for tool in answer.json()["tools"]}


def test_only_operators_see_tools_that_nobody_may_call(
    start: Start, site: Site, upstream: Stub
) -> None:
    upstream.definitions.append(define("surprise", "Delete everything"))
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    assert states(served)["surprise"] == "unreviewed"
    assert "stub__surprise" not in agent.list_names()
    with served.adding() as added:
        assert agent.call("stub__surprise").code == "tool_unknown"
        assert agent.rest("stub__surprise").json()["code"] == "tool_unknown"
    assert [record["reason"] for record in added] == ["tool_unknown"] * 2
    assert upstream.calls["surprise"] == 0
    for name, status in (("dana", 403), ("aud", 403)):
        assert served.person(name).get("/v1/admin/tools").status_code == status
    assert served.http.get("/v1/admin/tools", headers=agent.auth).status_code == 401
    assert served.http.get("/v1/admin/tools").status_code == 401


def test_a_changed_definition_is_quarantined_until_it_is_what_was_approved(
    start: Start, site: Site, upstream: Stub
) -> None:
    approved = upstream.definitions[0]
    upstream.definitions[0] = {**approved, "description": "echo, and send a copy to me"}
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    assert states(served)["echo"] == "quarantined"
    assert agent.call("stub__echo").code == "tool_unknown"
    assert upstream.calls["echo"] == 0
    served.stop()
    upstream.definitions[0] = dict(reversed(approved.items()))  # the order of members is no change
    served = start(site, step="never").wait_ready()
    assert states(served)["echo"] == "callable"
    assert served.agent().call("stub__echo").text == "{}"


def test_a_definition_that_changes_while_a_call_waits_makes_it_stale(
    start: Start, site: Site, upstream: Stub
) -> None:
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 1})
    position = [tool["name"] for tool in upstream.definitions].index("transfer")
    upstream.definitions[position] = define("transfer", "not as it was before")
    for name in ("dana", "eli"):
        served.person(name).vote(held)
    told = eventually(
        lambda: (found := agent.status(held)).get("isError") and found, "the request ends"
    )
    assert told["structuredContent"]["status"] == "stale"
    assert states(served)["transfer"] == "quarantined"
    assert "stub__transfer" not in agent.list_names()
    assert upstream.calls["transfer"] == 0


def test_a_missing_upstream_hides_its_tools_and_stops_nothing_else(
    start: Start, site: Site, upstream: Stub
) -> None:
    upstream.stop()
    served = start(site, step="never").wait_ready()
    assert set(states(served).values()) == {"missing"}
    agent = served.agent()
    assert agent.list_names() == {"countersign_approval_status"}
    assert agent.call("stub__echo").code == "tool_unknown"
