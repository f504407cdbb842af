"""A disk that hangs, fills up or fails; callers that give up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.adapters.audit.audit_verify import verify
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.limits import Limits
from gateway.core.ports import AuditLog
from tests.integration.audit.parts import (
    FaultyFiles,
    Open,
    StillClock,
    every_file,
    intent,
    note_entry,
    outcome,
    records_of,
    until,
)

IMPATIENT = Limits(audit_wait_ms=20)


def _is_poisoned(log: AuditLog) -> bool:
    return not log.healthy


@pytest.mark.req("GW-13")
async def test_an_intent_that_becomes_durable_too_late_is_closed_as_not_sent(
    open_log: Open, files: FaultyFiles, directory: Path
) -> None:
    log = open_log(limits=IMPATIENT)
    await log.start()
    files.flowing.clear()
    with pytest.raises(AuditError) as caught:
        await log.record_intent(intent(1))
    assert (caught.value.code, caught.value.retryable) == ("audit_overloaded", True)
    files.flowing.set()
    await until(lambda: log.size == 4)
    late, closing = records_of(directory)[2:]
    assert (late["type"], late["op"]) == ("call.intent", "op-1")
    assert (closing["type"], closing["op"]) == ("call.outcome", "op-1")
    assert closing["intent"] == late["seq"]
    assert (closing["status"], closing["delivery"]) == ("failed", "not_sent")


@pytest.mark.req("GW-13")
async def test_an_intent_given_up_while_it_waits_its_turn_is_closed_as_not_sent(
    open_log: Open, files: FaultyFiles, directory: Path
) -> None:
    log = open_log(limits=IMPATIENT)
    await log.start()
    files.flowing.clear()
    before = files.syncs
    first = asyncio.ensure_future(log.record(note_entry(1)))
    await until(lambda: files.syncs > before)
    with pytest.raises(AuditError, match="overloaded"):
        await log.record_intent(intent(2))
    with pytest.raises(AuditError, match="overloaded"):
        await first
    files.flowing.set()
    await log.close()
    one, two, closing, _ = records_of(directory)[2:]
    assert (one["op"], two["op"], two["type"]) == ("op-1", "op-2", "call.intent")
    assert (closing["intent"], closing["delivery"]) == (two["seq"], "not_sent")


@pytest.mark.req("GW-13")
async def test_an_outcome_is_waited_for_however_long_it_takes(
    open_log: Open, files: FaultyFiles
) -> None:
    log = open_log(limits=IMPATIENT)
    await log.start()
    recorded = await log.record_intent(intent(1))
    files.flowing.clear()
    waiting = asyncio.ensure_future(log.record_outcome(outcome(recorded)))
    await asyncio.sleep(0)
    with pytest.raises(AuditError, match="overloaded"):
        await log.record_intent(intent(2))
    assert not waiting.done()
    files.flowing.set()
    assert (await waiting).seq == recorded.seq + 1


@pytest.mark.req("GW-13")
async def test_a_full_queue_refuses_intents_at_once_but_takes_outcomes(
    open_log: Open, files: FaultyFiles
) -> None:
    log = open_log(limits=Limits(audit_queue_max=3))
    await log.start()
    recorded = await log.record_intent(intent(0))
    files.flowing.clear()
    waiting = [asyncio.ensure_future(log.record(note_entry(n))) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(AuditError, match="3 records wait") as caught:
        await log.record_intent(intent(1))
    assert (caught.value.code, caught.value.retryable) == ("audit_overloaded", True)
    last = asyncio.ensure_future(log.record_outcome(outcome(recorded)))
    files.flowing.set()
    await asyncio.gather(*waiting, last)
    assert (await log.record_intent(intent(2))).seq == log.size - 1


@pytest.mark.req("GW-13")
async def test_a_failed_sync_poisons_the_log_until_it_is_opened_again(
    open_log: Open, files: FaultyFiles, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(0))
    assert not _is_poisoned(log)
    files.fail_sync = True
    answers = await asyncio.gather(
        *(log.record(note_entry(n)) for n in range(1, 4)),
        log.record_intent(intent(4)),
        return_exceptions=True,
    )
    errors = [answer for answer in answers if isinstance(answer, AuditError)]
    assert [error.code for error in errors] == ["audit_unavailable"] * 4
    assert not any(error.retryable for error in errors)
    assert _is_poisoned(log)
    assert log.size == 3
    files.fail_sync = False
    before = every_file(directory)
    with pytest.raises(AuditError, match="input/output"):
        await log.record(note_entry(5))
    await log.close()
    assert every_file(directory) == before
    again = open_log()
    await again.start()
    assert (await again.record(note_entry(6))).seq == again.size - 1
    await again.close()
    assert verify(directory).valid


async def test_what_waits_behind_a_failed_sync_fails_too(
    open_log: Open, files: FaultyFiles
) -> None:
    log = open_log()
    await log.start()
    files.flowing.clear()
    before = files.syncs
    first = asyncio.ensure_future(log.record(note_entry(1)))
    await until(lambda: files.syncs > before)
    second = asyncio.ensure_future(log.record(note_entry(2)))
    await asyncio.sleep(0)
    files.fail_sync = True
    files.flowing.set()
    for answer in await asyncio.gather(first, second, return_exceptions=True):
        assert isinstance(answer, AuditError)
        assert answer.code == "audit_unavailable"


@pytest.mark.req("GW-13")
@pytest.mark.parametrize("written", [0, 1, 300, 500])
async def test_a_disk_that_fills_up_leaves_a_torn_batch_that_opening_cuts(
    written: int, open_log: Open, files: FaultyFiles, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(1))
    files.fail_write_after = written
    with pytest.raises(AuditError, match="no space left"):
        await log.record(note_entry(2))
    await log.close()
    files.fail_write_after = None
    await open_log().close()
    report = verify(directory)
    assert (report.valid, report.records) == (True, 5)
    cut = records_of(directory)[3]["cut"]
    assert cut == (
        {"segment": f"{0:020d}.jsonl", "bytes": written, "kept_in": f"{0:020d}.jsonl.torn"}
        if written
        else None
    )


async def test_a_failing_copy_of_the_checkpoint_poisons_too(
    open_log: Open, clock: StillClock, directory: Path
) -> None:
    log = open_log()
    await log.start()
    (directory / "checkpoint").unlink()
    (directory / "checkpoint").mkdir()
    clock.ns += 2 * 10**9
    await log.record(note_entry(1))
    await until(lambda: not log.healthy)
    with pytest.raises(AuditError):
        await log.record(note_entry(2))
    (directory / "checkpoint").rmdir()


async def test_closing_tells_that_the_last_record_could_not_be_written(
    open_log: Open, files: FaultyFiles
) -> None:
    log = open_log()
    await log.start()
    files.fail_sync = True
    with pytest.raises(AuditError, match="could not be closed"):
        await log.close()
    files.fail_sync = False
    await open_log().close()


async def test_a_disk_that_fails_at_the_start_is_a_mistake_of_configuration(
    open_log: Open, files: FaultyFiles
) -> None:
    files.fail_sync = True
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_log()
    files.fail_sync = False
    await open_log().close()


@pytest.mark.req("GW-06", "GW-13")
async def test_an_intent_whose_caller_is_cancelled_never_stays_open(
    open_log: Open, files: FaultyFiles, directory: Path
) -> None:
    log = open_log()
    await log.start()
    files.flowing.clear()
    before = files.syncs
    task = asyncio.ensure_future(log.record_intent(intent(1)))
    await until(lambda: files.syncs > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    files.flowing.set()
    await until(lambda: log.size == 4)
    await log.close()
    assert records_of(directory)[3]["delivery"] == "not_sent"
    assert open_log().recovered.open_intents == {}


async def test_a_keeper_that_breaks_poisons_the_log_whatever_it_raises(
    open_log: Open, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log()
    await log.start()
    monkeypatch.setattr(files, "sync", lambda _: 1 // 0)
    with pytest.raises(AuditError, match="ZeroDivisionError"):
        await log.record(note_entry())
    assert not log.healthy


async def test_what_is_left_to_tidy_is_tidied_while_nothing_comes(
    open_log: Open, clock: StillClock, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.audit.audit_keeper.TIDY_WAIT_S", 0.001)
    log = open_log()
    await log.start()
    before = (directory / "checkpoint").read_bytes()
    await log.record(note_entry())
    assert (directory / "checkpoint").read_bytes() == before
    clock.ns += 2 * 10**9
    await until(lambda: (directory / "checkpoint").read_bytes() != before)


@pytest.mark.req("AUD-10")
@pytest.mark.parametrize("written", [0, 1, 300, 500])
async def test_a_disk_that_fills_up_takes_outcomes_out_of_its_reserve_and_no_more_intents(
    written: int, open_log: Open, files: FaultyFiles, directory: Path, clock: StillClock
) -> None:
    log = open_log(reserve_bytes=8192)
    await log.start()
    recorded = await log.record_intent(intent(1))
    other = await log.record_intent(intent(2))
    assert (directory / "reserve").stat().st_size == 8192
    files.full_after = written
    await log.record_outcome(outcome(recorded))
    assert not (directory / "reserve").exists()
    with pytest.raises(AuditError, match="full") as caught:
        await log.record_intent(intent(3))
    assert (caught.value.code, caught.value.retryable) == ("audit_overloaded", True)
    await log.record_outcome(outcome(other))
    assert log.healthy
    files.full_after = None
    clock.ns += 2 * 10**9
    await until(lambda: not log.is_full)
    assert (directory / "reserve").exists()
    await log.record_intent(intent(4))
    await log.close()
    assert verify(directory).valid
    assert [record["op"] for record in records_of(directory)[2:-1]] == [
        "op-1", "op-2", "op-1", "op-2", "op-4",
    ]  # fmt: skip
    opened = open_log()
    assert [opened.read_opening(seq, "args") for seq in (2, 3, 6)] == [b'{"amount":250}'] * 3
    await opened.close()


@pytest.mark.req("AUD-10")
async def test_a_clock_set_back_between_two_runs_is_told_after_the_boot(
    open_log: Open, clock: StillClock, directory: Path
) -> None:
    await open_log().close()
    clock.ns -= 5 * 10**9
    log = open_log()
    await log.start()
    await log.record(note_entry(1))
    await log.close()
    kinds = [record["type"] for record in records_of(directory)[3:]]
    assert kinds == ["boot", "clock.step", "config.change", "shutdown"]


@pytest.mark.req("AUD-10")
async def test_a_clock_that_goes_back_is_recorded_once_and_times_stand_still(
    open_log: Open, clock: StillClock, directory: Path
) -> None:
    log = open_log()
    await log.start()
    start_us = clock.ns // 1000
    for back_us in (0, 50_000, 3_000_000, 2_000_000, -1, 100_000):
        clock.ns = (start_us - back_us) * 1000
        await log.record(note_entry(back_us))
    await log.close()
    kinds = [(r["type"], r.get("behind_us"), r["ts"] - start_us) for r in records_of(directory)[2:]]
    plain = ("config.change", None)
    assert kinds == [
        (*plain, 0), (*plain, 0), ("clock.step", 3_000_000, 0), (*plain, 0), (*plain, 0),
        (*plain, 1), ("clock.step", 100_001, 1), (*plain, 1), ("shutdown", None, 1),
    ]  # fmt: skip
