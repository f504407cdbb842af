"""Single records and checkpoints, found without reading a segment from its start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_seek import (
    checkpoint_over,
    find_line,
    find_operation,
    newest_checkpoint,
    read_leaves,
)
from gateway.core.log.merkle import hash_leaf
from gateway.core.log.note import parse
from tests.integration.audit.parts import Open, lines_of, note_entry, records_of

RECORDS = 400


@pytest.fixture
async def written(open_log: Open, directory: Path) -> Path:
    """Segments many times as long as what is read at once, with batches of every length."""
    log = open_log(segment_max_bytes=150_000)
    await log.start()
    for begin in (0, 100, 150, 152):
        end = {0: 100, 100: 150, 150: 152, 152: RECORDS}[begin]
        entries = (
            note_entry(number, fields={"pad": "x" * (number * 37 % 2500)})
            for number in range(begin, end)
        )
        await asyncio.gather(*map(log.record, entries))
    await log.close()
    assert len(list_segments(directory)) > 2
    return directory


@pytest.mark.req("AUD-02")
def test_every_record_is_found_in_its_place(written: Path) -> None:
    records = records_of(written)
    for record in records:
        line = find_line(written, record["seq"])
        assert line is not None
        assert orjson.loads(line) == record
    assert find_line(written, len(records)) is None


def test_leaf_hashes_are_read_over_the_ends_of_segments(written: Path) -> None:
    records = records_of(written)
    leaves = [hash_leaf(find_line(written, record["seq"]) or b"") for record in records]
    assert read_leaves(written, 0, len(leaves)) == b"".join(leaves)
    assert read_leaves(written, 90, 300) == b"".join(leaves[90:300])
    assert read_leaves(written, 390, 5000) == b"".join(leaves[390:])


def test_the_records_of_an_operation_are_found(written: Path) -> None:
    assert find_operation(written, "op-7") == [9]
    assert find_operation(written, "op-1000") == []
    boot = records_of(written)[0]["op"]
    assert find_operation(written, boot) == [0, 1, RECORDS + 2]
    assert find_operation(written, '"') == []


def test_the_checkpoint_over_a_record_is_the_next_one(written: Path) -> None:
    sizes = [parse(line["cp"]).checkpoint.size for line in lines_of(written) if "v" not in line]
    for seq in range(RECORDS + 3):
        note = checkpoint_over(written, seq)
        assert note is not None
        assert parse(note).checkpoint.size == min(size for size in sizes if size > seq)
    assert checkpoint_over(written, RECORDS + 3) is None


def test_the_newest_checkpoint_is_the_last_that_stands_whole(written: Path) -> None:
    note = newest_checkpoint(written)
    assert note == (written / "checkpoint").read_text()
    last = list_segments(written)[-1]
    content = last.read_bytes()
    (written / f"{RECORDS + 3:020}.jsonl").touch()
    assert newest_checkpoint(written) == note
    last.write_bytes(content + b'{"boot":"x"}\n{"cp":"log')
    assert newest_checkpoint(written) == note
    last.write_bytes(content + b'{"cp":"nonsense"}\n')
    assert newest_checkpoint(written) is None


def test_a_checkpoint_is_found_behind_a_long_batch(open_log: Open, directory: Path) -> None:
    segment = directory / f"{0:020}.jsonl"
    open_log()
    note = newest_checkpoint(directory)
    with segment.open("ab") as file:
        file.write((b'{"boot":"' + b"x" * 1000 + b'"}\n') * 400)
    assert newest_checkpoint(directory) == note
    segment.write_bytes(b"")
    assert newest_checkpoint(directory) is None
    assert newest_checkpoint(directory / "nowhere") is None


def test_what_is_no_record_ends_the_search(written: Path) -> None:
    first = list_segments(written)[0]
    first.write_bytes(b"x\n" + first.read_bytes()[:2_000])
    assert find_line(written, 0) is None
    assert checkpoint_over(written, 0) is None
