"""What every `AuditLog` promises, whichever it is."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.core.calls.call import RecordedIntent, RecordedOutcome
from gateway.core.entry import Opening, Receipt
from gateway.core.errors import AuditError
from gateway.core.log.chain_check import Break, ChainCheck, Record
from gateway.core.log.note import build_key
from gateway.core.log.tlog_proof import find_fault, parse_proof
from gateway.core.ports import AuditLog
from tests.integration.audit.parts import (
    DEPLOYMENT,
    KEK,
    ORIGIN,
    FaultyFiles,
    StillClock,
    erasure,
    intent,
    note_entry,
    outcome,
)
from tests.patience import PATIENT

Log = FileAuditLog | MemoryAuditLog
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = build_key(ORIGIN, SIGNER.public_key())


class Subject(NamedTuple):
    """A log under test, its lines as they stand, and how to make it fail."""

    log: Log
    lines: Callable[[], list[bytes]]
    poison: Callable[[], None]


@pytest.fixture(params=["apart", "file", "memory"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryAuditLog(origin=ORIGIN, signer=SIGNER)
        yield Subject(memory, lambda: memory.lines, memory.poison)
        return
    apart = request.param == "apart"
    files = FaultyFiles()
    log = FileAuditLog.open(
        tmp_path,
        origin=ORIGIN,
        signer=SIGNER,
        kek=KEK,
        clock=StillClock(),
        limits=PATIENT,
        deployment=DEPLOYMENT,
        files=None if apart else files,
    )
    await log.start(apart=apart)

    def lines() -> list[bytes]:
        return list_segments(tmp_path)[0].read_bytes().splitlines()

    def poison() -> None:
        if log.keeper_pid is None:
            files.fail_sync = True
        else:
            os.kill(log.keeper_pid, signal.SIGKILL)

    yield Subject(log, lines, poison)
    await log.close()


@pytest.fixture
def log(subject: Subject) -> Log:
    return subject.log


def test_all_keep_the_port() -> None:
    accepted: tuple[type[AuditLog], ...] = (FileAuditLog, MemoryAuditLog)
    assert len(accepted) == 2


@pytest.mark.req("GW-13")
async def test_records_get_the_numbers_in_which_they_came(log: Log) -> None:
    first = log.size
    receipts = [await log.record(note_entry(n)) for n in range(3)]
    assert [receipt.seq for receipt in receipts] == [first, first + 1, first + 2]
    assert all(len(receipt.leaf) == 32 for receipt in receipts)
    assert log.size == first + 3
    assert log.healthy


@pytest.mark.req("GW-05")
async def test_an_intent_and_its_outcome_are_recorded_with_what_they_are_about(log: Log) -> None:
    recorded = await log.record_intent(intent(1))
    assert isinstance(recorded, RecordedIntent)
    assert recorded.intent.entry == intent(1).entry
    ended = await log.record_outcome(outcome(recorded))
    assert isinstance(ended, RecordedOutcome)
    assert ended.outcome.intent is recorded
    assert ended.seq == recorded.seq + 1


@pytest.mark.req("AUD-02")
async def test_every_durable_record_is_proven(subject: Subject) -> None:
    receipts = [await subject.log.record(note_entry(n)) for n in range(5)]
    for receipt in receipts:
        proof = parse_proof(await subject.log.prove(receipt))
        assert (proof.index, proof.signed.checkpoint.size) == (receipt.seq, subject.log.size)
        assert find_fault(proof, receipt.leaf, [KEY]) is None


@pytest.mark.parametrize(
    "wrong", [Receipt(0, bytes(32)), Receipt(99, bytes(32)), Receipt(-1, bytes(32))]
)
async def test_a_record_that_is_not_there_is_not_proven(log: Log, wrong: Receipt) -> None:
    with pytest.raises(AuditError, match="no proof of record") as refused:
        await log.prove(wrong)
    assert refused.value.code == "audit_unproven"


async def test_an_event_is_recorded_once(log: Log) -> None:
    entry = note_entry(event_id="e-1")
    first = await log.record(entry)
    size = log.size
    assert await log.record(entry) == first
    assert log.size == size


@pytest.mark.parametrize(
    "fields", [{"x": 0.5}, {"x": "y" * 20_000}, {"prev": "x"}, {"args": 1}, {"ü": 1}]
)
async def test_what_cannot_be_a_record_is_refused_and_leaves_no_trace(
    fields: dict[str, object], log: Log
) -> None:
    size = log.size
    entry = note_entry(fields=fields, openings=(Opening("args", b"v", "alice"),))
    with pytest.raises(AuditError) as caught:
        await log.record(entry)
    assert (caught.value.code, caught.value.retryable) == ("audit_record_invalid", False)
    assert log.size == size
    assert (await log.record(note_entry())).seq == size


@pytest.mark.req("GW-13")
async def test_a_value_can_be_opened_until_its_subject_is_erased(log: Log) -> None:
    entry = note_entry(openings=(Opening("args", b"v", "alice"), Opening("x.y", b"w", "bob")))
    receipt = await log.record(entry)
    assert log.read_opening(receipt.seq, "args") == b"v"
    await log.redact(erasure(log.key_id("alice")), log.key_id("alice"))
    assert log.read_opening(receipt.seq, "args") is None
    assert log.read_opening(receipt.seq, "x.y") == b"w"
    with pytest.raises(LookupError):
        log.read_opening(receipt.seq, "z")


@pytest.mark.req("GW-13")
async def test_the_lines_hold_together_under_their_key(subject: Subject) -> None:
    recorded = await subject.log.record_intent(intent(1))
    ended = await subject.log.record_outcome(outcome(recorded))
    check = ChainCheck(ORIGIN, KEY, every_signature=True)
    answers = [check.feed(line) for line in subject.lines()]
    assert not [answer for answer in answers if isinstance(answer, Break)]
    assert check.tail() is None
    leaves = [answer.leaf for answer in answers if isinstance(answer, Record)]
    assert leaves[recorded.seq :] == [recorded.leaf, ended.leaf]


async def test_a_poisoned_log_records_nothing_more(subject: Subject) -> None:
    log = subject.log
    recorded = await log.record_intent(intent(1))
    subject.poison()
    for attempt in (
        log.record(note_entry()),
        log.record_intent(intent(2)),
        log.record_outcome(outcome(recorded)),
    ):
        with pytest.raises(AuditError) as caught:
            await attempt
        assert (caught.value.code, caught.value.retryable) == ("audit_unavailable", False)
    assert not log.healthy


async def test_the_twin_can_be_overloaded_and_relieved() -> None:
    log = MemoryAuditLog()
    recorded = await log.record_intent(intent(1))
    log.overload()
    with pytest.raises(AuditError) as caught:
        await log.record_intent(intent(2))
    assert (caught.value.code, caught.value.retryable) == ("audit_overloaded", True)
    await log.record_outcome(outcome(recorded))
    log.overload(overloaded_now=False)
    await log.record(note_entry())
    assert [record["type"] for record in log.records[2:]] == [
        "call.intent",
        "call.outcome",
        "config.change",
    ]
