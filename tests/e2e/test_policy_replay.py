"""Other policies on recorded traffic and on live traffic, at a gateway that serves (POL-08)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_reader import tail
from gateway.cli import build
from gateway.cli.exits import Exit
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served
from tests.e2e.site import secret_of

pytestmark = pytest.mark.req("POL-08")

STRICTER = """
deny contains {"code": "not_today"} if {
	input.phase == "call"
	input.resource.id == "stub.echo"
}

hold contains {"code": "ask_first"} if {
	input.phase in {"call", "resume"}
	input.resource.id == "stub.masked"
}
"""
Json = dict[str, Any]


def run(*options: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(build("policy"), ["policy", *options], env=env)


@pytest.fixture(scope="module")
def served(build_site: Build, start_here: Start) -> Served:
    """A gateway in `dev` that has decided a few calls, and still serves."""
    site = build_site(dev=True)
    site.settings["clients"][0]["humans"] = ["olga"]
    site.write()
    served = start_here(site, step="never").wait_ready()
    for person in (None, "olga"):
        agent = served.agent(on_behalf_of=person) if person else served.agent()
        agent.call("stub__echo", {"value": "canary"})
        agent.call("stub__masked")
        agent.call("stub__forbidden")
        agent.hold("stub__transfer", {"to": "canary", "amount": 5})
    return served


@pytest.fixture
def candidate(served: Served, tmp_path: Path) -> Path:
    folder = tmp_path / "candidate"
    shutil.copytree(served.site.policies, folder)
    with (folder / "house.rego").open("a") as house:
        house.write(STRICTER)
    return folder


@pytest.fixture
def log(served: Served, tmp_path: Path) -> list[str]:
    """Options that name a copy of the log."""
    audit = tmp_path / "audit"
    # Its gateway still runs: what it makes and takes away meanwhile is not for a reader of records.
    passing = shutil.ignore_patterns("*.new", "tile")
    shutil.copytree(served.site.audit, audit, ignore=passing)
    return ["--dir", str(audit), "--kek", str(served.site.folder / "keys" / "kek")]


def replay(*options: str) -> Json:
    result = run("replay", *options, "-o", "json")
    found: Json = json.loads(result.stdout)
    return found


def test_the_same_policies_change_nothing(served: Served, log: list[str]) -> None:
    found = replay(str(served.site.policies), *log)
    assert found["changed"] == 0
    assert found["counts"]["unchanged"] == found["decisions"] >= 8
    assert {"call", "issue"} <= found["phases"].keys()
    assert run("replay", str(served.site.policies), *log, "--fail-on-change").exit_code == Exit.OK


def test_what_others_would_change_is_told_by_tool_agent_and_rule(
    served: Served, candidate: Path, log: list[str]
) -> None:
    found = replay(str(candidate), *log)
    assert found["by_tool"]["newly_denied"] == {"stub.echo": 2}
    assert found["by_rule"]["newly_denied"] == {"house:not_today": 2}
    assert found["by_agent"]["newly_denied"] == {"helper": 2}
    assert found["by_tool"]["newly_held"] == {"stub.masked": 2}
    assert found["counts"]["newly_permitted"] == 0
    result = run("replay", str(candidate), *log, "--fail-on-change")
    assert result.exit_code == Exit.TEST_FAILED
    assert "house:not_today  stub.echo  helper 2" in result.stdout
    assert "what a changed decision would have spared" in result.stdout
    assert "canary" not in result.output
    one = replay(str(candidate), *log, "--tool", "stub.echo")
    assert one["counts"]["newly_held"] == 0


def test_a_bundle_that_was_active_once_can_be_tried_again(
    served: Served, candidate: Path, log: list[str]
) -> None:
    revision = served.records("policy.activate")[0]["rev"]
    found = replay("--release", revision, *log)
    assert (found["candidate"], found["changed"]) == (revision, 0)
    assert run("replay", "--release", "sha256:" + "0" * 64, *log).exit_code == Exit.ERROR
    assert run("replay", *log).exit_code == Exit.USAGE
    assert run("replay", str(candidate), "--release", revision, *log).exit_code == Exit.USAGE


def test_examples_are_ready_for_eval_and_ask_for_a_purpose(
    candidate: Path, log: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "examples"
    assert run("replay", str(candidate), *log, "--examples", str(folder)).exit_code == Exit.USAGE
    assert not folder.exists()
    options = ["--examples", str(folder), "--purpose", "a stricter rule"]
    found = replay(str(candidate), *log, *options)
    files = {
        row["kind"]: folder / row["examples"][0]["file"]
        for row in found["rows"]
        if row["kind"] in {"newly_denied", "newly_held"}
    }
    assert all(file.stat().st_mode & 0o077 == 0 for file in files.values())
    denied = run("eval", str(candidate), "--input", str(files["newly_denied"]))
    held = run("eval", str(candidate), "--input", str(files["newly_held"]))
    assert (denied.exit_code, held.exit_code) == (Exit.DENIED, Exit.PENDING)


def test_what_was_erased_is_counted_apart(candidate: Path, log: list[str]) -> None:
    before = replay(str(candidate), *log)
    audit, kek = Path(log[1]), load_or_create_kek(Path(log[3]))
    vault = Vault(audit / "openings" / "keys", kek, "", Files())
    assert vault.erase("olga")
    assert "erased" not in replay(str(candidate), *log)["missing"]  # without a record, it is lost
    (last,) = tail(audit, 1)
    redact = last | {"seq": last["seq"] + 1, "type": "redact", "subject": vault.key_id("olga")}
    with list_segments(audit)[-1].open("ab") as segment:
        segment.write(orjson.dumps(redact, option=orjson.OPT_SORT_KEYS) + b"\n")
    found = replay(str(candidate), *log)
    erased = found["missing"]["erased"]
    assert erased > 3
    assert found["decisions"] + erased == before["decisions"]
    assert found["counts"]["newly_denied"] == 1


def test_a_log_that_lost_openings_or_had_them_changed_is_not_believed(
    candidate: Path, log: list[str]
) -> None:
    audit = Path(log[1])
    before = replay(str(candidate), *log)["decisions"]
    (openings,) = (audit / "openings").glob("*.jsonl")
    lines = openings.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if number % 3 == 0:
            lines[number] = line.replace(b'"ct":"', b'"ct":"AAAA')
        elif number % 3 == 1:
            lines[number] = b""
    openings.write_bytes(b"".join(lines))
    found = replay(str(candidate), *log)
    assert found["missing"]["altered"] > 1
    assert found["missing"]["lost"] > 1
    assert found["decisions"] + sum(found["missing"].values()) == before


def test_without_the_key_or_decisions_nothing_is_said_to_be_unchanged(
    candidate: Path, log: list[str], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("00" * 32)
    wrong.chmod(0o600)
    result = run("replay", str(candidate), "--dir", log[1], "--kek", str(wrong))
    assert result.exit_code == Exit.ERROR
    assert "is the KEK the log's?" in result.stderr
    nothing = run("replay", str(candidate), *log, "--tool", "stub.nothing")
    assert nothing.exit_code == Exit.NOT_FOUND


def test_reading_at_a_gateway_that_serves_is_recorded_first(
    served: Served, candidate: Path
) -> None:
    kek = str(served.site.folder / "keys" / "kek")
    options = ["--dir", str(served.site.audit), "--kek", kek, "--url", served.site.url]
    env = {"COUNTERSIGN_TOKEN": secret_of("aud")}
    with served.adding() as added:
        result = run("replay", str(candidate), *options, "--purpose", "a stricter rule", env=env)
        assert result.exit_code == Exit.OK, result.output
    (read,) = [record for record in added if record["type"] == "audit.read"]
    assert read["what"] == "opening"
    refused = run("replay", str(candidate), *options, env={"COUNTERSIGN_TOKEN": secret_of("dana")})
    assert refused.exit_code == Exit.DENIED
    assert "newly denied" not in refused.stdout


def shadow(served: Served, *options: str, who: str = "opal") -> Result:
    env = {"COUNTERSIGN_TOKEN": secret_of(who), "COUNTERSIGN_URL": served.site.url}
    return run("shadow", *options, env=env)


def status(served: Served) -> Json:
    found: Json = json.loads(shadow(served, "status", "-o", "json", who="aud").stdout)
    return found


def test_a_shadow_sees_live_traffic_and_changes_none_of_it(served: Served, candidate: Path) -> None:
    started = shadow(served, "start", str(candidate), "--label", "stricter")
    assert started.exit_code == Exit.OK, started.output
    agent = served.agent()
    assert agent.call("stub__echo", {"value": "canary"}).result
    assert agent.call("stub__masked").result
    eventually(lambda: status(served)["compared"] >= 4, "the candidate was asked, too")
    found = status(served)
    assert found["by_tool"]["newly_denied"] == {"stub.echo": 1}
    assert found["by_rule"]["newly_held"] == {"house:ask_first": 1}
    assert (found["label"], found["state"], found["dropped"]) == ("stricter", "running", 0)
    assert served.records("call.intent")[-1]["policy"]["rev"] != found["revision"]
    stopped = shadow(served, "stop")
    assert stopped.exit_code == Exit.OK
    assert "house:not_today 1" in stopped.stdout
    first, last = served.records("policy.shadow")
    assert (first["state"], last["state"]) == ("start", "stop")
    assert first["rev"] == last["rev"] == found["revision"]
    assert last["counts"]["newly_denied"] == 1
    assert agent.call("stub__echo", {"value": "canary"}).result
    assert status(served)["observed"] == last["counts"]["observed"]


def test_a_candidate_that_does_not_pass_the_gate_is_not_evaluated(
    served: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.rego").write_text("package policies.a\ndeny := 1\n")
    result = shadow(served, "start", str(folder))
    assert result.exit_code == Exit.ERROR
    assert "a.rego:2" in result.stderr
    body = {"sources": {"a.rego": "package policies.a\ndeny := 1\n"}, "data": {}}
    headers = {"Authorization": f"Bearer {secret_of('opal')}"}
    answer = served.http.post("/v1/policy/shadow", json=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["code"] == "policy_invalid"


@pytest.mark.parametrize(
    ("who", "method", "status_code"),
    [
        ("dana", "GET", 403),
        ("aud", "POST", 403),
        ("aud", "DELETE", 403),
        ("opal", "GET", 200),
    ],
)
def test_who_may_see_and_who_may_start_a_shadow(
    served: Served, who: str, method: str, status_code: int
) -> None:
    headers = {"Authorization": f"Bearer {secret_of(who)}"}
    answer = served.http.request(method, "/v1/policy/shadow", headers=headers)
    assert answer.status_code == status_code


@pytest.mark.req("POL-09")
def test_a_search_starts_from_recorded_calls_and_says_so(
    served: Served, candidate: Path, log: list[str], tmp_path: Path
) -> None:
    options = ["--config", str(served.site.path), "--recorded", *log, "--out", str(tmp_path / "x")]
    sentence = "no agent can call stub.masked"
    result = run("search", str(candidate), *options, "-s", sentence, "--tries", "300")
    assert result.exit_code == Exit.TEST_FAILED, result.output
    assert "stub.masked" in result.stdout
    none = run(
        *("search", str(candidate), *options, "--tries", "40"),
        *("-s", "no agent can call stub.forbidden"),
    )
    assert none.exit_code == Exit.OK, none.output
    assert "from 0 recorded calls" not in none.stdout
    assert "in endtoend" in none.stdout
    assert "no record says" in none.stderr
