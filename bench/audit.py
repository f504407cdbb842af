"""The audit log alone: what a record costs, what group commit gains, how fast a log is checked.

Everything here runs in this process, in the keeper of its log or in one verifier at a time, on the
disk of the checkout.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from bench.processes import ROOT, MeasurementError, read_usage
from gateway.adapters.audit.audit_builder import RecordBuilder
from gateway.adapters.audit.audit_files import Files, segment_name
from gateway.adapters.audit.audit_seek import find_line
from gateway.adapters.audit.audit_tiles import TileReader, TileWriter
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.system import SystemClock
from gateway.core.calls.call import Intent, Outcome
from gateway.core.entry import Entry, Opening, Receipt
from gateway.core.limits import Limits
from gateway.core.log import note
from gateway.core.log.chain import PROFILE, Chain
from gateway.core.log.merkle import hash_leaf, inclusion_proof, is_included, root_of

ORIGIN: Final = "bench.example/audit"
MANY: Final = 64
"""Callers at once."""

VERIFIER: Final = ROOT / "verify" / "countersign_verify.py"
_BATCH: Final = 64
_SEGMENT_MAX_BYTES: Final = 67_108_864
_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_REVISION: Final = "sha256:" + "1" * 64
_INPUT: Final = orjson.dumps({"version": 1, "phase": "call", "filler": "x" * 1_300})
_ARGUMENTS: Final = b'{"amount_cents":1250,"currency":"EUR","order_id":"ord_500123"}'
_RESULT: Final = orjson.dumps({"content": [{"type": "text", "text": "y" * 420}]})


class AuditPlan(Struct, frozen=True):
    """How long to write, in seconds for each turn, and how many records to check."""

    write_s: float
    records: int


def measure_audit(folder: Path, plan: AuditPlan) -> dict[str, float | int]:
    """Return the figures under flat keys. `folder` is empty and on the disk to be measured.

    Raises `MeasurementError` when the verifier does not find the log valid.
    """
    folder.mkdir(parents=True)
    one = asyncio.run(_write(folder / "one", 1, plan.write_s))
    many = asyncio.run(_write(folder / "many", MANY, plan.write_s))
    results: dict[str, float | int] = {
        "audit_records_per_s_1": round(one[0]),
        "audit_records_per_s_64": round(many[0]),
        "audit_group_commit_gain": round(many[0] / one[0], 1),
        "audit_cpu_us_per_record": round(many[1], 1),
    }
    directory = folder / "long"
    build_log(directory, plan.records)
    fast = _verify([sys.executable], directory, plan.records)
    bare = _verify([sys.executable, "-I", "-S"], directory, plan.records)
    return {
        **results,
        "verified_records": plan.records,
        "verified_per_s": round(fast[0]),
        "verified_per_s_stdlib": round(bare[0]),
        "verifier_rss_mb": round(max(fast[1], bare[1]), 1),
        "proof_ms": round(_prove(directory, plan.records), 2),
    }


async def _write(directory: Path, callers: int, seconds: float) -> tuple[float, float]:
    """Return records/s, and µs of CPU a record, of calls that wait for intent and outcome.

    CPU is that of this process, which asks, and of the one that keeps the log.
    """
    log = FileAuditLog.open(
        directory,
        origin=ORIGIN,
        signer=_KEY,
        kek=bytes(32),
        clock=SystemClock(),
        limits=Limits(audit_wait_ms=20_000),  # a stall is measured, not refused
        deployment={},
    )
    await log.start(apart=True)
    assert log.keeper_pid is not None
    keeper = log.keeper_pid
    end = time.monotonic() + seconds
    before, cpu = log.size, time.process_time() + read_usage([keeper]).cpu_s

    async def call(number: int) -> None:
        while time.monotonic() < end:
            op = f"{number:032x}"
            recorded = await log.record_intent(_intent(op))
            entry = _outcome(op, recorded.seq)
            await log.record_outcome(
                Outcome(intent=recorded, status="ok", delivery="sent", entry=entry)
            )

    await asyncio.gather(*(call(number) for number in range(callers)))
    records = log.size - before
    used = time.process_time() + read_usage([keeper]).cpu_s - cpu
    await log.close()
    return records / seconds, used / records * 1e6


def _intent(op: str) -> Intent:
    nothing = cast("Any", None)
    return Intent(
        resolved=nothing,
        decision=nothing,
        entry=_intent_entry(op),
        idempotency_key=op,
        deadline_ms=1_000,
        find_stop=lambda: None,
    )


def _intent_entry(op: str) -> Entry:
    fields = {
        "actor": {
            "agent": "agent-7",
            "client": "crm",
            "run": "r",
            "root": "r",
            "jti": "j",
            "depth": 0,
        },
        "tool": {
            "id": "bench.refund",
            "server": "bench",
            "def": "sha256:" + "0" * 64,
            "effect": "money",
        },
        "decision": {"outcome": "permit", "reasons": ["refunds:small"]},
        "charge": {"family": "r", "tool": "bench.refund", "sums": {"/amount_cents": "1250"}},
        "policy": {"rev": _REVISION},
        "surface": "mcp",
    }
    openings = (Opening("policy.input", _INPUT, "owner"), Opening("args", _ARGUMENTS, "owner"))
    return Entry(type="call.intent", op=op, fields=fields, openings=openings)


def _token() -> Entry:
    fields = {
        "agent": "agent-7", "client": "crm", "run": "r", "root": "r", "jti": "j",
        "scopes": ["tools:call"], "allow": [{"server": "bench", "tool": "*"}],
        "exp": int(time.time()) + 300, "decision": {"outcome": "permit", "reasons": []},
        "policy": {"rev": _REVISION},
    }  # fmt: skip
    return Entry(type="token.issue", op="t", fields=fields)


def _outcome(op: str, seq: int) -> Entry:
    fields = {"intent": seq, "status": "ok", "delivery": "sent", "latency_us": 1_234}
    return Entry(
        type="call.outcome", op=op, fields=fields, openings=(Opening("result", _RESULT, "owner"),)
    )


def build_log(directory: Path, records: int) -> None:
    """Write a log of `records` records with its tiles, without waiting for the disk."""
    directory.mkdir()
    key = note.build_key(ORIGIN, _KEY.public_key())
    builder = RecordBuilder(
        chain=Chain(ORIGIN),
        boot="b" * 32,
        key=key,
        signer=_KEY,
        record_max_bytes=16_384,
    )
    vkey = note.build_vkey(key)
    (directory / "log.vkey").write_text(vkey + "\n")
    tiles = TileWriter(directory, Files(), full=[], edges=[])

    def add(entry: Entry) -> Receipt:
        return builder.add(entry, time.time_ns() // 1000)

    add(Entry(type="genesis", op="b", fields={"profile": PROFILE, "key": vkey, "deployment": {}}))
    add(Entry(type="boot", op="b" * 32, fields={"key": vkey, "cut": None, "open_intents": 0}))
    add(Entry(type="policy.activate", op="p", fields={"rev": _REVISION, "packages": []}))
    add(_token())
    written, last = 4, ""
    segment = (directory / segment_name(0)).open("wb")
    while written < records:
        for number in range(written, min(written + _BATCH, records), 2):
            op = f"{number:032x}"
            receipt = add(_intent_entry(op))
            add(_outcome(op, receipt.seq))
            written += 2
        batch = builder.seal()
        segment.write(batch.data)
        tiles.add(batch.leaves)
        tiles.write_full()
        last = batch.note
        if segment.tell() > _SEGMENT_MAX_BYTES:
            segment.close()
            segment = (directory / segment_name(batch.end)).open("wb")
    segment.close()
    tiles.write_edge()
    (directory / "checkpoint").write_text(last)


def _verify(python: list[str], directory: Path, records: int) -> tuple[float, float]:
    """Run the stand-alone verifier; return records for each second of its CPU, and MB it held."""
    command = [*python, str(VERIFIER), str(directory), "--state", "none", "--json"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=directory) as process,
        ThreadPoolExecutor(1) as watcher,
    ):
        assert process.stdout is not None
        held = watcher.submit(_watch_memory, process.pid)
        report = orjson.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if not report["valid"] or report["records"] != records:
        raise MeasurementError(f"the verifier does not accept the bench's log: {report}")
    return records / (usage.ru_utime + usage.ru_stime), held.result()


def _watch_memory(pid: int) -> float:
    """Return the most MB that a process held before it ended.

    What the system says at its end counts this process too, as it was when it forked.
    """
    most_kib = 0
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return most_kib / 1024
        held = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
        if not held:  # it has ended, and nobody has waited for it yet
            return most_kib / 1024
        most_kib = int(held[0][1])
        time.sleep(0.01)


def _prove(directory: Path, records: int) -> float:
    """Return the ms that it takes to find a record, prove it under the newest root and check."""
    spent: list[float] = []
    for number in range(20):
        reader = TileReader(directory)
        started = time.perf_counter()
        seq = (number * 2_654_435_761) % records
        line = find_line(directory, seq)
        proof = inclusion_proof(seq, records, reader.node)
        root = root_of(records, reader.node)
        spent.append((time.perf_counter() - started) * 1e3)
        if line is None or not is_included(hash_leaf(line), seq, records, proof, root):
            raise MeasurementError(f"the proof of record {seq} does not hold")
    return statistics.median(spent)
