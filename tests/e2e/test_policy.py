"""Policies that change while the gateway runs, and decisions that can be recomputed (GW-11)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault, read_opening
from gateway.adapters.policy.bundle_store import load_bundle
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.core.policy.decision import Deny, Hold
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-11")

FORBID = """
deny contains {"code": "not_today"} if {
	input.phase == "call"
	input.resource.id == "stub.echo"
}
"""


@pytest.fixture
def gateway(build_site: Build, start: Start, stub: Stub) -> Iterator[Served]:
    """A gateway in `dev`, where policies reload when their files change."""
    served = start(build_site(dev=True), step="never").wait_ready()
    yield served
    assert served.stop() == 0
    served.verify()


def package(served: Served) -> Path:
    return served.site.policies / "house.rego"


def activations(served: Served) -> list[str]:
    """Return the revisions that have decided, in order."""
    return [record["rev"] for record in served.records("policy.activate")]


def change(served: Served, text: str) -> None:
    """Write a policy file, and wait until what is now in the folder decides."""
    before = len(activations(served))
    package(served).write_text(text)
    eventually(lambda: len(activations(served)) > before, "the new bundle is active")


def test_a_changed_policy_decides_and_a_broken_one_does_not(gateway: Served) -> None:
    agent = gateway.agent()
    good = package(gateway).read_text()
    assert agent.call("stub__echo").text == "{}"
    assert len(activations(gateway)) == 1
    change(gateway, good + FORBID)
    assert agent.call("stub__echo").code == "not_today"
    package(gateway).write_text(good + "deny contains {{{\n")
    eventually(lambda: "policy_not_reloaded" in gateway.said(), "the mistake is told")
    line = next(json.loads(li) for li in gateway.said().splitlines() if "not_reloaded" in li)
    assert "house.rego:" in line["problem"]
    assert line["revision"] == activations(gateway)[-1]
    assert agent.call("stub__echo").code == "not_today"
    assert gateway.http.get("/readyz").status_code == 200
    change(gateway, good)
    assert agent.call("stub__echo").text == "{}"
    revisions = activations(gateway)
    assert revisions[0] == revisions[2] != revisions[1]


def test_a_held_call_that_policy_forbids_by_now_is_stale(gateway: Served, stub: Stub) -> None:
    before = stub.calls["transfer"]
    agent = gateway.agent()
    held = agent.hold("stub__transfer", {"to": "canary", "amount": 1})
    change(gateway, package(gateway).read_text().replace('"approve": 2', '"approve": 1'))
    gateway.person("dana").vote(held)
    gateway.person("eli").vote(held)
    told = eventually(
        lambda: (found := agent.status(held)).get("isError") and found, "the request ends"
    )
    assert told["structuredContent"]["status"] == "stale"
    assert stub.calls["transfer"] == before


async def test_every_decision_in_the_log_can_be_recomputed(build_site: Build, start: Start) -> None:
    served = start(build_site(dev=True), step="never").wait_ready()
    decide_a_lot(served)
    assert served.stop() == 0
    decided = [record for record in served.records() if "input" in record.get("policy", {})]
    vault = Vault(
        served.site.audit / "openings" / "keys",
        load_or_create_kek(served.site.folder / "keys" / "kek"),
        "replay",
        Files(),
    )
    engines: dict[str, RegorusPolicy] = {}
    outcomes: Counter[tuple[str, str]] = Counter()
    for record in decided:
        revision = record["policy"]["rev"]
        if revision not in engines:
            bundle = load_bundle(served.site.audit / "bundles", revision)
            engines[revision] = RegorusPolicy(bundle, deadline_ms=5_000)
            await engines[revision].start()
        document = read_opening(served.site.audit, vault, record["seq"], "policy.input")
        assert document is not None
        outcome, reasons = await recompute(engines[revision], document)
        assert record["decision"]["reasons"] == reasons
        if "approval" in record and record["type"] == "call.intent":
            assert (outcome, record["decision"]["outcome"]) == ("hold", "permit")  # people agreed
        else:
            assert record["decision"]["outcome"] == outcome
        outcomes[json.loads(document)["phase"], outcome] += 1
    for engine in engines.values():
        await engine.stop()
    assert len(engines) == 2
    for seen in ("permit", "deny", "hold"):
        assert outcomes["call", seen] >= 2
    assert outcomes["resume", "hold"] == 1
    assert outcomes["issue", "permit"] >= 4


async def recompute(engine: RegorusPolicy, document: bytes) -> tuple[str, list[str]]:
    """Ask a recorded question again; return the outcome and the reasons as records tell them."""
    question: dict[str, Any] = json.loads(document)
    tool_id = question["resource"]["id"] if question["phase"] != "issue" else ""
    decision = await engine.decide(tool_id, question["phase"], document)
    outcome = {Deny: "deny", Hold: "hold"}.get(type(decision), "permit")
    return outcome, [f"{r.policy}:{r.code}" if r.policy else r.code for r in decision.reasons]


def decide_a_lot(served: Served) -> None:
    """Let policy permit, deny and hold, before and after a change."""
    refund = {"order_id": "ord_5008", "reason": "damaged"}
    agent = served.agent()
    for round_ in range(2):
        if round_ == 1:
            change(served, package(served).read_text() + FORBID)
            agent = served.agent()
        agent.list_names()
        agent.call("stub__echo", {"value": "canary ü \u2028"})
        agent.call("stub__forbidden")
        agent.call("acme__refunds_create", {**refund, "amount_cents": 101})
        agent.call("acme__refunds_create", {**refund, "amount_cents": 60_000})
        agent.call("acme__refunds_create", {**refund, "amount_cents": 20_000})
        agent.call("acme__email_send", {"to": "canary@evil.example", "subject": "s", "body": "b"})
        agent.hold("stub__transfer", {"to": "canary", "amount": 5})
    held = agent.hold("acme__notes_add", {"customer_id": "cus_1005", "body": "held: canary"})
    served.person("dana").vote(held)
    assert "isError" not in (done := agent.status(held, wait_seconds=20)) or not done["isError"]
