"""What the logs tell, and what they never do (GW-14)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import pytest

from tests.e2e.callers import Agent
from tests.e2e.conftest import check_silence
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import secret_of

pytestmark = pytest.mark.req("GW-14")

CANARY = "canary-4111-1111-1111-1111"


def lines(texts: Iterable[str]) -> list[dict[str, object]]:
    return [json.loads(text) for text in texts]


def test_no_secret_and_no_argument_stands_in_a_log_line_or_in_the_chain(house: Served) -> None:
    agent = house.agent()
    note = {"customer_id": "cus_1006", "body": CANARY}
    assert not agent.call("acme__notes_add", note).result["isError"]
    assert CANARY in agent.call("stub__echo", {"value": CANARY}).text
    # Everything that can go wrong with a value in hand.
    agent.call("acme__notes_add", {**note, "customer_id": CANARY})
    agent.call("acme__notes_add", {**note, CANARY: CANARY})
    agent.call(f"acme__{CANARY}", note)
    agent.call("stub__forbidden", {"value": CANARY})
    agent.call("stub__html", {"value": CANARY})
    agent.call("desk__die", {})
    agent.hold("acme__notes_add", {**note, "body": f"held: {CANARY}"})
    agent.rest_raw("acme__notes_add", f'{{"arguments":{{"body":"{CANARY}}}'.encode())
    agent.rest("stub__echo", {"value": CANARY}, **{"Idempotency-Key": CANARY})
    Agent(house.http, CANARY, {}).call("stub__echo", {"value": CANARY})
    house.http.post("/oauth/token", auth=(CANARY, CANARY), data={"grant_type": CANARY})
    house.http.post("/v1/runs", auth=("launcher", secret_of("launcher")), content=CANARY)
    house.http.get(f"/v1/approvals/{CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    house.http.get(f"/v1/{CANARY}?token={CANARY}", headers={"X-Secret": CANARY})
    house.http.post("/mcp", content=CANARY, headers={"Origin": f"http://{CANARY}.example"})
    check_silence(house.site)
    everything = house.log.read_text() + "".join(
        file.read_text() for file in house.site.audit.glob("*.jsonl")
    )
    for secret in (agent.token, agent.run["run_credential"], agent.token.rpartition(".")[2]):
        assert secret not in everything


def test_openings_and_bundles_hold_no_argument_in_the_clear(house: Served) -> None:
    house.agent().call("stub__echo", {"value": CANARY})
    for file in house.site.audit.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


def test_the_id_of_a_call_is_in_its_reply_and_in_every_record_of_it(house: Served) -> None:
    agent = house.agent()
    with house.adding() as added:
        op = agent.rest("stub__echo", {}).json()["id"]
        refused = agent.call("stub__forbidden").refusal["op"]
        problem = agent.rest("stub__forbidden").json()["instance"].rpartition("/")[2]
    assert [record["op"] for record in added] == [op, op, refused, problem]


def test_each_log_line_is_one_object_with_time_level_and_event(house: Served) -> None:
    told = lines(house.said().splitlines())
    assert all({"event", "level", "timestamp"} <= line.keys() for line in told)
    assert {"audit_open", "policy_active", "upstream_listed", "listening"} <= {
        line["event"] for line in told
    }


def test_a_request_that_is_none_is_one_log_line_as_any_other(house: Served) -> None:
    address = urlsplit(house.site.url)
    with socket.create_connection((address.hostname, address.port), 10) as stranger:
        stranger.sendall(b"\x16\x03\x01 a greeting of TLS\r\n\r\n")
        stranger.recv(4096)
    eventually(lambda: "Invalid HTTP request" in house.said(), "it is told")
    (line,) = (
        line for line in lines(house.said().splitlines()) if "Invalid HTTP" in str(line["event"])
    )
    assert {"level": "warning", "logger": "uvicorn.error"}.items() <= line.items()


def test_health_is_told_to_anybody_and_tells_nothing_else(house: Served) -> None:
    assert house.http.get("/livez").json() == {"status": "ok"}
    ready = house.http.get("/readyz").json()
    checks = {"audit": True, "policy": True}
    assert ready == {"status": "ready", "checks": checks, "kills": {"stale": False}}
