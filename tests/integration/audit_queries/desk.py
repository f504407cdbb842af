"""A log as a gateway writes it, in segments, with openings of several people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.cli import build
from gateway.core.calls.call import Intent, Outcome
from gateway.core.entry import Entry, Opening
from gateway.core.records.audit_admin import build_redact
from tests.fixed import FixedClock
from tests.patience import PATIENT

ORIGIN: Final = "gateway.example.com/audit"
T0: Final = 1_700_000_000
Json = dict[str, Any]


class QuickFiles(Files):
    """A disk that does not wait for the platter."""

    def sync(self, descriptor: int) -> None:
        """Nothing here outlives the machine."""

    def sync_directory(self, path: Path) -> None:
        """As `sync`."""


class Desk:
    """A folder with a log, the key to its openings, and what is told of both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.audit, self.kek = folder, folder / "audit", folder / "kek"
        self.clock = FixedClock(T0)
        self.signer = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

    def open(self, **changes: object) -> FileAuditLog:
        settings: dict[str, Any] = {
            "origin": ORIGIN,
            "signer": self.signer,
            "kek": load_or_create_kek(self.kek),
            "clock": self.clock,
            "limits": PATIENT,
            "deployment": {},
            "files": QuickFiles(),
            "segment_max_bytes": 4_096,
            **changes,
        }
        return FileAuditLog.open(self.audit, **settings)

    async def play(self, rounds: int = 6, **changes: object) -> None:
        """Log a few calls of two agents for two people, and votes."""
        log = self.open(**changes)
        await log.start()
        for number in range(rounds):
            await self.call(log, number)
            self.clock.now_s += 1
            await log.record(refused(number))
            await log.record(vote(number))
            self.clock.now_s += 1
        await log.close()

    async def erase(self, subject: str, **changes: object) -> None:
        """Erase somebody, as an admin does."""
        log = self.open(**changes)
        await log.start()
        key_id = log.key_id(subject)
        entry = build_redact(
            "redact", by="root", key_id=key_id, basis="request", openings=1, reason="asked"
        )
        await log.redact(entry, key_id)
        await log.close()

    async def call(self, log: FileAuditLog, number: int) -> None:
        """Log an intent and its outcome a second later."""
        nothing = cast("Any", None)
        agent, human = ("bot", "alice") if number % 2 == 0 else ("clerk", "bob")
        entry = Entry(
            type="call.intent",
            op=f"op-{number}",
            fields={**call_of(agent, "shop.refund"), **decided("permit", "shop:small")},
            openings=(
                Opening("policy.input", b'{"phase":"call"}', human),
                Opening("args", orjson.dumps({"to": f"secret of {human}"}), human),
            ),
        )
        recorded = await log.record_intent(
            Intent(
                resolved=nothing,
                decision=nothing,
                entry=entry,
                idempotency_key="",
                deadline_ms=1,
                find_stop=lambda: None,
            )
        )
        self.clock.now_s += 1
        fields = {"intent": recorded.seq, "status": "ok", "delivery": "sent", "latency_us": 1}
        end = Entry(type="call.outcome", op=entry.op, fields=fields)
        await log.record_outcome(Outcome(intent=recorded, status="ok", delivery="sent", entry=end))

    def lines(self) -> list[bytes]:
        """Return the records' lines, as they stand."""
        return [
            line
            for segment in list_segments(self.audit)
            for line in segment.read_bytes().splitlines()
            if not line.startswith(b'{"cp":')
        ]

    def records(self) -> list[Json]:
        return [orjson.loads(line) for line in self.lines()]


def call_of(agent: str, tool: str) -> Json:
    return {
        "actor": {"agent": agent, "client": "launcher", "run": f"run-of-{agent}", "depth": 0},
        "tool": {"id": tool, "server": "shop", "def": "sha256:00", "effect": "money"},
    }


def decided(outcome: str, *reasons: str) -> Json:
    return {"decision": {"outcome": outcome, "reasons": list(reasons)}, "policy": {"rev": "r"}}


def refused(number: int) -> Entry:
    fields = {"stage": "decide", "reason": "large", "count": 1, **call_of("bot", "shop.pay")}
    openings = (Opening("args", b"{}", "carol"),)
    return Entry(
        type="call.refused",
        op=f"no-{number}",
        fields={**fields, **decided("deny", "shop:large", "=1+1")},
        openings=openings,
    )


def vote(number: int) -> Entry:
    openings = (Opening("voter", b"dana", "dana"), Opening("reason", b"fine", "dana"))
    fields = {"approval": f"a{number}", "decision": "approve", "agent": "bot", "run": "run-of-bot"}
    return Entry(type="approval.vote", op=f"held-{number}", fields=fields, openings=openings)


def audit(*words: str | Path, env: dict[str, str] | None = None) -> Result:
    """Run `countersign audit …`."""
    return CliRunner().invoke(build("audit"), ["audit", *map(str, words)], env=env)
