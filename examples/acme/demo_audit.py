"""The demo's last act: what the audit log says, and how little it takes to be found out."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Final

from examples.acme.demo_agent import RECIPIENTS
from examples.acme.demo_ground import Ground
from examples.acme.demo_processes import VERIFICATION_FAILED, Finished, Processes, countersign
from examples.acme.demo_telling import Telling

IN_ORDER: Final = (
    "approval.request",
    "approval.vote",
    "approval.grant",
    "call.intent",
    "call.outcome",
)
"""What an approved call leaves in the log."""

AMOUNT: Final = b'"acme.refunds_create#/amount_cents":"42000"'
REASON: Final = "torn seam, photos seen"
"""What the approver says. The log holds a commitment to it, not the words."""


async def tell_audit(tell: Telling, ground: Ground, processes: Processes, token: str) -> None:
    """Act 7: the log is valid, tells the whole story, and does not survive one changed byte."""
    tell.act("What an auditor finds")
    tell.say(
        "`countersign audit verify .../audit --vkey KEY`, the key kept where no gateway writes:"
    )
    operation = next((row[2] for row in ground.refunds("ord_5002")), "none")
    good, records = await asyncio.gather(
        _verify(ground, ground.audit),
        countersign("audit", "show", str(ground.audit), operation, "-o", "jsonl"),
    )
    tell.show(line for line in good.out.splitlines() if line.startswith(("records", "valid")))
    tell.check("the log verifies", good.code == 0 and "valid: every record" in good.out, good)
    _tell_refund(tell, records, operation)
    _tell_secrecy(tell, ground, processes, token)
    await _tell_tampering(tell, ground)


async def _verify(ground: Ground, log: Path) -> Finished:
    return await countersign("audit", "verify", str(log), "--vkey", str(ground.vkey))


def _tell_refund(tell: Telling, records: Finished, operation: str) -> None:
    """The operation id that Acme's database keeps beside the refund leads to its records."""
    found = [json.loads(line) for line in records.out.splitlines()]
    tell.check(
        "the operation id beside Acme's refund row leads to its records, in this order:",
        tuple(record["type"] for record in found) == IN_ORDER,
        (operation, [record["type"] for record in found], records.last_error),
    )
    first = found[0]["ts"] if found else 0
    tell.show(
        f"#{record['seq']:<3} {(record['ts'] - first) / 1_000_000:6.3f} s  {record['type']:<17}"
        f" {_gist(record)}"
        for record in found
    )


def _gist(record: dict[str, object]) -> str:
    decision = record.get("decision")
    if isinstance(decision, dict):
        return f"{decision['outcome']}: {', '.join(decision['reasons'])}"
    told = ("decision", "state", "status", "delivery")
    return ", ".join(str(record[name]) for name in told if name in record)


def _tell_secrecy(tell: Telling, ground: Ground, processes: Processes, token: str) -> None:
    chain = b"".join(path.read_bytes() for path in sorted(ground.audit.glob("*.jsonl"))).decode()
    kept = (ground.secret(path.name) for path in ground.secret_file("").iterdir())
    secrets = [token, *(secret.rpartition(":")[2] for secret in kept)]
    personal = [*RECIPIENTS, REASON, "dana", "archive@collector.example", "damaged"]
    leaked = [word for word in (*secrets, *personal) if word in chain]
    tell.check(
        "it holds no address, no argument text, no approver's name or words: only commitments",
        not leaked,
        leaked,
    )
    said = [word for word in (*secrets, *personal) if word in processes.said("gateway")]
    tell.check("nor does the gateway's own log on stderr hold any, or a secret", not said, said)


async def _tell_tampering(tell: Telling, ground: Ground) -> None:
    """One digit of one amount in a copy; the original is not touched."""
    copy = ground.folder / "audit-tampered"
    shutil.copytree(ground.audit, copy, ignore=shutil.ignore_patterns("LOCK"))
    changed = _change_one_byte(copy)
    bad, good = await asyncio.gather(_verify(ground, copy), _verify(ground, ground.audit))
    tell.say("In a copy, somebody makes the 420.00 EUR 120.00: one byte.")
    tell.show(bad.out.splitlines())
    tell.check(
        f"verification says what and where, and exits with {bad.code}",
        changed and bad.code == VERIFICATION_FAILED and "edited at record" in bad.out,
        (changed, bad),
    )
    tell.check("the original still verifies", good.code == 0, good)


def _change_one_byte(log: Path) -> bool:
    """Whether the amount was found, and so changed."""
    for segment in sorted(log.glob("*.jsonl")):
        content = bytearray(segment.read_bytes())
        found = content.find(AMOUNT)
        if found >= 0:
            content[found + AMOUNT.index(b"42000")] = ord("1")
            segment.write_bytes(content)
            return True
    return False
