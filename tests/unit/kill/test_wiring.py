"""What the composition root knows of kills: credentials by server, targets that exist, handoffs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.adapters.state.memory_runs import MemoryRuns
from gateway.adapters.state.sql_runs import SqlRuns
from gateway.adapters.state.sql_store import SqlState
from gateway.config.settings import Config, load_config
from gateway.core.kills.kill import REVOKED, Kind
from gateway.core.ports import RunStore
from gateway.core.tokens.token import Ancestor
from gateway.http.token_admin import SKEW_S
from gateway.wiring.kill import build_hand_off, build_is_known, find_credentials
from tests.fixed import NOW_S
from tests.unit.kill.conftest import Place, build_claims
from tests.unit.kill.test_admin import build_run
from tests.unit.kill.test_kill_set import build_tool

pytestmark = pytest.mark.req("TOK-06")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    server = {"transport": "http", "url": "https://crm.example/mcp", "manifest": "crm.yaml"}
    tools = [{"name": "read", "effect": "read"}]
    for name, auth in (("crm", {"value_from": "env:CRM_TOKEN"}), ("open", None)):
        manifest = {"id": name, "transport": "http", "egress": ["crm.example"], "tools": tools}
        (tmp_path / f"{name}.yaml").write_text(json.dumps({**manifest, "auth": auth}))
    servers = {"crm": server, "open": {**server, "manifest": "open.yaml"}}
    path = tmp_path / "countersign.yaml"
    path.write_text(json.dumps({"servers": servers, "policy": {"path": "."}}))
    return load_config(path, {})


def test_a_server_is_known_by_where_its_secrets_are(config: Config) -> None:
    assert find_credentials(config) == {"crm": ("env:CRM_TOKEN",)}


def build_known(config: Config, runs: RunStore) -> Callable[[Kind, str], Awaitable[bool]]:
    return build_is_known(
        config=config,
        agents={"bot"}.__contains__,
        clients={"bot", "lars"}.__contains__,
        people={"ann"}.__contains__,
        tools=lambda: [build_tool("crm", "read")],
        runs=runs,
    )


async def test_a_target_is_known_or_a_slip_of_the_pen(config: Config) -> None:
    runs = MemoryRuns()
    await runs.create_run(build_run())
    is_known = build_known(config, runs)
    assert await is_known("agent", "bot")
    assert await is_known("client", "lars")
    assert await is_known("human", "ann")
    assert await is_known("tool", "crm.read")
    assert await is_known("server", "open")
    assert await is_known("credential", "env:CRM_TOKEN")
    assert await is_known("run", "run-1")
    for kind in ("agent", "client", "human", "tool", "server", "credential", "run"):
        assert not await is_known(kind, "nobody")


async def test_nothing_is_said_against_a_run_while_runs_cannot_be_looked_up(
    config: Config, tmp_path: Path
) -> None:
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    await state.open(environment="test", log_origin="log")
    await state.close()
    assert await build_known(config, SqlRuns(state))("run", "any")


async def test_a_handoff_ends_its_giver_in_that_run_and_nobody_else(place: Place) -> None:
    switch = await place.start()
    giver = build_claims()
    child = build_claims(
        subject="sub",
        actors=("worker",),
        jti="jti-2",
        parent_jti="jti-1",
        ancestors=(Ancestor("jti-1"),),
    )
    await build_hand_off(switch, place.clock, 3_600)(giver)
    assert switch.barred(giver) == REVOKED
    assert switch.barred(build_claims(jti="another of the giver")) == REVOKED
    assert switch.barred(child) is None
    assert switch.barred(build_claims(run_id="run-2", root_jti="run-2")) is None
    (kill,) = switch.standing()
    assert (kill.reason, kill.until) == ("handed_off", NOW_S + 3_600 + SKEW_S)
    (record,) = place.log.records[2:]
    assert (record["type"], record["kind"], record["target"]) == (
        "kill.set",
        "actor",
        "run-1/worker",
    )
