"""Reading a running gateway's log is on record before anything is shown (AUD-09)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault, read_opening
from gateway.cli import build
from gateway.cli.exits import Exit
from tests.e2e.served import Served
from tests.e2e.site import secret_of

pytestmark = pytest.mark.req("AUD-09")


def audit(served: Served, *words: str, who: str = "aud", url: str | None = None) -> Result:
    env = {"COUNTERSIGN_TOKEN": secret_of(who), "COUNTERSIGN_URL": url or served.site.url}
    command, *options = words
    return CliRunner().invoke(
        build("audit"), ["audit", command, str(served.site.audit), *options], env=env
    )


def test_a_query_of_a_running_gateways_log_is_recorded_first(house: Served) -> None:
    agent = house.agent()
    agent.call("stub__echo", {"value": "canary"})
    with house.adding() as added:
        result = audit(
            house, "query", "--agent", "helper", "--purpose", "canary case", "-o", "jsonl"
        )
    assert result.exit_code == Exit.OK, result.output
    shown = [json.loads(line) for line in result.stdout.splitlines()]
    (read,) = (record for record in added if record["type"] == "audit.read")
    assert (read["what"], read["records"]) == ("query", len(shown))
    assert (read["first"], read["last"]) == (shown[0]["seq"], shown[-1]["seq"])
    kek = load_or_create_kek(house.site.folder / "keys" / "kek")
    vault = Vault(house.site.audit / "openings" / "keys", kek, "", Files())
    opened = {
        path: read_opening(house.site.audit, vault, read["seq"], path)
        for path in ("by", "purpose", "filters")
    }
    assert opened == {"by": b"aud", "purpose": b"canary case", "filters": b'{"agent": "helper"}'}


def test_an_export_and_a_bundle_are_recorded_with_their_digests(
    house: Served, tmp_path: Path
) -> None:
    kek = str(house.site.folder / "keys" / "kek")
    out = tmp_path / "evidence.zip"
    with house.adding() as added:
        exported = audit(house, "export", "--format", "csv", "--purpose", "case", "--limit", "3")
        made = audit(
            *(house, "bundle", "--out", str(out), "--limit", "9"),
            *("--openings", "--kek", kek, "--purpose", "case"),
        )
    assert (exported.exit_code, made.exit_code) == (Exit.OK, Exit.OK), made.output
    found = [record for record in added if record["type"].startswith("audit.")]
    assert [record.get("format", record.get("what")) for record in found] == [
        *("csv", "opening", "bundle")
    ]
    assert found[0]["digest"] == hashlib.sha256(exported.stdout_bytes).hexdigest()
    assert found[2]["digest"] == hashlib.sha256(out.read_bytes()).hexdigest()


def test_a_replay_of_a_running_gateways_log_is_recorded_too(house: Served) -> None:
    house.agent()
    env = {"COUNTERSIGN_TOKEN": secret_of("aud"), "COUNTERSIGN_URL": house.site.url}
    options = ["--config", str(house.site.path), "--since", "1d", "--limit", "20", "-o", "json"]
    with house.adding() as added:
        result = CliRunner().invoke(build("audit"), ["audit", "replay", *options], env=env)
    assert result.exit_code == Exit.OK, result.output
    (read,) = (record for record in added if record["type"] == "audit.read")
    assert (read["what"], read["records"]) == ("opening", json.loads(result.stdout)["decisions"])


@pytest.mark.parametrize(
    ("who", "url", "code"),
    [
        ("opal", None, Exit.DENIED),
        ("nobody", None, Exit.AUTH),
        ("aud", "http://127.0.0.1:9", Exit.ERROR),
    ],
)
def test_what_cannot_be_recorded_is_not_shown(
    house: Served, tmp_path: Path, who: str, url: str | None, code: Exit
) -> None:
    out = tmp_path / "export.csv"
    for words in (
        ("query", "-o", "jsonl"),
        ("export", "--format", "csv"),
        ("export", "--format", "csv", "--out", str(out)),
        ("bundle", "--out", str(out), "--limit", "3"),
    ):
        result = audit(house, *words, "--purpose", "case", who=who, url=url)
        assert result.exit_code == code
        assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
