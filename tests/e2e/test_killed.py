"""A gateway that is killed at any step of a dispatch has sent the held call once, or never again.

The note is written by a tool without idempotency: a call that is sent twice leaves two rows.
"""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest

from tests.e2e.callers import Agent
from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.processes import eventually, is_running
from tests.e2e.served import Served, fill_disk, free_disk
from tests.e2e.site import Site, secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-12", "GW-13")

LIVE = "never"
"""A step that does not come: a gateway that lives."""


@pytest.fixture
def site(build_site: Build, acme: Acme) -> Site:
    return build_site(urls={"acme": acme.url})


def hold_and_approve(served: Served, text: str) -> str:
    """Let a call be held and approved; return the approval's id. The vote may not be answered."""
    held = served.agent().hold("acme__notes_add", note(text))
    with suppress(httpx.TransportError):
        served.person("dana").vote(held)
    return held


def note(text: str) -> dict[str, str]:
    return {"customer_id": "cus_1004", "body": f"held: canary {text}"}


def state_of(served: Served, held: str) -> str:
    return str(served.person("dana").show(held)["state"])


def of_operation(served: Served, held: str) -> list[str]:
    """Return the types of all records of a held call, its sending included."""
    op = served.person("dana").show(held)["op"]
    return [record["type"] for record in served.records() if record["op"] == op]


def test_killed_again_and_again_before_the_intent_it_is_sent_exactly_once(
    start: Start, site: Site, acme: Acme
) -> None:
    before = acme.rows("notes")
    served = start(site, step="claimed").wait_ready()
    workers = served.children()
    held = hold_and_approve(served, "once")
    assert served.wait() == -9
    assert workers
    eventually(lambda: not any(map(is_running, workers)), "nothing is left of it")
    for step in ("judged", "dispatched", "relayed"):
        assert start(site, step=step).wait() == -9
        assert acme.rows("notes") == before
    served = start(site, step=LIVE).wait_ready()
    eventually(lambda: state_of(served, held) == "EXECUTED", "it is executed")
    assert acme.rows("notes") == before + 1
    assert of_operation(served, held) == [
        "approval.request",
        "approval.vote",
        "approval.grant",
        "call.intent",
        "call.outcome",
    ]
    assert served.stop() == 0
    served.verify()


def test_killed_after_the_outcome_it_is_executed_and_not_sent_again(
    start: Start, site: Site, acme: Acme
) -> None:
    before = acme.rows("notes")
    served = start(site, step="executed").wait_ready()
    held = hold_and_approve(served, "done")
    assert served.wait() == -9
    assert acme.rows("notes") == before + 1
    served = start(site, step=LIVE).wait_ready()
    assert state_of(served, held) == "EXECUTED"
    assert served.stop() == 0
    served.verify()
    assert [r["type"] for r in served.records()].count("call.intent") == 1
    assert acme.rows("notes") == before + 1


@pytest.mark.parametrize(("step", "sent"), [("recorded", 0), ("answered", 1)])
def test_killed_between_intent_and_outcome_it_is_unknown_until_a_person_looks(
    start: Start, site: Site, acme: Acme, step: str, sent: int
) -> None:
    before = acme.rows("notes")
    served = start(site, step=step).wait_ready()
    held = hold_and_approve(served, step)
    assert served.wait() == -9
    assert acme.rows("notes") == before + sent
    served = start(site, step=LIVE).wait_ready()
    assert state_of(served, held) == "UNKNOWN"
    types = of_operation(served, held)
    assert types.count("call.intent") == 1
    assert {"call.orphan", "approval.unknown"} <= set(types)
    assert "call.outcome" not in types
    opal = served.person("opal")
    body = {"ran": bool(sent), "reason": "found in the shop's own table"}
    resolved = opal.http.post(f"/v1/approvals/{held}/resolve", json=body, headers=opal.auth)
    assert resolved.json()["state"] == ("EXECUTED" if sent else "FAILED")
    assert served.stop() == 0
    served.verify()
    assert acme.rows("notes") == before + sent


def test_what_policy_forbids_between_approval_and_dispatch_is_stale(
    start: Start, site: Site, acme: Acme
) -> None:
    before = acme.rows("notes")
    served = start(site, step="claimed").wait_ready()
    held = hold_and_approve(served, "stale")
    assert served.wait() == -9
    policy = site.policies / "house_notes.rego"
    forbidding = 'deny contains {"code": "no_more_notes"} if input.resource.id == "acme.notes_add"'
    policy.write_text(f"{policy.read_text()}\n{forbidding}\n")
    served = start(site, step=LIVE).wait_ready()
    eventually(lambda: state_of(served, held) == "STALE", "it is stale")
    assert of_operation(served, held)[-1] == "approval.stale"
    assert served.stop() == 0
    served.verify()
    assert acme.rows("notes") == before


def test_a_plain_call_cut_off_by_a_kill_is_told_as_an_orphan(
    start: Start, site: Site, acme: Acme
) -> None:
    before = acme.rows("notes")
    served = start(site, step="answered").wait_ready()
    agent = served.agent()
    with pytest.raises(httpx.TransportError):
        agent.call("acme__notes_add", {"customer_id": "cus_1004", "body": "plain"})
    assert served.wait() == -9
    served = start(site, step=LIVE).wait_ready()
    assert [(r["effect"], r["op"]) for r in served.records("call.orphan")] == [
        ("unknown", served.records("call.intent")[0]["op"])
    ]
    token = Agent(served.http, agent.token, agent.run)
    assert not token.call("acme__orders_get", {"order_id": "ord_5001"}).result["isError"]
    assert served.stop() == 0
    served.verify()
    assert acme.rows("notes") == before + 1


@pytest.mark.req("GW-10")
def test_what_a_run_has_spent_and_that_one_has_ended_outlive_a_kill(
    build_site: Build, start: Start, stub: Stub, acme: Acme
) -> None:
    site = build_site(urls={"acme": acme.url, "stub": stub.url})
    served = start(site, step=LIVE).wait_ready()
    counted = served.agent(
        grants=[
            {"server": "stub", "tool": "echo", "max_calls": 3},
            {"server": "acme", "tool": "refunds_create"},
        ]
    )
    ended = served.agent()
    refund = {"order_id": "ord_5008", "amount_cents": 9_900, "reason": "damaged"}
    for _ in range(2):
        counted.call("stub__echo")
    for _ in range(5):
        assert not counted.call("acme__refunds_create", refund).result["isError"]
    basic = ("launcher", secret_of("launcher"))
    served.http.post(f"/v1/runs/{ended.run['run_id']}/close", auth=basic)
    served.process.kill()
    assert served.wait() == -9
    served = start(site, step=LIVE).wait_ready()
    again = Agent(served.http, counted.token, counted.run)
    assert again.call("stub__echo").text == "{}"
    assert again.call("stub__echo").code == "calls_exhausted"
    # Five refunds of 99.00 EUR: a sixth would pass 500.00 EUR in all, and waits for a person.
    assert again.hold("acme__refunds_create", refund)
    assert Agent(served.http, ended.token, ended.run).call("stub__echo").code == "token_revoked"
    assert served.stop() == 0
    served.verify()


def test_a_vote_that_the_log_could_not_take_counts_after_a_restart_and_once(
    start: Start, site: Site, acme: Acme
) -> None:
    before = acme.rows("notes")
    served = start(site, step=LIVE).wait_ready()
    agent = served.agent()
    held = agent.hold("acme__notes_add", note("no room for the vote"))
    fill_disk(served)
    assert agent.call("acme__orders_get", {"order_id": "ord_5001"}).code == "audit_unavailable"
    free_disk(served)
    assert served.person("dana").vote(held).status_code == 503
    assert state_of(served, held) == "APPROVED"
    assert acme.rows("notes") == before
    served.process.kill()
    served.wait()
    served = start(site, step=LIVE).wait_ready()
    eventually(lambda: state_of(served, held) == "EXECUTED", "it is executed")
    assert of_operation(served, held)[1:] == [
        "approval.vote",
        "approval.grant",
        "call.intent",
        "call.outcome",
    ]
    assert acme.rows("notes") == before + 1
    assert served.stop() == 0
    served.verify()


def test_an_idempotency_key_whose_call_was_cut_off_is_not_called_again(
    start: Start, site: Site, acme: Acme
) -> None:
    before = acme.rows("notes")
    served = start(site, step="answered").wait_ready()
    agent, key = served.agent(), {"Idempotency-Key": "cut"}
    plain = {"customer_id": "cus_1004", "body": "once"}
    with pytest.raises(httpx.TransportError):
        agent.rest("acme__notes_add", plain, **key)
    assert served.wait() == -9
    served = start(site, step=LIVE).wait_ready()
    again = Agent(served.http, agent.token, agent.run).rest("acme__notes_add", plain, **key)
    assert (again.status_code, again.json()["code"]) == (409, "key_running")
    assert acme.rows("notes") == before + 1
