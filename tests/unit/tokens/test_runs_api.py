from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.core.calls.ledger import Ledger
from gateway.core.errors import CountersignError
from gateway.core.policy.decision import Deny, Reason
from gateway.core.tokens.token import Run
from gateway.http.humans import Human
from gateway.http.issue_desk import IssueDesk
from gateway.http.runs import build_runs_router
from gateway.http.runs_admin import RunsDesk

if TYPE_CHECKING:
    from tests.unit.tokens.conftest import World

pytestmark = pytest.mark.req("GW-10")

NOW_S = 1_800_000_000
REVISION = "sha256:" + "0" * 64
REFUND = {
    "server": "shop",
    "tool": "refund",
    "constraints": {"/amount": {"max": 500}},
    "max_calls": 3,
}
FIND = {"server": "shop", "effects": ["read"]}
BasicOf = Callable[[str, str], dict[str, str]]


async def test_a_launcher_creates_a_run_and_gets_its_credential_once(world: World) -> None:
    reply = await world.launch(grants=[REFUND], deadline_s=60)
    assert reply.status_code == 201
    body = reply.json()
    assert reply.headers["location"] == f"/v1/runs/{body['run_id']}"
    assert reply.headers["cache-control"] == "no-store"
    assert body["token_endpoint"] == "https://gateway.test/oauth/token"
    assert body["mcp_url"] == "https://gateway.test/mcp"
    assert body["deadline"] == NOW_S + 60
    run = await world.runs.get_run(body["run_id"])
    assert run is not None
    assert (run.agent, run.launcher, run.deadline) == ("bot", "workflow", NOW_S + 60)
    assert body["run_credential"] not in run.credential_hash


async def test_a_run_is_recorded_without_secrets_or_the_name_of_a_human(world: World) -> None:
    body = (await world.launch(on_behalf_of="olga")).json()
    (record,) = world.records
    assert record["type"] == "run.create"
    assert (record["agent"], record["client"], record["run"]) == ("bot", "workflow", body["run_id"])
    line = orjson.dumps(record)
    assert b"olga" not in line
    assert body["run_credential"].encode() not in line
    kept = world.audit.read_opening(record["seq"], "policy.input")
    assert kept is not None
    assert orjson.loads(kept)["subject"]["on_behalf_of"] == "olga"


async def test_labels_of_a_run_outlive_a_crash_whenever_the_ledger_was_last_saved(
    world: World,
) -> None:
    kept: list[tuple[int, dict[str, Any]]] = []

    class Saving(MemoryRuns):
        async def create_run(self, run: Run) -> None:
            kept.append((world.audit.size, world.ledger.snapshot()))
            await super().create_run(run)

    world.keep_runs_in(Saving())
    run_id = (await world.launch(labels=["untrusted"])).json()["run_id"]
    ((size, rows),) = kept
    again = Ledger()
    again.restore(rows)
    for record in list(world.audit.records)[size:]:
        again.replay(record)
    assert again.family(run_id).labels == {"untrusted"}


async def test_labels_of_a_run_come_back_out_of_the_log_alone(world: World) -> None:
    run_id = (await world.launch(labels=["untrusted"])).json()["run_id"]
    again = Ledger()
    for record in world.records:
        again.replay(record)
    assert again.family(run_id).labels == {"untrusted"}
    assert again.family(run_id).sightings.doubt


async def test_policy_is_asked_for_the_launcher(world: World) -> None:
    await world.launch(grants=[REFUND], allowed_values={"/to": ["x"]}, origin="schedule")
    _, phase, document = world.policy.asked[-1]
    assert phase == "issue"
    assert document["action"] == {"name": "runs/create"}
    assert document["resource"] == {"type": "run", "id": "bot", "server": ""}
    assert document["subject"]["type"] == "launcher"
    assert document["subject"]["id"] == "workflow"
    assert document["context"]["token"]["constraints"] == [REFUND]
    assert document["context"]["token"]["allowed_values"] == {"/to": ["x"]}
    assert document["context"]["token"]["origin"] == "schedule"


async def test_a_run_lasts_an_hour_unless_told(world: World) -> None:
    assert (await world.launch()).json()["deadline"] == NOW_S + 3600
    assert (await world.launch(deadline=NOW_S + 7)).json()["deadline"] == NOW_S + 7


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"agent": "silent"}, 403, "agent_forbidden"),
        ({"agent": "nobody"}, 403, "agent_forbidden"),
        ({"on_behalf_of": "eve"}, 403, "on_behalf_of_forbidden"),
        ({"grants": [{"server": "shop"}]}, 403, "grants_exceeded"),
        ({"grants": [{**REFUND, "max_calls": 4}]}, 403, "grants_exceeded"),
        ({"grants": [{**REFUND, "constraints": {}}]}, 403, "grants_exceeded"),
        ({"grants": [{"server": "bank", "effects": ["read"]}]}, 403, "grants_exceeded"),
        ({"deadline_s": 0}, 400, "deadline_invalid"),
        ({"deadline_s": -5}, 400, "deadline_invalid"),
        ({"deadline_s": 86_401}, 400, "deadline_invalid"),
        ({"deadline": NOW_S}, 400, "deadline_invalid"),
        ({"deadline": NOW_S + 5, "deadline_s": 5}, 400, "request_invalid"),
        ({"grants": [REFUND, REFUND]}, 400, "request_invalid"),
        ({"grants": [REFUND] * 65}, 400, "request_invalid"),
        ({"grants": [{"server": "shop", "effects": ["raed"]}]}, 400, "request_invalid"),
        ({"grants": [{"server": "shop", "tols": "x"}]}, 400, "request_invalid"),
        ({"grants": {}}, 400, "request_invalid"),
        ({"grants": [{**REFUND, "max_calls": True}]}, 400, "request_invalid"),
        (
            {"grants": [{**REFUND, "constraints": {"/amount": {"regex": "x"}}}]},
            400,
            "request_invalid",
        ),
        ({"allowed_values": {"to": ["x"]}}, 400, "request_invalid"),
        ({"allowed_values": {"/to": [1]}}, 400, "request_invalid"),
        ({"allowed_values": {"shop.refnud#/to": ["x"]}}, 400, "request_invalid"),
        ({"budget": {"sums": {"shop__refund#/amount": 5}}}, 400, "request_invalid"),
        ({"budget": {"sums": {"bank.refund#/amount": 5}}}, 400, "request_invalid"),
        ({"budget": {"sums": {"shop.refund": 5}}}, 400, "request_invalid"),
        ({"budget": {"sums": {"#/amount": 5}}}, 400, "request_invalid"),
        ({"budget": {"sums": {"shop.refund#amount": 5}}}, 400, "request_invalid"),
        ({"budget": {"sums": {"shop.refund#/amount": -1}}}, 400, "request_invalid"),
        ({"budget": {"sums": {"shop.refund#/amount": 2.0**53 * 2}}}, 400, "request_invalid"),
        ({"budget": {"calls": -1}}, 400, "request_invalid"),
        ({"labels": ["Not A Label"]}, 400, "request_invalid"),
        ({"labels": [f"label{number}" for number in range(33)]}, 400, "request_invalid"),
        ({"may_act": "two words"}, 400, "request_invalid"),
        ({"grants": [{**FIND, "tool": f"t{n}"} for n in range(65)]}, 400, "request_invalid"),
        ({"workflow": "a\nb"}, 400, "request_invalid"),
        ({"origin": "a\nb"}, 400, "request_invalid"),
        ({"on_behalf_of": "a\nb"}, 400, "request_invalid"),
        ({"origin": "agent"}, 400, "request_invalid"),
        ({"origin": "user"}, 400, "request_invalid"),
        ({"origin": "consent"}, 400, "request_invalid"),
        ({"on_behalf_of": ""}, 400, "request_invalid"),
        ({"run_id": "mine"}, 400, "request_invalid"),
        ({"agent": 7}, 400, "request_invalid"),
        ({"agent": None}, 400, "request_invalid"),
    ],
)
async def test_what_a_launcher_may_not_give_is_refused_with_a_hint_and_recorded(
    world: World, changes: dict[str, Any], status: int, code: str
) -> None:
    reply = await world.launch(**changes)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["hint"]
    (record,) = world.records
    assert (record["type"], record["reason"], record["client"]) == ("run.refused", code, "workflow")
    assert world.policy.asked == []


async def test_a_limit_for_a_tool_that_there_is_is_taken(world: World) -> None:
    sums = {"shop.refund#/amount": 5}
    allowed = {"/to": ["x"], "shop.refund#/to": ["x"]}
    assert (await world.launch(budget={"sums": sums}, allowed_values=allowed)).status_code == 201


async def test_limits_are_taken_up_to_their_bounds(world: World) -> None:
    budget = {"calls": 0, "sums": {"shop.refund#/amount": 2**53 - 1}}
    labels = [f"label{number}" for number in range(32)]
    grants = [{**FIND, "tool": f"t{number}"} for number in range(64)]
    reply = await world.launch(budget=budget, labels=labels, grants=grants)
    assert reply.status_code == 201, reply.text


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "body_invalid"),
        (b"[]", 400, "request_invalid"),
        (b'{"agent":"bot","agent":"bot","grants":[]}', 400, "body_invalid"),
        (b'{"agent":"bot","grants":[],"deadline_s":NaN}', 400, "body_invalid"),
        (b'{"agent":"\xff","grants":[]}', 400, "body_invalid"),
        (b"[" * 2000, 400, "body_invalid"),
        (b" " * 20_000, 413, "body_too_large"),
    ],
)
async def test_a_body_that_two_parsers_may_read_differently_is_refused(
    world: World, basic_of: BasicOf, content: bytes, status: int, code: str
) -> None:
    headers = basic_of("workflow", "workflow-secret")
    reply = await world.client.post("/v1/runs", content=content, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [("workflow", "wrong"), ("nobody", "x"), ("bot", "bot-secret"), ("workflow", "")],
)
async def test_only_launchers_create_runs(
    world: World, basic_of: BasicOf, client_id: str, secret: str
) -> None:
    headers = basic_of(client_id, secret)
    reply = await world.client.post("/v1/runs", json={}, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "client_invalid")
    assert reply.headers["www-authenticate"].startswith("Basic ")
    assert world.refused == [("authenticate", "client_invalid")]


async def test_a_token_creates_no_run(world: World) -> None:
    token = (await world.token("bot", "bot-secret")).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await world.client.post("/v1/runs", json={}, headers=headers)).status_code == 401


async def test_a_run_that_policy_denies_is_not_created(world: World) -> None:
    world.decision = Deny((Reason("not_on_sundays"),), REVISION)
    reply = await world.launch()
    assert (reply.status_code, reply.json()["code"]) == (403, "policy_denied")
    assert "not_on_sundays" in reply.json()["detail"]
    assert [r["type"] for r in world.records] == ["run.refused"]
    assert await world.runs.find_ended(0) == []


async def test_no_record_no_run(world: World) -> None:
    world.audit.poison()
    reply = await world.launch()
    assert (reply.status_code, reply.json()["code"]) == (503, "audit_unavailable")


async def test_a_failing_state_is_told_without_its_details(world: World) -> None:
    world.decision = CountersignError("path of the disk", code="state_unavailable")
    reply = await world.launch()
    assert (reply.status_code, reply.json()["code"]) == (503, "state_unavailable")
    assert "disk" not in reply.text


async def test_a_launcher_sees_its_run(world: World, basic_of: BasicOf) -> None:
    body = (await world.launch(grants=[REFUND], workflow="returns")).json()
    path, headers = f"/v1/runs/{body['run_id']}", basic_of("workflow", "workflow-secret")
    seen = (await world.client.get(path, headers=headers)).json()
    assert (seen["state"], seen["agent"], seen["workflow"]) == ("active", "bot", "returns")
    assert seen["grants"] == [REFUND]
    assert "credential" not in str(seen)
    world.clock.now_s += 3600
    assert (await world.client.get(path, headers=headers)).json()["state"] == "expired"


async def test_a_run_of_another_launcher_is_as_good_as_none(
    world: World, basic_of: BasicOf
) -> None:
    body = (await world.launch()).json()
    headers = basic_of("other", "other-secret")
    for run_id in (body["run_id"], "0" * 32):
        seen = await world.client.get(f"/v1/runs/{run_id}", headers=headers)
        ended = await world.client.post(f"/v1/runs/{run_id}/close", headers=headers)
        assert (seen.status_code, ended.status_code) == (404, 404)
        assert seen.json() == ended.json()
    assert world.ended == []


async def test_ending_a_run_is_recorded_once_and_kills_its_tokens(
    world: World, basic_of: BasicOf
) -> None:
    body = (await world.launch()).json()
    path, headers = f"/v1/runs/{body['run_id']}/close", basic_of("workflow", "workflow-secret")
    for _ in range(2):
        reply = await world.client.post(path, headers=headers)
        assert (reply.status_code, reply.json()["state"]) == (200, "ended")
    assert [r["type"] for r in world.records] == ["run.create", "run.end"]
    assert set(world.ended) == {body["run_id"]}
    assert (await world.token(body["run_id"], body["run_credential"])).status_code == 400


async def test_a_run_whose_end_cannot_be_kept_ends_all_the_same(
    world: World, basic_of: BasicOf
) -> None:
    class Down(MemoryRuns):
        async def end_run(self, run_id: str, outcome: str = "") -> None:
            raise CountersignError(f"{run_id} {outcome}", code="state_unavailable")

    world.keep_runs_in(Down())
    run_id = (await world.launch()).json()["run_id"]
    headers = basic_of("workflow", "workflow-secret")
    reply = await world.client.post(f"/v1/runs/{run_id}/close", headers=headers)
    assert (reply.status_code, world.ended) == (503, [run_id])


async def test_what_a_run_spent_is_shown_as_long_as_it_is_known(world: World) -> None:
    run_id = (await world.launch(deadline_s=60)).json()["run_id"]
    ledger = Ledger()

    async def admit(_authorization: str | None) -> Human:
        return Human("opal", ("operator",))

    desk = RunsDesk(
        admit=admit,
        runs=world.runs,
        ledger=ledger,
        closer=IssueDesk(world.deps),
        clock=world.clock,
    )
    api = FastAPI()
    api.include_router(build_runs_router(world.deps, desk))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=api), base_url="https://gateway.test"
    )

    async def spent() -> Any:  # noqa: ANN401 - any JSON
        reply = await client.get(f"/v1/runs/{run_id}", headers={"Authorization": "Bearer opal"})
        return reply.json()["spent"]

    assert (await spent())["calls"] == 0
    ledger.family(run_id).calls = 3
    world.clock.now_s += 60
    assert (await spent())["calls"] == 3
    ledger.forget([run_id])
    ledger.take_changes()
    assert await spent() is None
    assert ledger.take_changes() == {}  # looking leaves nothing behind
