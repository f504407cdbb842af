"""docs/replay.md: what its examples print is what the commands print."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.system import SystemClock
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.core.approvals.approval import spec_digest
from gateway.core.entry import Entry, Opening
from gateway.core.policy.asked import read_asked
from gateway.core.policy.decision import Decision, Deny, Hold
from gateway.core.policy.sentences import TEMPLATES, read_sentence
from gateway.core.policy.statement import read_statement
from gateway.core.records.audit_admin import build_redact
from gateway.core.records.call_records import build_decision
from tests.patience import PATIENT

PAGE: Final = Path(__file__).parents[3] / "docs" / "replay.md"
KEK: Final = bytes(32)
BEFORE: Final = """package policies.refunds

amount := input.context.args.amount_cents if {
	input.phase == "call"
	is_number(input.context.args.amount_cents)
}

permit contains {"code": "refund"} if amount <= 50000

hold contains {"code": "ask_first"} if amount > 10000

deny contains {"code": "too_large"} if amount > 50000
"""
"""What decided in the week of the example."""

WEEK: Final = [
    ("support", 1_000),
    ("support", 4_000),
    ("night", 5_000),
    ("support", 6_000),
    ("support", 9_000),
    ("night", 20_000),
    ("support", 30_000),
    ("night", 40_000),
    ("support", 45_000),
]
ERASED: Final = ("olga", 2_000)


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def write(folder: Path, source: str, name: str, server: str) -> Path:
    folder.mkdir()
    (folder / f"{name}.rego").write_text(source)
    (folder / "authority.json").write_text(json.dumps({"policies": {name: [server]}}))
    return folder


def run(*options: str) -> Result:
    return CliRunner().invoke(build("policy"), ["policy", *options])


# --- replay ---


def question(agent: str, amount: int) -> bytes:
    document: dict[str, Any] = orjson.loads(build_sample("call"))
    document["subject"]["id"] = agent
    document["resource"] |= {"id": "shop.refund", "server": "shop", "effect": "money"}
    document["context"]["args"] = {"amount_cents": amount}
    return orjson.dumps(document)


def entry(number: int, document: bytes, decision: Decision, subject: str) -> Entry:
    fields: dict[str, Any] = {
        "decision": build_decision(decision),
        "policy": {"rev": decision.revision},
    }
    kind = "call.refused" if isinstance(decision, Deny) else "call.intent"
    if isinstance(decision, Hold):
        kind, fields["spec"] = "approval.request", spec_digest(decision.approval)
    openings = (Opening("policy.input", document, subject),)
    return Entry(type=kind, op=f"refund-{number:02d}", fields=fields, openings=openings)


async def record(folder: Path, bundle: Bundle) -> None:
    """Write the log of the week."""
    log = FileAuditLog.open(
        folder,
        origin="shop.example/audit",
        signer=Ed25519PrivateKey.from_private_bytes(bytes(32)),
        kek=KEK,
        clock=SystemClock(),
        limits=PATIENT,
        deployment={},
    )
    candidate = Candidate(bundle)
    await candidate.start()
    await log.start()
    for number, (agent, amount) in enumerate([*WEEK, ERASED]):
        document = question(agent, amount)
        (decision,) = await candidate.decide([read_asked(document)])
        assert not isinstance(decision, str)
        subject = "olga" if agent == "olga" else "owner"
        await log.record(entry(number, document, decision, subject))
    key_id = log.key_id("olga")
    redact = build_redact(
        "redact", by="root", key_id=key_id, basis="request", openings=1, reason="she asked"
    )
    await log.redact(redact, key_id)
    await log.close()
    await candidate.stop()


@pytest.mark.req("POL-08")
def test_the_impact_on_the_page_is_what_replay_prints(tmp_path: Path) -> None:
    audit, kek = tmp_path / "audit", tmp_path / "kek"
    bundle = build_bundle(
        {"refunds.rego": BEFORE}, {"authority": {"policies": {"refunds": ["shop"]}}}
    )
    asyncio.run(record(audit, bundle))
    kek.write_text(KEK.hex())
    kek.chmod(0o600)
    candidate = write(tmp_path / "candidate", blocks("rego")[0], "refunds", "shop")
    result = run("replay", str(candidate), "--dir", str(audit), "--kek", str(kek))
    assert result.exit_code == Exit.OK, result.output
    revision, told = result.stdout.split("\n", 1)
    assert revision.startswith("candidate  sha256:")
    assert told == blocks("text")[0]


# --- search ---


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    (tmp_path / "bank.yaml").write_text(blocks("yaml")[0])
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}}
    tools = [{"name": "pay", "inputSchema": schema}]
    (tmp_path / "bank.json").write_text(json.dumps({"tools": tools}))
    return tmp_path


def search(bank: Path, source: str) -> Result:
    policies = write(bank / "policies", source, "payments", "bank")
    return run(
        *("search", str(policies), "--manifest", str(bank / "bank.yaml")),
        *("--definitions", f"bank={bank / 'bank.json'}", "--out", str(bank / "out")),
        *("-s", "no agent can move more than 10,000 in a run without a hold", "--tries", "1500"),
    )


@pytest.mark.req("POL-09")
def test_the_counterexample_on_the_page_is_what_the_search_finds(bank: Path) -> None:
    result = search(bank, blocks("rego")[1])
    assert result.exit_code == Exit.TEST_FAILED, result.output
    told = [
        line for line in result.stdout.splitlines() if not line.startswith(("  run", "  count"))
    ]
    assert told == blocks("text")[1].splitlines()


@pytest.mark.req("POL-09")
def test_once_the_policies_of_the_page_add_up_none_is_found(bank: Path) -> None:
    result = search(bank, blocks("rego")[2])
    assert result.exit_code == Exit.OK, result.output
    assert result.stdout.splitlines()[0] == blocks("text")[2].strip()


@pytest.mark.req("POL-09")
def test_the_page_names_every_sentence_and_its_statements_are_understood() -> None:
    assert tuple(blocks("text")[3].splitlines()) == TEMPLATES
    statements = read_yaml(blocks("yaml")[1])["statements"]
    for number, each in enumerate(statements):
        if isinstance(each, str):
            read_sentence(each, str(number))
        elif "text" in each:
            read_sentence(each["text"], each["id"])
        else:
            assert read_statement(each, "x").outcomes == {"permit", "approved"}


def read_yaml(text: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return found
