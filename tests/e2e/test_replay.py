"""Every decision of a gateway's log is recomputed, and every change of it is found (AUD-05)."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import orjson
import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import find_records
from gateway.adapters.audit.audit_reader import read_records
from gateway.adapters.audit.audit_values import ValueReader
from gateway.adapters.policy.policy_bundle import build_revision, find_rego_root
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.core.log.audit_filter import Filter, Selection
from gateway.core.records.replay import is_decided
from tests.e2e.conftest import Build, Start
from tests.e2e.processes import eventually
from tests.e2e.served import Served

pytestmark = pytest.mark.req("AUD-05")

OBLIGE = """
obligation contains {"type": "redact", "pointers": ["/secret"]} if {
	input.phase in {"call", "resume"}
	input.resource.id in {"stub.echo", "stub.brief"}
}

deny contains {"code": "not_today"} if {
	input.phase == "call"
	input.resource.id == "stub.masked"
}
"""
RESULTS = """# METADATA
# custom:
#   applies_to:
#     tools: [stub.echo]
#     phases: [result]
package policies.house_results

obligation contains {"type": "add_label", "labels": ["echoed"]}

deny contains {"code": "not_this"} if {
	some text in input.context.result.text
	contains(text, "withhold me")
}
"""
CHANGED_MIND = """
deny contains {"code": "no_longer"} if {
	input.phase == "resume"
	is_string(input.context.args.body)
	contains(input.context.args.body, "too late")
}
"""
TOOL = ["house:house_tool"]
Json = dict[str, Any]


class Log:
    """A copy of a log that may be tampered with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.audit = folder, folder / "audit"

    def replay(self, *options: str) -> Result:
        return run("--config", str(self.folder / "countersign.yaml"), *options)

    def counts(self, *options: str) -> Json:
        """Return what `-o json` prints."""
        found: Json = json.loads(self.replay("-o", "json", *options).stdout)
        return found

    def records(self, kind: str) -> list[Json]:
        return [record for record in read_records(self.audit) if record["type"] == kind]

    def rewrite(self, seq: int, change: Json) -> None:
        """Change members of a record, as somebody with the disk could."""
        for segment in list_segments(self.audit):
            lines = segment.read_bytes().splitlines()
            for number, line in enumerate(lines):
                if b'"seq":%d,' % seq in line:
                    record = {**orjson.loads(line), **change}
                    lines[number] = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
            segment.write_bytes(b"\n".join(lines) + b"\n")

    def bundle_of(self, seq: int) -> Path:
        record = next(read_records(self.audit, first=seq))
        rev: str = record["policy"]["rev"]
        return self.audit / "bundles" / rev.removeprefix("sha256:")

    def change_openings(self, seq: int, change: Any) -> None:  # noqa: ANN401 - bytes → bytes
        """Change the lines of one record's openings."""
        for file in list_segments(self.audit / "openings"):
            lines = file.read_bytes().splitlines()
            found = [
                change(line) if line.startswith(b'{"seq":%d,' % seq) else line for line in lines
            ]
            file.write_bytes(b"\n".join(line for line in found if line) + b"\n")


def run(*options: str) -> Result:
    return CliRunner().invoke(build("audit"), ["audit", "replay", *options])


@pytest.fixture(scope="module")
def played(build_site: Build, start_here: Start) -> Served:
    """A gateway that has decided all it can decide, before and after a change, and has stopped."""
    site = build_site(dev=True)
    site.settings["clients"][0]["humans"] = ["olga", "pavel"]
    site.write()
    served = start_here(site, step="never").wait_ready()
    decide_everything(served)
    assert served.stop() == 0
    return served


@pytest.fixture
def log(played: Served, tmp_path: Path) -> Log:
    """A copy of that gateway's folder."""
    folder = tmp_path / "site"
    shutil.copytree(played.site.folder, folder)
    return Log(folder)


def decide_everything(served: Served) -> None:
    """Let policy and ledger permit, deny, hold and oblige, under two bundles."""
    package = served.site.policies / "house.rego"
    for round_ in range(2):
        if round_:
            package.with_name("house_results.rego").write_text(RESULTS)
            notes = package.with_name("house_notes.rego")
            notes.write_text(notes.read_text() + CHANGED_MIND)
            package.write_text(package.read_text() + OBLIGE)
            eventually(lambda: has_all(served), "all of it is active")
        agent = served.agent(on_behalf_of="olga")
        agent.call("stub__echo", {"value": "canary ü \u2028"})
        agent.call("stub__masked")
        agent.call("stub__forbidden")
        agent.call("acme__refunds_create", {"order_id": "o", "reason": "r", "amount_cents": 101})
        agent.hold("stub__transfer", {"to": "canary", "amount": 5})
        agent.hold("stub__brief", {"value": "canary"})
    echoes = served.agent()
    assert echoes.call("stub__echo", {"value": "withhold me"}).code == "result_withheld"
    assert echoes.call("stub__echo", {"value": "plain"}).result
    once = served.agent(grants=[{"server": "stub", "tool": "echo", "max_calls": 1}])
    assert once.call("stub__echo").result
    assert once.call("stub__echo").code == "calls_exhausted"
    agent = served.agent(on_behalf_of="pavel")
    held = agent.hold("acme__notes_add", {"customer_id": "cus_1005", "body": "held: canary"})
    served.person("dana").vote(held)
    agent.status(held, wait_seconds=20)
    late = agent.hold("acme__notes_add", {"customer_id": "cus_1005", "body": "held: too late"})
    served.person("dana").vote(late)
    agent.status(late, wait_seconds=20)
    nobody = served.http.post("/v1/runs", auth=("launcher", "wrong"), json={"agent": "helper"})
    assert nobody.status_code == 401


def has_all(served: Served) -> bool:
    """Whether the newest bundle has everything that the second round changes."""
    bundles = served.site.audit / "bundles"
    active = bundles / served.records("policy.activate")[-1]["rev"].removeprefix("sha256:")
    texts = "".join(path.read_text() for path in active.rglob("*.rego"))
    return all(part in texts for part in (RESULTS, CHANGED_MIND, OBLIGE))


@pytest.mark.req("POL-01")
def test_every_decision_of_a_gateway_is_recomputed_and_none_differs(log: Log) -> None:
    result = log.replay()
    assert result.exit_code == Exit.OK, result.output
    found = log.counts()
    assert found["agreed"] == found["decisions"] - found["gateway"]
    assert found["decisions"] >= 20
    assert found["reasons"] == [
        {
            "kind": "gateway",
            "what": "policy permits; the gateway refused: `calls_exhausted`",
            "count": 1,
        }
    ]
    seen = {
        (record["type"], record["decision"]["outcome"])
        for record in read_records(log.audit)
        if isinstance(record.get("decision"), dict)
    }
    assert seen >= {
        ("call.intent", "permit"),
        ("call.refused", "deny"),
        ("call.outcome", "permit"),
        ("call.outcome", "deny"),
        ("approval.request", "hold"),
        ("approval.stale", "deny"),
        ("run.create", "permit"),
        ("token.issue", "permit"),
    }
    assert any("approval" in record for record in log.records("call.intent"))
    for kind in ("call.intent", "approval.request"):
        assert any("obligations" in record["decision"] for record in log.records(kind))
    assert "canary" not in result.output


@pytest.mark.req("POL-01")
def test_every_input_that_a_gateway_decided_on_fits_the_published_schema(log: Log) -> None:
    schema = orjson.loads((find_rego_root() / "schemas" / "input.v1.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)
    kek = load_or_create_kek(log.folder / "keys" / "kek")
    vault = Vault(log.audit / "openings" / "keys", kek, "", Files())
    found = Counter[str]()
    values = ValueReader(log.audit, vault)
    for item in find_records(log.audit, Selection(Filter())):
        if is_decided(item.record):
            opened = values.open(item.record, item.segment, "policy.input").opened
            assert opened is not None
            document = orjson.loads(opened)
            assert [str(error) for error in validator.iter_errors(document)] == []
            found[document["phase"]] += 1
    assert set(found) == {"issue", "call", "result", "resume"}


@pytest.mark.req("POL-02")
def test_labels_that_a_result_added_are_in_the_log_and_in_the_next_input(log: Log) -> None:
    labelled = [r for r in log.records("call.outcome") if "labels" in r]
    assert labelled
    assert {(*r["labels"], r["decision"]["outcome"]) for r in labelled} == {("echoed", "permit")}


CHANGES: Final[list[tuple[str, int, Json, str]]] = [
    ("call.intent", 0, {"outcome": "deny", "reasons": TOOL}, "outcome"),
    ("call.intent", 1, {"outcome": "permit", "reasons": ["house:other"]}, "reasons"),
    ("call.intent", 2, {"outcome": "permit", "reasons": TOOL, "obligations": []}, "obligations"),
    ("call.refused", 0, {"outcome": "permit", "reasons": []}, "outcome"),
    ("approval.request", 0, {"outcome": "deny", "reasons": ["house:two_people"]}, "outcome"),
    ("run.create", 0, {"outcome": "deny", "reasons": []}, "outcome"),
    ("token.issue", 0, {"outcome": "hold", "reasons": []}, "outcome"),
]
"""Type of a record, its place among those, and the decision that it is made to tell."""


def test_each_decision_that_was_changed_is_found(log: Log) -> None:
    expected = set()
    for kind, place, decision, what in CHANGES:
        record = [r for r in log.records(kind) if "decision" in r][place]
        log.rewrite(record["seq"], {"decision": decision})
        expected.add((record["seq"], kind, record["op"], what))
    result = log.replay("-o", "jsonl")
    assert result.exit_code == Exit.VERIFICATION_FAILED
    *found, summary = (json.loads(line) for line in result.stdout.splitlines())
    told = {(item["seq"], item["type"], item["op"], item["what"].split(":")[0]) for item in found}
    assert told == expected
    assert summary["summary"]["differs"] == len(CHANGES)


def test_an_intent_let_through_by_people_must_be_the_one_they_agreed_to(log: Log) -> None:
    resumed = next(r for r in log.records("call.intent") if "approval" in r)
    log.rewrite(resumed["seq"], {"approval": "another"})
    assert "approval: recorded `another`" in log.replay("--op", resumed["op"]).stdout


def test_a_held_call_says_who_had_to_agree(log: Log) -> None:
    held = log.records("approval.request")[0]
    log.rewrite(held["seq"], {"spec": "sha256:" + "0" * 64})
    assert "approval spec: recorded" in log.replay("--op", held["op"]).stdout


def test_a_call_denied_by_policy_is_not_the_ledgers(log: Log) -> None:
    denied = next(r for r in log.records("call.refused") if r["reason"] == "house_forbids")
    decision = {"outcome": "deny", "reasons": ["calls_exhausted"]}
    log.rewrite(denied["seq"], {"decision": decision})
    assert log.counts("--op", denied["op"])["differs"] == 1


def test_a_bundle_that_was_changed_decides_nothing(log: Log) -> None:
    first = log.records("run.create")[0]
    house = log.bundle_of(first["seq"]) / "policies" / "house.rego"
    house.write_text(house.read_text().replace("house_tool", "house_toll"))
    found = log.replay("-o", "jsonl")
    assert found.exit_code == Exit.VERIFICATION_FAILED
    told = [json.loads(line) for line in found.stdout.splitlines()]
    summary = told.pop()["summary"]
    assert summary["altered"] == len(told) > 5
    assert summary["agreed"] > 5
    assert all("policy_bundle_altered" in item["what"] for item in told)


def test_a_bundle_put_in_the_place_of_another_gives_other_decisions(log: Log) -> None:
    """Whoever changes the bundle and its name everywhere finds that the decisions do not fit."""
    first = log.records("call.intent")[0]
    old = log.bundle_of(first["seq"])
    house = old / "policies" / "house.rego"
    house.write_text(house.read_text().replace('"house_tool"', '"house_toll"'))
    files = [
        (path.relative_to(old).as_posix(), path.read_bytes())
        for path in old.rglob("*")
        if path.is_file() and path.name != ".manifest"
    ]
    rev = build_revision(files)
    old.rename(old.with_name(rev.removeprefix("sha256:")))
    log.rewrite(first["seq"], {"policy": {**first["policy"], "rev": rev}})
    result = log.replay("--op", first["op"])
    assert result.exit_code == Exit.VERIFICATION_FAILED
    assert "recorded `house:house_tool`, recomputed `house:house_toll`" in result.stdout


def test_a_bundle_that_is_gone_leaves_its_decisions_unreplayable(log: Log) -> None:
    shutil.rmtree(log.bundle_of(log.records("call.intent")[0]["seq"]))
    result = log.replay()
    assert result.exit_code == Exit.OK
    assert re.search(r"unreplayable +[1-9]", result.stdout)
    assert "policy_bundle_missing" in result.stdout
    assert log.replay("--fail-on-change").exit_code == Exit.VERIFICATION_FAILED


def test_an_opening_that_was_changed_is_found(log: Log) -> None:
    intent = log.records("call.intent")[0]
    seq = intent["seq"]
    log.change_openings(seq, lambda line: line.replace(b'"ct":"', b'"ct":"AAAA'))
    result = log.replay("--op", intent["op"])
    assert result.exit_code == Exit.VERIFICATION_FAILED
    assert f"altered at record {seq}" in result.stdout


def test_an_opening_that_is_gone_is_lost_and_no_difference(log: Log) -> None:
    log.change_openings(log.records("call.intent")[0]["seq"], lambda _line: b"")
    result = log.replay("-o", "json", "--tool", "stub.echo")
    found = json.loads(result.stdout)
    assert (found["lost"], found["differs"], found["altered"]) == (1, 0, 0)
    assert found["agreed"] > 1
    assert result.exit_code == Exit.OK


def test_what_was_erased_is_counted_apart_and_the_rest_agrees(log: Log) -> None:
    before = log.counts()
    words = ("--subject", "olga", "--basis", "request", "--reason", "she asked", "--offline")
    config = str(log.folder / "countersign.yaml")
    done = CliRunner().invoke(build("audit"), ["audit", "redact", *words, "--config", config])
    assert done.exit_code == Exit.OK, done.output
    found = log.counts("--fail-on-change")
    assert found["erased"] > 5
    assert found["agreed"] + found["erased"] == before["agreed"]
    assert {reason["what"] for reason in found["reasons"]} >= {"its subject's key is gone"}


def test_a_log_is_replayed_by_its_parts_alone(log: Log) -> None:
    kek, bundles = str(log.folder / "keys" / "kek"), log.folder / "elsewhere"
    (log.audit / "bundles").rename(bundles)
    (log.folder / "countersign.yaml").unlink()
    result = run("--dir", str(log.audit), "--kek", kek, "--bundles", str(bundles), "--since", "1d")
    assert result.exit_code == Exit.OK, result.output
    assert "no record says" in result.stderr
    limited = run(
        *("--dir", str(log.audit), "--kek", kek, "--bundles", str(bundles)),
        *("--tool", "stub.echo", "--limit", "2", "-o", "jsonl"),
    )
    assert json.loads(limited.stdout)["summary"]["decisions"] == 2


def test_another_key_opens_nothing_and_does_not_agree(log: Log) -> None:
    wrong = log.folder / "wrong"
    wrong.write_text("00" * 32)
    wrong.chmod(0o600)
    found = json.loads(run("--dir", str(log.audit), "--kek", str(wrong), "-o", "json").stdout)
    assert found["lost"] == found["decisions"] > 0
    assert run("--dir", str(log.audit), "--kek", str(wrong)).exit_code == Exit.ERROR


def test_wrong_usage_is_told(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == Exit.USAGE
    assert run("--dir", str(log.audit)).exit_code == Exit.USAGE
    assert run("--dir", str(log.audit), "--kek", "nowhere").exit_code == Exit.USAGE
    assert log.replay("--since", "tomorrow").exit_code == Exit.USAGE
    kek = str(log.folder / "keys" / "kek")
    assert run("--dir", str(tmp_path), "--kek", kek).exit_code == Exit.NOT_FOUND
    assert log.replay("--op", "nothing").exit_code == Exit.NOT_FOUND
