"""`countersign keys tokens`: over HTTP, and on a gateway that is stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_reader import read_records
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.core.tokens.clients import hash_secret
from gateway.http.humans import HumanEntry, Humans, build_admit
from gateway.wiring.keys import build_router
from tests.integration.approvals.conftest import serve
from tests.unit.tokens.key_world import STEP_S, KeyWorld

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-07")]


class Line:
    """The command line of people at one gateway."""

    def __init__(self, world: KeyWorld, url: str, secrets: dict[str, str]) -> None:
        self.world, self._url, self._secrets = world, url, secrets

    async def run(self, who: str, *words: str) -> Result:
        env = {"COUNTERSIGN_URL": self._url, "COUNTERSIGN_TOKEN": self._secrets[who]}
        command = ["keys", "tokens", *words]
        return await asyncio.to_thread(CliRunner().invoke, build("keys"), command, env=env)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    world = KeyWorld(tmp_path)
    await world.start()
    secrets = {name: f"secret-of-{name}-0123456789abcdef0123456789" for name in ("ada", "opal")}
    roles = {"ada": ("admin",), "opal": ("operator",)}
    humans = Humans(
        HumanEntry(name, roles[name], hash_secret(secret)) for name, secret in secrets.items()
    )

    async def refuse(_stage: str, _reason: str) -> None:
        """Nobody counts strangers here."""

    api = FastAPI()
    api.include_router(build_router(world.keys, build_admit(humans, refuse)))
    async with serve(api) as url:
        yield Line(world, url, secrets)


async def test_keys_are_listed_and_changed(line: Line) -> None:
    (kid,) = line.world.published
    listed = await line.run("opal", "list")
    assert listed.exit_code == 0, listed.output
    assert listed.stdout.splitlines()[0].split() == [
        "KEY",
        "STATE",
        "SINCE",
        "NEXT",
        "STEP",
        "SOURCE",
    ]
    assert listed.stdout.splitlines()[1].split() == [
        kid,
        "active",
        "2027-01-15",
        "08:00:00Z",
        "file:tokens.pem",
    ]
    assert "keys change on command only" in listed.stdout
    done = await line.run("ada", "rotate", "-o", "json")
    assert done.exit_code == 0, done.output
    view = json.loads(done.stdout)
    assert [key["state"] for key in view["keys"]] == ["active", "next"]
    assert view["rotating"] is True
    assert view["keys"][1]["due_at"] == line.world.now_s + STEP_S
    assert "takes over 2027-01-15 08:06:00Z" in (await line.run("ada", "list")).stdout


async def test_only_an_admin_changes_keys(line: Line) -> None:
    done = await line.run("opal", "rotate")
    assert (done.exit_code, done.stdout) == (Exit.DENIED, "")
    assert line.world.states == ["active"]


def run_offline(config: Path, *words: str) -> Result:
    command = ["keys", "tokens", *words, "--offline", "--config", str(config)]
    return CliRunner().invoke(build("keys"), command)


def test_keys_are_listed_and_changed_while_no_gateway_runs(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    assert CliRunner().invoke(build("init"), ["init", str(folder)]).exit_code == 0
    config = folder / "countersign.yaml"
    listed = run_offline(config, "list", "-o", "json")
    assert listed.exit_code == 0, listed.output
    assert [key["state"] for key in json.loads(listed.stdout)["keys"]] == ["active"]
    done = run_offline(config, "rotate")
    assert done.exit_code == 0, done.output
    assert "takes over 20" in done.stdout
    assert "the next key takes over after 720 h" in done.stdout
    assert "offline: no gateway is asked" in done.stderr
    changes = [r for r in read_records(folder / "audit") if r["type"] == "token_key.change"]
    assert [(record["state"], record["why"], "by" in record) for record in changes] == [
        ("next", "start", False),
        ("active", "start", False),
        ("next", "command", True),
    ]


def test_offline_a_missing_next_key_is_a_conflict_too(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    assert CliRunner().invoke(build("init"), ["init", str(folder)]).exit_code == 0
    config = folder / "countersign.yaml"
    text = config.read_text().replace("  key: keys/tokens.pem", "  keys: [file:keys/tokens.pem]")
    config.write_text(text)
    done = run_offline(config, "rotate")
    assert done.exit_code == Exit.CONFLICT, done.output
    assert "there is no next key" in done.stderr
