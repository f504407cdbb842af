"""Values aside: committed to in the chain, readable until their subject's key is erased."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.audit.audit_verify import verify
from gateway.core.entry import Opening
from gateway.core.errors import AuditError
from tests.integration.audit.parts import (
    FaultyFiles,
    Open,
    StillClock,
    erasure,
    every_file,
    note_entry,
    records_of,
)

SECRET = b'{"to":"alice@example.com"}'
ARGS = (Opening("args", SECRET, "alice"), Opening("policy.input", b"{}", "bob"))


@pytest.mark.req("GW-13")
async def test_a_value_stands_in_no_file_and_can_be_opened(open_log: Open, directory: Path) -> None:
    log = open_log()
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS, fields={"policy": {"rev": "r"}}))
    record = records_of(directory)[receipt.seq]
    assert record["args"].keys() == {"c", "bytes"}
    assert record["policy"].keys() == {"rev", "input"}
    assert record["args"]["bytes"] == len(SECRET)
    assert log.read_opening(receipt.seq, "args") == SECRET
    assert log.read_opening(receipt.seq, "policy.input") == b"{}"
    assert len(list((directory / "openings" / "keys").iterdir())) == 2
    await log.close()
    for path, content in every_file(directory).items():
        assert b"alice" not in content + path.name.encode()


async def test_equal_values_are_committed_to_differently(open_log: Open, directory: Path) -> None:
    log = open_log()
    await log.start()
    for _ in range(2):
        await log.record(note_entry(openings=ARGS))
    first, second = records_of(directory)[2:]
    assert first["args"] != second["args"]


@pytest.mark.req("GW-13")
async def test_erasing_a_subject_erases_its_values_alone_and_the_log_still_verifies(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS))
    await log.redact(erasure(log.key_id("alice")), log.key_id("alice"))
    assert log.read_opening(receipt.seq, "args") is None
    assert log.read_opening(receipt.seq, "policy.input") == b"{}"
    later = await log.record(note_entry(openings=ARGS))
    assert log.read_opening(later.seq, "args") == SECRET
    assert log.read_opening(receipt.seq, "args") is None
    await log.close()
    assert verify(directory).valid
    again = open_log()
    assert again.read_opening(receipt.seq, "args") is None
    assert again.read_opening(later.seq, "args") == SECRET


async def test_values_of_many_boots_and_subjects_stay_readable(
    open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.audit.audit_openings._CACHED_SUBJECTS", 2)
    seqs: dict[int, bytes] = {}
    for boot in range(2):
        log = open_log()
        await log.start()
        for subject in range(5):
            value = b"%d-%d" % (boot, subject)
            entry = note_entry(openings=(Opening("x", value, f"subject-{subject}"),))
            seqs[(await log.record(entry)).seq] = value
        await log.close()
    log = open_log()
    assert {seq: log.read_opening(seq, "x") for seq in seqs} == seqs


async def test_nothing_can_be_opened_where_nothing_was_committed(open_log: Open) -> None:
    log = open_log()
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS))
    for seq, path in [(receipt.seq, "n"), (receipt.seq, "args.c"), (99, "args"), (0, "x.y")]:
        with pytest.raises(LookupError, match="commits to nothing"):
            log.read_opening(seq, path)


async def test_a_value_that_is_not_the_one_committed_to_is_not_shown(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(openings=(Opening("args", b"one", "alice"),)))
    await log.record(note_entry(openings=(Opening("args", b"two", "alice"),)))
    await log.close()
    file = next((directory / "openings").glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    swapped = [line.replace(b'"seq":2', b'"seq":9') for line in lines if line.strip()]
    file.write_bytes(b"".join(swapped).replace(b'"seq":3', b'"seq":2') + b'{"torn')
    again = open_log()
    await again.start()
    assert again.read_opening(2, "args") is None
    assert again.read_opening(3, "args") is None
    receipt = await again.record(note_entry(openings=(Opening("args", b"new", "alice"),)))
    assert again.read_opening(receipt.seq, "args") == b"new"


async def test_a_subject_s_key_that_a_crash_left_empty_is_made_anew(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    first = await log.record(note_entry(openings=ARGS[:1]))
    await log.close()
    (key,) = (directory / "openings" / "keys").iterdir()
    key.write_bytes(b"")
    again = open_log()
    await again.start()
    second = await again.record(note_entry(openings=ARGS[:1]))
    assert again.read_opening(first.seq, "args") is None
    assert again.read_opening(second.seq, "args") == SECRET


async def test_an_erased_key_does_not_disturb_the_next_sync(
    open_log: Open, clock: StillClock, files: FaultyFiles
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(openings=ARGS))
    await log.redact(erasure(log.key_id("alice")), log.key_id("alice"))
    clock.ns += 2 * 10**9
    await log.record(note_entry())
    await log.record(note_entry())
    assert log.healthy


async def test_an_opening_over_a_field_is_refused(open_log: Open) -> None:
    log = open_log()
    await log.start()
    entry = note_entry(fields={"args": 1}, openings=ARGS)
    with pytest.raises(AuditError) as caught:
        await log.record(entry)
    assert caught.value.code == "audit_record_invalid"
