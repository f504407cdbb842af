"""What stops a gateway, or stops it from starting: nothing is executed that is not recorded."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served, fill_disk
from tests.e2e.site import Site, free_port
from tests.e2e.stub import Stub


@pytest.fixture
def site(build_site: Build, acme: Acme) -> Site:
    return build_site(urls={"acme": acme.url})


NOTE = {"customer_id": "cus_1001", "body": "canary"}


@pytest.mark.req("GW-13")
def test_nothing_is_executed_once_the_log_cannot_be_written(
    start: Start, site: Site, acme: Acme
) -> None:
    served = start(site, step="never").wait_ready()
    agent = served.agent()
    assert not agent.call("acme__notes_add", NOTE).result["isError"]
    before = acme.counts()
    fill_disk(served)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: agent.call("acme__notes_add", NOTE), range(8)))
    answer = agent.rest("acme__notes_add", NOTE)
    assert {(reply.status, reply.code) for reply in replies} == {(503, "audit_unavailable")}
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    assert "nothing was executed" in answer.json()["title"]
    assert acme.counts() == before
    ready = served.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["audit"]) == (503, False)
    assert served.http.get("/livez").status_code == 200
    run = served.http.post("/v1/runs", auth=("launcher", "x"), json={})
    assert run.status_code == 503
    assert agent.call("acme__refunds_create", {}).status == 503
    tools = served.http.get("/v1/admin/tools")  # that somebody unknown asked is on record, or told
    assert (tools.status_code, tools.json()["code"]) == (503, "audit_unavailable")
    served.process.kill()
    served.wait()


@pytest.mark.req("GW-13")
def test_a_reply_is_withheld_when_its_outcome_cannot_be_recorded(
    build_site: Build, start: Start, stub: Stub
) -> None:
    served = start(build_site(urls={"stub": stub.url}), step="never").wait_ready()
    agent = served.agent()
    stub.entered.clear()
    stub.released.clear()
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(agent.call, "stub__slow", {"value": "canary"})
        assert stub.entered.wait(10)
        fill_disk(served)
        stub.released.set()
        reply = calling.result()
    assert (reply.status, reply.code) == (503, "outcome_unrecorded")
    assert "canary" not in str(reply.body)
    served.process.kill()
    served.wait()
    again = start(served.site, step="never").wait_ready()
    assert [r["op"] for r in again.records("call.orphan")] == [
        r["op"] for r in again.records("call.intent")
    ]
    assert again.stop() == 0
    again.verify()


@pytest.mark.req("GW-11")
def test_a_policy_that_does_not_answer_in_time_denies(house: Served, stub: Stub) -> None:
    before = stub.calls["bomb"]
    agent = house.agent()
    with house.adding() as added:
        reply = agent.call("stub__bomb", {"items": list(range(150))})
    assert (reply.status, reply.code) == (503, "policy_timeout")
    assert [(r["stage"], r["reason"]) for r in added] == [("decide", "policy_timeout")]
    assert stub.calls["bomb"] == before
    assert agent.call("stub__echo", {"value": "still here"}).text == '{"value": "still here"}'


Refuse = Callable[[Site], str]


@pytest.fixture
def refuse_to_start(start: Start) -> Refuse:
    """Start a gateway that cannot start; return what it says, without its log lines."""

    def run(site: Site) -> str:
        log = site.folder / "stderr.log"
        said_before = len(log.read_text()) if log.exists() else 0
        served = start(site, step="never")
        assert served.wait() == 1
        said_now = served.said()[said_before:]
        assert "Traceback" not in said_now
        return "".join(
            line for line in said_now.splitlines(keepends=True) if not line.startswith("{")
        )

    return run


@pytest.mark.req("GW-04")
def test_five_mistakes_are_told_at_once_with_their_places(
    refuse_to_start: Refuse, site: Site
) -> None:
    site.settings["listen"] = "0.0.0.0:8080"
    site.settings["tokens"] = {"ttl_s": 301}
    site.settings["polices"] = {}
    site.settings["servers"]["acme"]["url"] = "http://shop.example/mcp"
    site.settings["clients"][0]["may_launch"] = ["helpr"]
    site.write()
    lines = refuse_to_start(site).splitlines()
    keys = ["listen", "tokens.ttl_s", "polices", "servers.acme.url", "clients[0].may_launch"]
    for key in keys:
        told = [line for line in lines if f": {key}" in line]
        assert len(told) == 1, lines
        assert told[0].startswith(f"{site.path}:")
    assert len(lines) == len(keys)
    assert any("did you mean `policy`" in line for line in lines)
    assert any("did you mean `helper`" in line for line in lines)


@pytest.mark.req("GW-04")
def test_a_port_in_use_is_told_before_anything_is_opened(
    refuse_to_start: Refuse, site: Site
) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        said = refuse_to_start(site)
    assert f"`127.0.0.1:{site.port}` is in use" in said
    assert not site.audit.exists()


def empty(policies: Path) -> None:
    for file in policies.iterdir():
        file.unlink()


def garble(policies: Path) -> None:
    (policies / "house.rego").write_text("package policies.house\n\npermit contains {{{\n")


def rewrite(policies: Path, rule: str) -> None:
    """Let the package `house` hold this rule alone, for every server."""
    (policies / "house.rego").write_text(f"package policies.house\n\n{rule}\n")
    authority = json.loads((policies / "authority.json").read_text())
    authority["policies"]["house"] = ["*"]
    (policies / "authority.json").write_text(json.dumps(authority))


def permit_everything(policies: Path) -> None:
    rewrite(policies, 'permit contains {"code": "why_not"}')


def take_long(policies: Path) -> None:
    """Take far longer than any deadline, and yet not so long that the test does."""
    many = json.dumps(list(range(80)))
    counted = "count([1 | some a in many; some b in many; some c in many; a + b + c < 0]) > 0"
    condition = f'{{\n\tinput.phase == "call"\n\t{counted}\n}}'
    rewrite(policies, f'many := {many}\n\ndeny contains {{"code": "late"}} if {condition}')


@pytest.mark.req("GW-11")
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (empty, "no policies"),
        (garble, "house.rego:4"),
        (permit_everything, "nobody reviewed"),
        (take_long, "longer than its deadline"),
    ],
)
def test_policies_that_cannot_be_used_keep_the_gateway_from_starting(
    refuse_to_start: Refuse, site: Site, spoil: Callable[[Path], None], told: str
) -> None:
    site.settings["policy"]["deadline_ms"] = 50
    site.write()
    spoil(site.policies)
    assert told in refuse_to_start(site)


@pytest.mark.req("GW-13")
def test_an_audit_directory_that_cannot_be_made_keeps_the_gateway_from_starting(
    refuse_to_start: Refuse, site: Site
) -> None:
    site.audit.write_text("a file where the folder should be")
    assert f"audit directory `{site.audit}` cannot be made" in refuse_to_start(site)


@pytest.mark.req("GW-13")
def test_a_log_with_one_byte_changed_is_not_written_to(
    start: Start, refuse_to_start: Refuse, site: Site
) -> None:
    served = start(site, step="never").wait_ready()
    served.agent()
    assert served.stop() == 0
    segment = next(site.audit.glob("*.jsonl"))
    raw = segment.read_bytes()
    segment.write_bytes(raw.replace(b'"launcher"', b'"lawncher"', 1))
    assert "audit" in refuse_to_start(site)
    assert segment.read_bytes().count(b"lawncher") == 1
    segment.write_bytes(raw)


@pytest.mark.req("GW-13")
def test_two_gateways_do_not_write_one_log(
    start: Start, refuse_to_start: Refuse, site: Site
) -> None:
    start(site, step="never").wait_ready()
    site.settings["listen"] = f"127.0.0.1:{free_port()}"
    site.write()
    assert "audit" in refuse_to_start(site)


@pytest.mark.req("GW-14")
def test_readiness_follows_the_policy_workers(start: Start, site: Site) -> None:
    served = start(site, step="never").wait_ready()
    assert served.http.get("/readyz").json()["checks"] == {"audit": True, "policy": True}
    eventually(lambda: served.http.get("/livez").status_code == 200, "it lives")


@pytest.mark.req("GW-12", "GW-07")
def test_nothing_is_held_once_the_state_cannot_be_used(
    start: Start, site: Site, acme: Acme
) -> None:
    served = start(site, step="never").wait_ready()
    agent, before = served.agent(), acme.counts()
    held = agent.hold("acme__notes_add", {**NOTE, "body": "held: canary"})
    with closing(sqlite3.connect(site.folder / "state.db")) as state:
        for table in ("approvals", "idempotency_keys"):
            state.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        state.commit()
        with served.adding() as added:
            answers = [
                agent.rest("acme__notes_add", {**NOTE, "body": "held: another"}),
                agent.rest("acme__notes_add", NOTE, **{"Idempotency-Key": "k"}),
                agent.get(f"/v1/calls/{held}"),
            ]
            asked = agent.call("countersign_approval_status", {"approval_id": held})
        assert [(a.status_code, a.json()["code"]) for a in answers] == [
            (503, "state_unavailable")
        ] * 3
        assert (asked.status, asked.code) == (503, "state_unavailable")
        assert [record["reason"] for record in added] == ["state_unavailable"] * 4
        assert not agent.rest("acme__notes_add", NOTE).json()["result"]["isError"]
        for table in ("approvals", "idempotency_keys"):
            state.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
        state.commit()
    assert acme.rows("notes") == before["notes"] + 1
    assert agent.status(held)["structuredContent"]["status"] == "pending_approval"
    assert served.stop() == 0
