"""Everybody is erased from a real gateway's log, which stands as it was (AUD-06)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_reader import read_lines, read_record
from gateway.adapters.audit.audit_values import ValueReader, commitments_of
from gateway.cli import build
from gateway.core.tokens.clients import hash_secret
from tests.e2e.callers import Agent
from tests.e2e.conftest import CANARY, Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import ROOT, Site, secret_of

pytestmark = pytest.mark.req("AUD-06")

PEOPLE: Final = {
    "canary-dana": ["approver"],
    "canary-eli": ["approver"],
    "canary-aud": ["auditor"],
    "canary-opal": ["operator"],
    "canary-ada": ["admin"],
    "canary-abe": ["admin"],
}
SUBJECTS: Final = ("canary-olga", "canary-hanna", "canary-olaf", "clerk")
"""On whose behalf calls are made: a person, an agent's owner, one more, an agent without either."""

VERIFIER: Final = ROOT / "verify" / "countersign_verify.py"


class House:
    """A gateway full of names, and the command line of everybody in it."""

    def __init__(self, served: Served) -> None:
        self.served, self.site = served, served.site

    def cli(self, who: str, *words: str) -> Result:
        """Run `countersign …` as somebody, in this process."""
        env = {"COUNTERSIGN_URL": self.site.url, "COUNTERSIGN_TOKEN": secret_of(who)}
        return CliRunner().invoke(build(words[0]), list(words), env=env)

    def must(self, who: str, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command that succeeds, and return its data."""
        done = self.cli(who, *words, "-o", "json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def redact(self, who: str, subject: str, *more: str) -> Result:
        words = ["--subject", subject, "--basis", "request", "--reason", f"canary of {subject}"]
        return self.cli(who, "audit", "redact", *words, *more)

    def openings(self) -> Iterator[tuple[int, str, str]]:
        """Yield record number, path and why it cannot be read, of every commitment."""
        kek = load_or_create_kek(self.site.folder / "keys" / "kek")
        keys = self.site.audit / "openings" / "keys"
        reader = ValueReader(self.site.audit, Vault(keys, kek, "", Files()))
        for segment in list_segments(self.site.audit):
            for record in filter(None, map(read_record, read_lines(segment))):
                for path in commitments_of(record):
                    yield record["seq"], path, reader.open(record, segment, path).why

    def find_canaries(self) -> list[Path]:
        """Return the files of the log, but for the openings, and the log lines with a name."""
        files = [path for path in self.site.audit.rglob("*") if path.is_file()]
        return [
            path
            for path in (*files, self.served.log)
            if CANARY in path.read_bytes().lower() + path.name.encode()
        ]

    def segments(self) -> bytes:
        return b"".join(path.read_bytes() for path in list_segments(self.site.audit))


def settings(servers: dict[str, Any]) -> dict[str, Any]:
    grants = [{"server": name} for name in servers]
    launcher = {
        "kind": "launcher",
        "id": "launcher",
        "owner": "canary-lars",
        "secret_hash": hash_secret(secret_of("launcher")),
        "may_launch": ["helper"],
        "humans": ["*"],
        "grants": grants,
    }
    clerk = {"kind": "agent", "id": "clerk", "secret_hash": hash_secret(secret_of("clerk"))}
    return {
        "clients": [
            launcher,
            {"kind": "agent", "id": "helper", "owner": "canary-hanna"},
            {**clerk, "grants": [{**grant, "effects": ["read"]} for grant in grants]},
        ],
        "humans": [
            {"id": name, "roles": roles, "secret_hash": hash_secret(secret_of(name))}
            for name, roles in PEOPLE.items()
        ],
    }


@pytest.fixture(scope="module")
def house(build_site: Build, start_here: Start) -> House:
    site: Site = build_site()
    site.settings |= settings(site.settings["servers"])
    site.write()
    served = start_here(site, step="never").wait_ready()
    return House(served)


def live(house: House) -> None:
    """Do everything that leaves a name or a value behind."""
    served = house.served
    for subject in ("canary-olga", None, "canary-olaf"):
        agent = served.agent(**({} if subject is None else {"on_behalf_of": subject}))
        assert "canary" in agent.call("stub__echo", {"value": "canary 1"}).text
        agent.rest("stub__echo", {"value": "canary 2"})
        agent.call("stub__forbidden", {"value": "canary 3"})
        agent.call("acme__canary", {})
        agent.call("acme__notes_add", {"canary": "canary 4"})
        agent.call("stub__garbage", {"value": "canary 5"})
    token = served.token("clerk", secret_of("clerk"))
    Agent(served.http, token, {}).call("stub__echo", {"value": "canary 6"})
    agent = served.agent(on_behalf_of="canary-olga")
    note = {"customer_id": "cus_1003", "body": "held: canary 7"}
    for who, vote in (("canary-dana", "approve"), ("canary-eli", "deny")):
        held = agent.hold("acme__notes_add", {**note, "body": f"held: canary {vote}"})
        words = ["--reason", f"canary: {vote}"]
        assert house.cli(who, "approvals", vote, held, *words).exit_code == 0
    held = agent.hold("acme__notes_add", {**note, "body": "held: canary again"})
    house.cli("canary-opal", "approvals", "cancel", held, "--reason", "canary: no more")
    eventually(lambda: served.records("approval.cancel"), "the cancellation is on record")


def test_all_are_erased_and_the_chain_stands(house: House) -> None:
    live(house)
    served, site = house.served, house.site
    intent = next(r for r in served.records("call.intent") if r["tool"]["id"] == "stub.echo")
    shown = house.must(
        "canary-aud", "audit", "open", str(intent["seq"]), "args", "--purpose", "canary: a case"
    )
    assert json.loads(shown["value"]) == {"value": "canary 1"}
    hold = house.must(
        "canary-aud", "audit", "hold", "set", "--subject", "canary-olga", "--reason", "canary suit"
    )["hold"]
    house.must("canary-ada", "audit", "hold", "confirm", hold)
    refused = house.redact("canary-ada", "canary-olga")
    assert (refused.exit_code, hold in refused.output) == (6, True)
    house.must("canary-ada", "audit", "hold", "release", hold, "--reason", "canary settled")
    house.must("canary-abe", "audit", "hold", "confirm-release", hold)
    assert len(house.must("canary-ada", "keys", "rotate")["keys"]) == 2
    assert not house.find_canaries()
    assert {why for *_, why in house.openings()} == {""}
    before = house.segments()

    everyone = [*SUBJECTS, "canary-lars", *PEOPLE]
    everyone.remove("canary-ada")
    for subject in everyone:
        done = house.redact("canary-ada", subject)
        assert done.exit_code == 0 or (subject, done.exit_code) == ("canary-lars", 5), done.output
    assert house.redact("canary-abe", "canary-ada").exit_code == 0
    served.stop()
    last = house.redact("nobody", "canary-abe", "--offline", "--config", str(site.path))
    assert last.exit_code == 0, last.output
    assert "nobody is authenticated" in last.stderr

    after = house.segments()
    assert after.startswith(before)
    served.verify()
    checked = subprocess.run(
        [sys.executable, str(VERIFIER), str(site.audit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(site.folder / "trust")},
    )
    assert checked.returncode == 0, checked.stdout
    assert not house.find_canaries()
    final = served.records("redact")[-1]["seq"]
    told = {(seq, path): why for seq, path, why in house.openings()}
    assert {why for (seq, _), why in told.items() if seq < final} == {"erased"}
    assert {path for (seq, path), why in told.items() if not why} == {"by", "reason"}
    assert len(list((site.audit / "openings" / "keys").iterdir())) == 1  # of who erased last

    replayed = CliRunner().invoke(
        build("audit"), ["audit", "replay", "--config", str(site.path), "-o", "json"]
    )
    assert replayed.exit_code == 0, replayed.output
    counts = json.loads(replayed.stdout)
    assert counts["erased"] == counts["decisions"] > 20
