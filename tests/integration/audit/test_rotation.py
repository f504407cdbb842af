"""Segments follow each other: made by number, never over a file, their names durable first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gateway.adapters.audit.audit_files import list_segments, segment_name
from gateway.adapters.audit.audit_verify import verify
from gateway.core.errors import AuditError
from tests.integration.audit.parts import FaultyFiles, Open, note_entry, records_of

SMALL = 1_000


class Watched(FaultyFiles):
    """A disk that says what was done to it, and dies once when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, str]] = []
        self.dies_after_create = False

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self.done.append(("created", path.name))
        if self.dies_after_create:
            os.close(descriptor)
            raise OSError(errno.EIO, "the machine is gone")
        return descriptor

    def sync_directory(self, path: Path) -> None:
        self.done.append(("synced", path.name))

    def write(self, descriptor: int, data: bytes) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        self.done.append(("wrote", name))
        super().write(descriptor, data)


@pytest.mark.req("AUD-02")
async def test_a_segment_s_name_is_durable_before_anything_is_written_into_it(
    open_log: Open, directory: Path
) -> None:
    files = Watched()
    log = open_log(segment_max_bytes=SMALL, files=files)
    await log.start()
    for number in range(6):
        await log.record(note_entry(number))
    await log.close()
    names = [segment.name for segment in list_segments(directory)]
    assert len(names) > 2
    for name in names:
        made = files.done.index(("created", name))
        assert files.done[made - 1] == ("synced", directory.name)
        assert files.done.index(("wrote", name)) > made


@pytest.mark.req("AUD-02")
async def test_segments_are_named_by_their_first_record(open_log: Open, directory: Path) -> None:
    log = open_log(segment_max_bytes=SMALL)
    await log.start()
    for number in range(9):
        await log.record(note_entry(number))
    await log.close()
    for segment in list_segments(directory):
        first = segment.read_bytes().splitlines()[0]
        assert segment.name == segment_name(int(first.partition(b'"seq":')[2].partition(b",")[0]))
    assert [record["seq"] for record in records_of(directory)] == list(range(12))


@pytest.mark.req("AUD-02")
async def test_a_crash_between_a_segment_s_creation_and_its_first_write_loses_nothing(
    open_log: Open, directory: Path
) -> None:
    files = Watched()
    log = open_log(segment_max_bytes=SMALL, files=files)
    await log.start()
    files.dies_after_create, last_seq = True, -1
    while list_segments(directory)[-1].stat().st_size < SMALL:
        last_seq = (await log.record(note_entry())).seq
    with pytest.raises(AuditError, match="takes no more records"):
        await log.record(note_entry())
    await log.close()
    last = list_segments(directory)[-1]
    assert (last.read_bytes(), last.name) == (b"", segment_name(last_seq + 1))
    again = open_log(segment_max_bytes=SMALL)
    await again.start()
    await again.record(note_entry())
    await again.close()
    assert list_segments(directory).count(last) == 1
    seqs = [record["seq"] for record in records_of(directory)]
    assert seqs == list(range(len(seqs)))
    assert seqs[-1] == last_seq + 3  # `boot`, a record, `shutdown`
    assert verify(directory).valid


@pytest.mark.req("AUD-02")
async def test_a_file_that_stands_where_the_next_segment_belongs_is_not_written_over(
    open_log: Open, directory: Path
) -> None:
    log = open_log(segment_max_bytes=SMALL)
    await log.start()
    while list_segments(directory)[-1].stat().st_size < SMALL:
        await log.record(note_entry())
    strange = directory / segment_name(log.size)
    strange.write_bytes(b"not ours\n")
    with pytest.raises(AuditError, match="FileExistsError"):
        await log.record(note_entry())
    assert not log.healthy
    await log.close()
    assert strange.read_bytes() == b"not ours\n"
