"""A gateway whose decisions an OPA makes: the demo's story, and one record for each refusal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import SERVE
from tests.e2e.site import ROOT, Site
from tests.e2e.stub import Stub
from tests.integration.policy.opa_engines import TOKEN, fetch_from
from tests.opa_server import NO_OPA, OPA, OpaServer, free_port

pytestmark = [pytest.mark.req("POL-05"), pytest.mark.skipif(OPA is None, reason=NO_OPA)]
FORBID = """
deny contains {"code": "not_today"} if {
	input.phase == "call"
	input.resource.id == "stub.echo"
}
"""
NOTE = {"customer_id": "cus_1003", "body": "held: canary decided by an opa"}


def opa_section(opa: OpaServer, **more: object) -> dict[str, object]:
    """Return the section `policy` of a gateway that asks this OPA."""
    place = {"path": "policies", "releases": "off", "deadline_ms": 2_000}
    return {**place, "engine": opa.url, "opa": more}


@pytest.fixture
def opa() -> Iterator[OpaServer]:
    server = OpaServer()
    server.start()
    yield server
    server.stop()


def test_calls_are_permitted_denied_and_held_by_an_opa(
    build_site: Build, start: Start, acme: Acme, opa: OpaServer
) -> None:
    served = start(build_site(policy=opa_section(opa)), step="never").wait_ready()
    agent = served.agent()
    assert "acme__notes_add" in agent.list_names()
    assert agent.call("stub__echo").text == "{}"
    assert agent.call("stub__forbidden").code == "house_forbids"
    before = acme.rows("notes")
    held = agent.hold("acme__notes_add", NOTE)
    served.person("dana").vote(held)
    assert agent.status(held, wait_seconds=20)["structuredContent"]["customer_id"] == "cus_1003"
    assert acme.rows("notes") == before + 1
    assert served.stop() == 0
    assert not any("regorus" in line for line in served.said().splitlines())


def test_an_opa_that_is_gone_denies_with_one_record_each_and_decides_again_when_it_is_back(
    build_site: Build, start: Start, opa: OpaServer, stub: Stub
) -> None:
    served = start(build_site(policy=opa_section(opa)), step="never").wait_ready()
    agent = served.agent()
    assert agent.call("stub__echo").text == "{}"
    before = stub.calls["echo"]
    opa.stop()
    with served.adding() as added:
        assert agent.call("stub__echo").code == "policy_unavailable"
    assert stub.calls["echo"] == before
    assert [record["type"] for record in added] == ["call.refused"]
    eventually(
        lambda: served.http.get("/readyz").status_code == 503, "it says that it is not ready"
    )
    assert served.http.get("/readyz").json()["checks"]["policy"] is False
    opa.start()
    eventually(lambda: served.http.get("/readyz").status_code == 200, "the bundle is back")
    assert agent.call("stub__echo").text == "{}"


def test_a_policy_that_takes_too_long_is_given_up(
    build_site: Build, start: Start, opa: OpaServer
) -> None:
    policy = opa_section(opa) | {"deadline_ms": 300}
    served = start(build_site(policy=policy), step="never").wait_ready()
    agent = served.agent()
    with served.adding() as added:
        items = list(range(60))
        assert agent.call("stub__bomb", {"items": items}).code == "policy_timeout"
    assert [record["type"] for record in added] == ["call.refused"]
    assert agent.call("stub__echo").text == "{}"


def test_an_opa_pulls_its_bundle_from_the_gateway_and_takes_the_next_one(
    build_site: Build, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPA_BUNDLE_TOKEN", TOKEN)
    port = free_port()
    opa = OpaServer(*fetch_from(port))
    policy = opa_section(opa, bundles="pull", bundle_token_from="env:OPA_BUNDLE_TOKEN")
    site = build_site(policy=policy, dev=True, listen=f"127.0.0.1:{port}")
    site.url = f"http://127.0.0.1:{port}"
    opa.start()
    try:
        served = start(site).wait_ready()
        agent = served.agent()
        assert agent.call("stub__echo").text == "{}"
        assert served.http.get("/v1/policy/bundle").status_code == 401
        package = site.policies / "house.rego"
        package.write_text(package.read_text() + FORBID)
        eventually(lambda: len(served.records("policy.activate")) == 2, "the next one is active")
        assert agent.call("stub__echo").code == "not_today"
    finally:
        opa.stop()


def test_a_gateway_without_its_opa_does_not_start_and_says_so(build_site: Build) -> None:
    policy = opa_section(OpaServer(), start_s=0)
    site: Site = build_site(policy=policy)
    done = subprocess.run(
        [*SERVE, str(site.path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no OPA to decide: opa://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr
