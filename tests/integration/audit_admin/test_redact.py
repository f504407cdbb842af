"""Erasing a data subject and saying so: both or neither, wherever the process ends (spec §7)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.adapters.audit.audit_files import Files, segment_name
from gateway.adapters.audit.audit_verify import verify
from gateway.core.entry import Entry, Opening
from gateway.core.errors import AuditError
from tests.integration.audit.parts import FaultyFiles, Open, erasure, note_entry, records_of

pytestmark = pytest.mark.req("AUD-06")
ARGS = (Opening("args", b"alice's", "alice"), Opening("asked", b"bob's", "bob"))


class CrashError(Exception):
    """The process ends here."""


class CrashingFiles(Files):
    """Ends the process before one of its operations on a key."""

    def __init__(self, before: str) -> None:
        self._before = before
        self.armed = False

    def sync(self, descriptor: int) -> None:
        """Nothing here outlives the machine."""

    def sync_directory(self, path: Path) -> None:
        marked = path.glob("*.erasing") if path.name == "keys" else ()
        erased = [mark for mark in marked if not mark.with_suffix("").exists()]
        if self.armed and self._before == "sync_directory" and erased:
            raise CrashError

    def overwrite(self, path: Path) -> None:
        if self.armed and self._before == "overwrite":
            raise CrashError
        super().overwrite(path)
        if self.armed and self._before == "unlink":
            raise CrashError


class MarkingFiles(FaultyFiles):
    """A disk that fails, in the end, once an erasure has been announced."""

    def replace(self, path: Path, data: bytes) -> None:
        super().replace(path, data)
        self.fail_sync = path.suffix == ".erasing"


def redact(key_id: str, event: str = "redact:1") -> Entry:
    fields = {"subject": key_id, "basis": "request", "openings": 1}
    return Entry(type="redact", op="erasure", fields=fields, event_id=event)


def keys_of(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "openings" / "keys").iterdir())


async def test_what_came_before_the_record_is_gone_and_what_comes_after_is_kept(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    key = log.key_id("alice")
    first = await log.record(note_entry(1, openings=ARGS))
    await log.redact(redact(key), key)
    after = await log.record(note_entry(2, openings=ARGS))
    assert log.read_opening(first.seq, "args") is None
    assert log.read_opening(first.seq, "asked") == b"bob's"
    assert log.read_opening(after.seq, "args") == b"alice's"
    await log.close()
    again = open_log()
    assert again.read_opening(first.seq, "args") is None
    assert again.read_opening(after.seq, "args") == b"alice's"
    assert again.recovered.redacted == {key: 3}
    assert verify(directory).valid


async def test_records_already_on_their_way_are_erased_with_it(open_log: Open) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(0, openings=ARGS))
    key = log.key_id("alice")
    under_way = [asyncio.ensure_future(log.record(note_entry(n, openings=ARGS))) for n in range(9)]
    receipt = await log.redact(redact(key), key)
    for seq in [(await one).seq for one in under_way]:
        expected = None if seq < receipt.seq else b"alice's"
        assert log.read_opening(seq, "args") == expected


async def test_all_names_of_a_person_are_under_one_key(open_log: Open) -> None:
    log = open_log()
    await log.start()
    names = ["alice", "human:Alice", "ALICE "]
    seqs = [
        (await log.record(note_entry(openings=(Opening("args", b"x", name),)))).seq
        for name in names
    ]
    key = log.key_id("human:alice")
    assert log.has_key(key)
    assert log.count_openings(key) == 3
    await log.redact(redact(key), key)
    assert [log.read_opening(seq, "args") for seq in seqs] == [None] * 3
    assert not log.has_key(key)
    assert log.count_openings(key) == 0


async def test_openings_are_counted_from_the_last_erasure_on(open_log: Open) -> None:
    log = open_log()
    await log.start()
    key = log.key_id("alice")
    await log.record(note_entry(1, openings=ARGS))
    await log.redact(redact(key), key)
    await log.record(note_entry(2, openings=ARGS))
    assert log.count_openings(key) == 1
    await log.close()
    again = open_log()
    assert again.count_openings(key) == 1
    assert again.count_openings(again.key_id("bob")) == 2


@pytest.mark.parametrize("before", ["overwrite", "unlink", "sync_directory"])
async def test_an_erasure_that_a_crash_broke_off_is_finished_at_the_next_start(
    before: str, open_log: Open, directory: Path
) -> None:
    disk = CrashingFiles(before)
    log = open_log(files=disk)
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS))
    key = log.key_id("alice")
    disk.armed = True
    with pytest.raises(AuditError):
        await log.redact(redact(key), key)
    assert not log.healthy
    disk.armed = False
    await log.close()
    assert f"{key}.erasing" in keys_of(directory)
    again = open_log()
    assert [record["type"] for record in records_of(directory)].count("redact") == 1
    assert keys_of(directory) == [again.key_id("bob")]
    assert again.read_opening(receipt.seq, "args") is None
    assert again.read_opening(receipt.seq, "asked") == b"bob's"


async def test_an_erasure_that_is_not_on_record_did_not_happen(
    open_log: Open, directory: Path, files: FaultyFiles
) -> None:
    log = open_log()
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS))
    key = log.key_id("alice")
    (directory / "openings" / "keys" / f"{key}.erasing").write_text("redact:1")
    await log.close()
    again = open_log()
    assert again.read_opening(receipt.seq, "args") == b"alice's"
    assert keys_of(directory) == sorted([key, again.key_id("bob")])


async def test_a_log_that_takes_no_record_erases_nothing(
    open_log: Open, directory: Path, files: FaultyFiles
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(openings=ARGS))
    key = log.key_id("alice")
    before = keys_of(directory)
    files.fail_sync = True
    with pytest.raises(AuditError):
        await log.record(note_entry())
    files.fail_sync = False
    with pytest.raises(AuditError):
        await log.redact(redact(key), key)
    assert keys_of(directory) == before


async def test_a_key_of_another_deployment_s_kek_is_erased_too(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry(openings=ARGS))
    key = log.key_id("alice")
    path = directory / "openings" / "keys" / key
    path.rename(path.with_suffix(".unreadable"))
    assert log.has_key(key)
    await log.redact(erasure(key), key)
    assert keys_of(directory) == [log.key_id("bob")]


async def test_records_are_read_one_at_a_time(open_log: Open) -> None:
    log = open_log()
    await log.start()
    receipt = await log.record(note_entry(7))
    found = log.read_record(receipt.seq)
    assert found is not None
    assert found["n"] == 7
    assert log.read_record(receipt.seq + 1) is None


@pytest.mark.parametrize("is_written", [True, False])
async def test_where_a_sync_fails_the_disk_decides_whether_it_was_erased(
    is_written: bool,  # noqa: FBT001 - a case of the test
    open_log: Open,
    directory: Path,
) -> None:
    disk = MarkingFiles()
    log = open_log(files=disk)
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS))
    segment = directory / segment_name(0)
    before = segment.read_bytes()
    key = log.key_id("alice")
    with pytest.raises(AuditError):
        await log.redact(redact(key), key)
    disk.fail_sync = False
    assert log.read_opening(receipt.seq, "args") == b"alice's"
    await log.close()
    if not is_written:
        segment.write_bytes(before)
    again = open_log()
    kinds = [record["type"] for record in records_of(directory)]
    assert ("redact" in kinds) == is_written
    assert (again.read_opening(receipt.seq, "args") is None) == is_written
    assert f"{key}.erasing" not in keys_of(directory)


async def test_an_erasure_that_cannot_be_announced_does_not_begin(
    open_log: Open, files: FaultyFiles
) -> None:
    log = open_log()
    await log.start()
    receipt = await log.record(note_entry(openings=ARGS))
    key = log.key_id("alice")
    files.fail_sync = True
    with pytest.raises(AuditError, match="cannot be prepared"):
        await log.redact(redact(key), key)
    files.fail_sync = False
    assert log.healthy
    assert log.read_opening(receipt.seq, "args") == b"alice's"
    assert (await log.record(note_entry())).seq == receipt.seq + 1
