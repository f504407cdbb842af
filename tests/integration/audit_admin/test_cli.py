"""`countersign audit open|redact|hold` and `keys`: over HTTP, and on a stopped gateway's log."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.audit_verify import verify
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.config.settings import Config, load_config
from gateway.core.entry import Entry, Opening
from gateway.wiring.audit import open_offline
from tests.fixed import NOW_S
from tests.integration.approvals.conftest import serve
from tests.unit.audit_admin.conftest import Desk, secret_of

pytestmark = [pytest.mark.network, pytest.mark.allow_hosts(["127.0.0.1"])]
WHY = ["--reason", "case 7"]
ERASE = ["audit", "redact", "--basis", "order", *WHY]


class Line:
    """The command line of everybody at one desk."""

    def __init__(self, desk: Desk, url: str) -> None:
        self.desk, self._url = desk, url

    async def run(self, who: str, *words: str) -> Result:
        env = {"COUNTERSIGN_URL": self._url, "COUNTERSIGN_TOKEN": secret_of(who).decode()}
        return await asyncio.to_thread(CliRunner().invoke, build(words[0]), list(words), env=env)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    desk = Desk()
    api = FastAPI()
    for router in desk.routers:
        api.include_router(router)
    async with serve(api) as url:
        yield Line(desk, url)
    await desk.client.aclose()


@pytest.mark.req("AUD-06")
async def test_a_value_is_opened_for_a_purpose(line: Line) -> None:
    seq = await line.desk.keep(args=b'{"iban":"DE1","note":"a\\u202eb"}')
    words = ["audit", "open", str(seq), "args", "--purpose", "case 7"]
    done = await line.run("aud", *words)
    assert done.exit_code == 0, done.output
    assert done.stdout == '{"iban":"[masked]","note":"a\\u202eb"}\n'
    assert "masked; commitment" in done.stderr
    unmasked = await line.run("ada", *words, "--unmasked", "-o", "json")
    assert "DE1" in json.loads(unmasked.stdout)["value"]
    assert (await line.run("aud", *words, "--unmasked")).exit_code == Exit.DENIED
    assert (await line.run("aud", *words[:3], "nowhere", *words[4:])).exit_code == Exit.NOT_FOUND
    binary = await line.desk.keep(asked=b"\xff")
    shown = await line.run("ada", *words[:2], str(binary), "asked", *words[4:], "--unmasked")
    assert (shown.stdout, "in base64;" in shown.stderr) == ("/w==\n", True)


@pytest.mark.req("AUD-06")
async def test_a_data_subject_is_held_by_two_and_then_erased(line: Line) -> None:
    seq = await line.desk.keep()
    made = await line.run("aud", "audit", "hold", "set", "--subject", "olga", *WHY)
    hold, state = made.stdout.split()[:2]
    assert (state, "asked by aud: case 7" in made.stdout) == ("proposed,", True)
    alone = await line.run("aud", "audit", "hold", "confirm", hold)
    assert (alone.exit_code, "a second person" in alone.stderr) == (Exit.DENIED, True)
    assert (await line.run("ada", "audit", "hold", "confirm", hold)).stdout == f"{hold} set\n"
    refused = await line.run("ada", *ERASE, "--subject", "olga")
    assert (refused.exit_code, hold in refused.stderr) == (Exit.CONFLICT, True)
    await line.run("ada", "audit", "hold", "release", hold, *WHY)
    listed = await line.run("aud", "audit", "hold", "list")
    assert "releasing" in listed.stdout
    assert "asked by ada" in listed.stdout
    freed = await line.run("abe", "audit", "hold", "confirm-release", hold, "-o", "json")
    assert json.loads(freed.stdout)["state"] == "released"
    done = await line.run("ada", *ERASE, "--subject", "olga")
    assert (done.exit_code, "erased: 1 openings" in done.stdout) == (0, True)
    gone = await line.run("aud", "audit", "open", str(seq), "args", "--purpose", "x")
    assert (gone.exit_code, "erased" in gone.stderr) == (Exit.NOT_FOUND, True)
    again = await line.run("ada", *ERASE, "--subject", "olga", "-o", "json")
    assert again.exit_code == Exit.NOT_FOUND
    listed = await line.run("aud", "audit", "hold", "list", "-o", "json")
    assert [one["state"] for one in json.loads(listed.stdout)] == ["released"]


@pytest.mark.req("AUD-06")
async def test_a_hold_is_for_somebody_or_for_all(line: Line) -> None:
    for words in ([], ["--subject", "olga", "--all"]):
        done = await line.run("aud", "audit", "hold", "set", *words, *WHY)
        assert done.exit_code == Exit.USAGE
    done = await line.run("aud", "audit", "hold", "set", "--all", *WHY, "-o", "json")
    assert json.loads(done.stdout)["subject"] == "*"
    assert (await line.run("aud", "audit", "hold", "confirm", "../x")).exit_code == Exit.USAGE


@pytest.mark.req("AUD-07")
async def test_keys_are_listed_and_rotated(line: Line) -> None:
    line.desk.clock.now_s += 60
    done = await line.run("ada", "keys", "rotate")
    assert done.exit_code == 0, done.output
    assert "    0  first-key\n    1  key-1  in use since 2027-01-15 08:01:00Z\n" in done.stdout
    assert "a new key takes over after 24 h" in done.stdout
    listed = await line.run("aud", "keys", "list", "-o", "json")
    assert json.loads(listed.stdout)["epoch"] == 1
    assert (await line.run("aud", "keys", "rotate")).exit_code == Exit.DENIED
    assert line.desk.keys.epoch_us // 1_000_000 == NOW_S + 60


# On the log of a stopped gateway


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration as `countersign init` makes it."""
    done = CliRunner().invoke(build("init"), ["init", str(tmp_path / "g")])
    assert done.exit_code == 0, done.output
    return tmp_path / "g" / "countersign.yaml"


def offline(site: Path, *words: str) -> Result:
    words = (*words, "--offline", "--config", str(site))
    return CliRunner().invoke(build(words[0]), list(words))


def config_of(site: Path) -> Config:
    return load_config(site, os.environ)


async def keep(site: Path, subject: str) -> int:
    """Record a call, as the gateway would have before it stopped."""
    async with open_offline(config_of(site)) as taken:
        opening = Opening("args", b"{}", subject)
        entry = Entry(type="call.intent", op="op-1", fields={}, openings=(opening,))
        return (await taken.log.record(entry)).seq


@pytest.mark.req("AUD-06", "AUD-07")
async def test_erasing_and_rotating_work_without_a_gateway(site: Path) -> None:
    seq = await keep(site, "olga")
    audit = config_of(site).audit.dir
    erased = await asyncio.to_thread(offline, site, *ERASE, "--subject", "olga")
    assert erased.exit_code == 0, erased.output
    assert "no gateway is asked and nobody is authenticated" in erased.stderr
    rotated = await asyncio.to_thread(offline, site, "keys", "rotate")
    assert rotated.exit_code == 0, rotated.output
    listed = await asyncio.to_thread(offline, site, "keys", "list", "-o", "json")
    assert [one["epoch"] for one in json.loads(listed.stdout)["keys"]] == [0, 1]
    kinds = [record["type"] for record in read_records(audit)]
    assert kinds.count("redact") == kinds.count("key.rotate") == kinds.count("call.orphan") == 1
    assert kinds.index("call.orphan") < kinds.index("redact")
    async with open_offline(config_of(site)) as taken:
        assert taken.log.read_opening(seq, "args") is None
        rotation = next(r for r in read_records(audit) if r["type"] == "key.rotate")
        by = taken.log.read_opening(rotation["seq"], "by")
        assert by is not None
        assert by.startswith(b"os:")
    assert verify(audit, every_signature=True).valid


@pytest.mark.req("AUD-06")
async def test_holds_bind_without_a_gateway_too(site: Path) -> None:
    await keep(site, "olga")
    async with open_offline(config_of(site)) as taken:
        await taken.custody.propose_hold("aud", "olga", "case 7")
    held = await asyncio.to_thread(offline, site, *ERASE, "--subject", "olga")
    assert (held.exit_code, "legal hold" in held.stderr) == (Exit.CONFLICT, True)
    missing = await asyncio.to_thread(offline, site, *ERASE, "--subject", "nobody-else")
    assert missing.exit_code == Exit.NOT_FOUND


@pytest.mark.req("AUD-06")
async def test_a_hold_on_record_binds_where_the_state_was_lost(site: Path) -> None:
    await keep(site, "olga")
    async with open_offline(config_of(site)) as taken:
        hold = await taken.custody.propose_hold("aud", "olga", "case 7")
        await taken.custody.confirm_hold("ada", hold.id)
    for file in site.parent.glob("state.db*"):
        file.unlink()
    held = await asyncio.to_thread(offline, site, *ERASE, "--subject", "olga")
    assert (held.exit_code, hold.id in held.stderr) == (Exit.CONFLICT, True)


@pytest.mark.req("AUD-06")
async def test_a_log_that_a_gateway_holds_is_not_taken(site: Path) -> None:
    async with open_offline(config_of(site)):
        done = await asyncio.to_thread(offline, site, *ERASE, "--subject", "olga")
    assert (done.exit_code, "is held by" in done.stderr) == (Exit.ERROR, True)


@pytest.mark.req("AUD-06")
async def test_an_erasure_needs_a_subject_and_a_reason_offline_too(site: Path) -> None:
    words = ["audit", "redact", "--basis", "order", "--reason", " ", "--subject", "olga"]
    done = await asyncio.to_thread(offline, site, *words)
    assert done.exit_code == Exit.USAGE
