"""`countersign agents|clients|users` over HTTP, as people type them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.keys.token_keys import generate_token_key, public_jwk
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.core.tokens.clients import hash_secret
from tests.integration.approvals.conftest import serve
from tests.unit.registry.desk import Desk, secret_of

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-01")]
GRANT = '{"server": "shop", "tool": "*", "effects": ["read"]}'


class Line:
    """The command line of everybody at one desk."""

    def __init__(self, desk: Desk, url: str) -> None:
        self.desk, self._url = desk, url

    async def run(self, who: str, *words: str) -> Result:
        env = {"COUNTERSIGN_URL": self._url, "COUNTERSIGN_TOKEN": secret_of(who)}
        return await asyncio.to_thread(CliRunner().invoke, build(words[0]), list(words), env=env)

    async def json(self, who: str, *words: str, code: Exit = Exit.OK) -> Any:  # noqa: ANN401 - JSON
        done = await self.run(who, *words, "-o", "json")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    desk = Desk()
    await desk.start()
    async with serve(desk.api) as url:
        yield Line(desk, url)
    await desk.client.aclose()


async def test_an_agent_from_its_first_day_to_its_last(line: Line) -> None:
    words = ["agents", "create", "sub", "--owner", "lars", "--grant", GRANT, "--secret"]
    made = await line.run("ada", *words, "--role", "support", "--environment", "test")
    first, second = made.stdout.splitlines()
    assert (first, second.split()[0]) == ("sub active", "secret")
    assert line.desk.clients.authenticate("sub", second.split()[1]) is not None
    assert "told once" in made.stderr
    done = await line.run("ada", "agents", "update", "sub", "--owner", "lena", "--dpop")
    assert done.stdout == "sub active\n"
    await line.run("ada", "agents", "allow-edge", "sub", "bot")
    listed = (await line.run("eve", "agents", "list")).stdout.splitlines()
    assert listed[0].split() == ["ID", "STATE", "ORIGIN", "OWNER", "ROLES", "DELEGATES", "TO"]
    assert listed[2].split() == ["sub", "active", "registry", "lena", "support", "bot"]
    shown = await line.json("eve", "agents", "show", "sub")
    assert (shown["dpop"], shown["grants"]) == (True, [json.loads(GRANT)])
    assert "owner" in (await line.run("eve", "agents", "show", "sub")).stdout
    rotated = await line.json("ada", "agents", "rotate-secret", "sub")
    assert line.desk.clients.authenticate("sub", rotated["secret"]) is not None
    for verb, state in (("suspend", "suspended"), ("resume", "active"), ("retire", "retired")):
        done = await line.run("ada", "agents", verb, "sub", "--reason", "case 7")
        assert done.stdout == f"sub {state}\n"
    gone = await line.run("ada", "agents", "resume", "sub")
    assert (gone.exit_code, "nobody comes back" in gone.stderr) == (Exit.CONFLICT, True)


async def test_a_launcher_and_whom_it_may_launch(line: Line) -> None:
    words = ["clients", "create", "jobs", "--launch", "bot", "--human", "*", "--grant", GRANT]
    made = await line.json("ada", *words)
    assert line.desk.clients.authenticate("jobs", made["secret"]) is not None
    await line.run("ada", "agents", "create", "sub")
    await line.run("ada", "clients", "allow-edge", "jobs", "sub")
    await line.run("ada", "clients", "allow-edge", "jobs", "bot", "--remove")
    await line.run("ada", "clients", "update", "jobs", "--human", "olga", "--no-grants")
    launcher = line.desk.clients.launcher("jobs")
    assert launcher is not None
    assert (launcher.may_launch, launcher.humans, launcher.grants) == (("sub",), ("olga",), ())
    listed = await line.json("otto", "clients", "list")
    assert [one["id"] for one in listed] == ["flow", "jobs"]
    assert (await line.run("otto", "clients", "suspend", "flow")).exit_code == Exit.OK


@pytest.mark.req("TOK-08")
async def test_two_admins_make_an_approver(line: Line) -> None:
    secret = await line.json("ada", "users", "new-secret")
    assert secret["secret_hash"] == hash_secret(secret["secret"])
    words = ["users", "create", "zoe", "--group", "finance", "--secret-hash"]
    assert (await line.run("ada", *words, secret["secret_hash"])).stdout == "zoe active\n"
    asked = await line.run("ada", "users", "grant-role", "zoe", "approver")
    assert asked.exit_code == Exit.PENDING
    proposal = asked.stdout.split()[0]
    assert f"`countersign users confirm {proposal}`" in asked.stderr
    waiting = (await line.run("alan", "users", "proposals")).stdout
    assert f"{proposal}  zoe" in waiting
    assert "roles +approver" in waiting
    assert "approver,finance" in waiting
    alone = await line.run("ada", "users", "confirm", proposal)
    assert (alone.exit_code, "second person" in alone.stderr) == (Exit.DENIED, True)
    assert (await line.run("alan", "users", "confirm", proposal)).stdout == "zoe active\n"
    asked_json = await line.json(
        "ada", "users", "revoke-role", "zoe", "approver", code=Exit.PENDING
    )
    back = asked_json["proposal"]["proposal"]
    assert (await line.run("ada", "users", "withdraw", back)).stdout == f"{back} withdrawn\n"
    assert await line.json("eve", "users", "proposals") == []
    listed = (await line.run("eve", "users", "list")).stdout
    assert "zoe   active  registry  approver  finance" in listed


@pytest.mark.req("TOK-08")
async def test_an_entry_of_the_file_and_its_groups(line: Line) -> None:
    done = await line.run("ada", "users", "grant-role", "otto", "auditor")
    assert (done.exit_code, "configuration file" in done.stderr) == (Exit.CONFLICT, True)
    await line.run("ada", "users", "create", "tim", "--role", "auditor", "--secret")
    await line.run("ada", "users", "grant-role", "tim", "hr", "legal", "--group")
    await line.run("ada", "users", "revoke-role", "tim", "hr", "--group")
    found = line.desk.humans.find("tim")
    assert found is not None
    assert found.roles == ("auditor", "legal")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("agents", "show", "../x"), Exit.USAGE, "countersign agents list"),
        (("agents", "show", "nobody"), Exit.NOT_FOUND, "there is no agent `nobody`"),
        (("agents", "create", "x", "--grant", "{"), Exit.USAGE, "`--grant` is JSON"),
        (("agents", "update", "bot"), Exit.USAGE, "say what changes"),
        (("clients", "update", "flow"), Exit.USAGE, "say what changes"),
        (("agents", "create", "bot"), Exit.CONFLICT, "stands for somebody already"),
        (("users", "confirm", "a/b"), Exit.USAGE, "countersign users proposals"),
        (("users", "confirm", "abc"), Exit.NOT_FOUND, "no such proposal"),
    ],
)
async def test_what_does_not_work_is_said(
    line: Line, words: tuple[str, ...], code: Exit, said: str
) -> None:
    done = await line.run("ada", *words)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr


async def test_public_keys_in_place_of_a_secret(line: Line, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [public_jwk(generate_token_key())]}))
    await line.json("ada", "agents", "create", "sub", "--jwks", str(keys))
    await line.json("ada", "clients", "create", "jobs", "--jwks", str(keys))
    shown = await line.json("ada", "clients", "show", "jobs")
    assert (len(shown["jwks"]), shown["has_secret"]) == (1, False)
    keys.write_text('{"keys": []}')
    changed = await line.json("ada", "agents", "update", "sub", "--jwks", str(keys))
    assert changed["entry"]["jwks"] == []
    keys.write_text("{")
    refused = await line.run("ada", "agents", "update", "sub", "--jwks", str(keys))
    assert (refused.exit_code, "is no JWK set" in refused.stderr) == (Exit.USAGE, True)


async def test_without_the_role_nothing_is_done(line: Line) -> None:
    done = await line.run("eve", "agents", "suspend", "bot")
    assert (done.exit_code, "`admin` or `operator`" in done.stderr) == (Exit.DENIED, True)
    assert (await line.run("stranger", "users", "list")).exit_code == Exit.AUTH
