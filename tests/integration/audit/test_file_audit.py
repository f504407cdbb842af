"""The log in files: what it writes, how it starts, how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_keys import vkey_of
from gateway.adapters.audit.audit_verify import verify
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.limits import Limits
from tests.integration.audit.parts import (
    ORIGIN,
    Open,
    StillClock,
    intent,
    lines_of,
    note_entry,
    outcome,
    records_of,
)


@pytest.mark.req("GW-13")
async def test_a_new_log_begins_with_genesis_and_boot_and_ends_with_shutdown(
    open_log: Open, directory: Path, signer: Ed25519PrivateKey
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry())
    await log.close()
    records = records_of(directory)
    assert [record["type"] for record in records] == [
        "genesis",
        "boot",
        "config.change",
        "shutdown",
    ]
    assert records[0]["key"] == vkey_of(signer, ORIGIN)
    assert records[0]["deployment"] == {"environment": "test"}
    assert verify(directory, vkey=vkey_of(signer, ORIGIN)).valid


@pytest.mark.req("GW-13")
async def test_each_batch_ends_in_a_checkpoint_that_the_next_record_names(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(1))
    await log.record(note_entry(2))
    kinds = ["cp" if "v" not in line else str("cp" in line) for line in lines_of(directory)]
    assert kinds == ["False", "False", "cp", "True", "cp", "True", "cp"]


@pytest.mark.req("GW-13")
async def test_callers_at_once_share_batches_and_keep_their_order(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    receipts = await asyncio.gather(*(log.record(note_entry(n)) for n in range(64)))
    assert [receipt.seq for receipt in receipts] == list(range(2, 66))
    assert [record["n"] for record in records_of(directory)[2:]] == list(range(64))
    assert len(lines_of(directory)) - len(records_of(directory)) < 20
    assert log.size == 66


async def test_a_second_opener_is_told_who_holds_the_log(open_log: Open) -> None:
    open_log()
    with pytest.raises(ConfigurationError, match="is held by process"):
        open_log()


async def test_a_closed_log_can_be_opened_again_and_goes_on(
    open_log: Open, directory: Path
) -> None:
    for number in range(3):
        log = open_log()
        await log.start()
        await log.record(note_entry(number))
        await log.close()
        await log.close()
    assert [record["seq"] for record in records_of(directory)] == list(range(10))
    assert len({record["boot"] for record in records_of(directory)}) == 3
    assert verify(directory).valid


async def test_a_log_that_was_never_started_closes_too(open_log: Open, directory: Path) -> None:
    log = open_log()
    with pytest.raises(AuditError, match="not been started"):
        await log.record(note_entry())
    await log.close()
    assert verify(directory).valid


async def test_a_closed_log_takes_no_more_records(open_log: Open) -> None:
    log = open_log()
    await log.start()
    await log.close()
    with pytest.raises(AuditError) as caught:
        await log.record(note_entry())
    assert (caught.value.code, caught.value.retryable) == ("audit_unavailable", False)


async def test_what_was_queued_before_closing_becomes_durable(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    waiting = [asyncio.ensure_future(log.record(note_entry(n))) for n in range(20)]
    await asyncio.sleep(0)
    await log.close()
    assert [receipt.seq for receipt in await asyncio.gather(*waiting)] == list(range(2, 22))
    assert records_of(directory)[-1]["type"] == "shutdown"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"deployment": {"environment": "other"}}, "deployment"),
        ({"origin": "other.example.com/audit"}, "wrong_log"),
        ({"signer": Ed25519PrivateKey.from_private_bytes(bytes(32))}, "wrong_key"),
        ({"origin": "no good"}, "cannot name a log"),
        ({"kek": b"short"}, "key encryption key"),
        ({"limits": Limits(record_max_bytes=10)}, "cannot be begun"),
    ],
)
async def test_a_log_is_not_opened_with_what_is_not_its_own(
    changes: dict[str, Any], what: str, open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.close()
    before = [path.read_bytes() for path in list_segments(directory)]
    with pytest.raises(ConfigurationError, match=what):
        open_log(**changes)
    assert [path.read_bytes() for path in list_segments(directory)] == before
    await open_log().close()


async def test_a_directory_that_cannot_be_made_is_a_mistake_of_configuration(
    open_log: Open, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        open_log(dir=tmp_path / "file" / "audit")


async def test_a_directory_that_cannot_be_written_is_a_mistake_of_configuration(
    open_log: Open, directory: Path
) -> None:
    (directory / "LOCK").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_log()


@pytest.mark.parametrize("fields", [{"x": 1.5}, {"x": "y" * 16_384}, {"seq": 0}, {"x": "\ud800"}])
async def test_an_entry_that_cannot_be_a_record_harms_no_other(
    fields: dict[str, Any], open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    good, bad, also_good = await asyncio.gather(
        log.record(note_entry(1)),
        log.record(note_entry(2, fields=fields)),
        log.record(note_entry(3)),
        return_exceptions=True,
    )
    assert isinstance(bad, AuditError)
    assert (bad.code, bad.retryable) == ("audit_record_invalid", False)
    assert [receipt.seq for receipt in (good, also_good) if not isinstance(receipt, BaseException)]
    assert [record["op"] for record in records_of(directory)[2:]] == ["op-1", "op-3"]
    assert verify(directory).valid


async def test_time_in_the_log_never_goes_back(
    open_log: Open, directory: Path, clock: StillClock
) -> None:
    log = open_log()
    await log.start()
    first = clock.ns // 1000
    clock.ns -= 10**12
    await log.record(note_entry())
    await log.close()
    await open_log().close()
    assert {record["ts"] for record in records_of(directory)} == {first}
    assert verify(directory).valid


async def test_the_copy_of_the_checkpoint_follows_within_a_second(
    open_log: Open, directory: Path, clock: StillClock
) -> None:
    log = open_log()
    await log.start()
    before = (directory / "checkpoint").read_text()
    clock.ns += 2 * 10**9
    await log.record(note_entry())
    await log.record(note_entry())
    assert (directory / "checkpoint").read_text() != before
    assert verify(directory, known=before).valid


@pytest.mark.req("GW-13")
async def test_a_full_segment_is_followed_by_the_next(open_log: Open, directory: Path) -> None:
    log = open_log(segment_max_bytes=2000)
    await log.start()
    seqs = []
    for number in range(12):
        recorded = await log.record_intent(intent(number))
        seqs.append(recorded.seq)
    await log.close()
    names = [int(path.stem) for path in list_segments(directory)]
    assert len(names) > 3
    assert names[0] == 0
    assert [int(path.stem) for path in list_segments(directory / "openings")] == names
    report = verify(directory)
    assert (report.valid, report.records) == (True, 15)
    again = open_log(segment_max_bytes=2000)
    assert [again.read_opening(seq, "args") for seq in seqs] == [b'{"amount":250}'] * 12


@pytest.mark.req("GW-13")
async def test_an_event_is_written_once_however_often_it_is_told(
    open_log: Open, directory: Path
) -> None:
    entry = note_entry(event_id="event-1")
    log = open_log()
    await log.start()
    receipts = list(await asyncio.gather(log.record(entry), log.record(entry)))
    await log.close()
    again = open_log()
    await again.start()
    receipts.append(await again.record(entry))
    assert len(set(receipts)) == 1
    assert again.recovered.event_ids == {"event-1"}
    assert [record.get("event") for record in records_of(directory)].count("event-1") == 1


@pytest.mark.req("GW-13")
async def test_opening_tells_which_calls_are_open_and_how_approved_ones_ended(
    open_log: Open,
) -> None:
    log = open_log()
    await log.start()
    await log.record_intent(intent(1))
    for number in (2, 3, 4, 5):
        recorded = await log.record_intent(
            intent(number, **({} if number == 5 else {"approval": f"ap-{number}"}))
        )
        if number in {3, 5}:
            await log.record_outcome(outcome(recorded))
        if number == 4:
            fields = {"intent": recorded.seq, "effect": "unknown"}
            await log.record(note_entry(number, type="call.orphan", fields=fields))
    await log.close()
    found = open_log().recovered
    assert set(found.open_intents) == {"op-1", "op-2"}
    first = found.open_intents["op-1"]
    assert (first.seq, first.tool, first.approval) == (2, "billing.refund", None)
    assert (first.run, first.root) == ("run-1", "root-1")
    assert found.open_intents["op-2"].approval == "ap-2"
    assert {op: known.outcome_status for op, known in found.operations.items()} == {
        "op-2": None,
        "op-3": "ok",
        "op-4": "unknown",
    }
    assert all(known.intent for known in found.operations.values())


async def test_calls_are_folded_from_the_number_asked_for(open_log: Open) -> None:
    log = open_log()
    await log.start()
    first = await log.record_intent(intent(1))
    await log.record(note_entry())
    await log.record_outcome(outcome(first))
    await log.record_intent(intent(2))
    await log.close()
    folded: list[dict[str, Any]] = []
    await open_log(fold=folded.append).close()
    assert [(record["seq"], record["type"]) for record in folded] == [
        (2, "call.intent"),
        (4, "call.outcome"),
        (5, "call.intent"),
    ]
    folded.clear()
    open_log(fold=folded.append, fold_from=4)
    assert [record["seq"] for record in folded] == [4, 5]
