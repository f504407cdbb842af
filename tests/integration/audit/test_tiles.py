"""Tiles beside the segments: what stands when, what a crash leaves, what contradicts them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_tiles import TileReader, TileWriter
from gateway.adapters.audit.audit_verify import verify
from gateway.core.errors import ConfigurationError
from gateway.core.log.chain import CHECKPOINT_PREFIX
from gateway.core.log.merkle import Tree, hash_leaf, hash_node, root_of
from gateway.core.log.note import parse
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

RECORDS = 600


def leaves_of(directory: Path) -> list[bytes]:
    """The leaf hash of every record, worked out from its line."""
    return [
        hash_leaf(line)
        for segment in list_segments(directory)
        for line in segment.read_bytes().splitlines()
        if not line.startswith(CHECKPOINT_PREFIX)
    ]


def tiles_for(leaves: list[bytes]) -> dict[str, bytes]:
    """The tiles of a tree by the words of C2SP tlog-tiles, for fewer than 256,000 leaves."""
    tiles, level, hashes = {}, 0, leaves
    while hashes:
        for index in range(0, len(hashes), 256):
            width = len(hashes[index : index + 256])
            name = f"tile/{level}/{index // 256:03}" + (f".p/{width}" if width < 256 else "")
            tiles[name] = b"".join(hashes[index : index + 256])
        full = len(hashes) - len(hashes) % 256
        hashes = [_root(hashes[at : at + 256]) for at in range(0, full, 256)]
        level += 1
    return tiles


def _root(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [hash_node(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def standing(directory: Path) -> dict[str, bytes]:
    """Every tile that is there."""
    found = every_file(directory / "tile") if (directory / "tile").exists() else {}
    return {str(path.relative_to(directory)): data for path, data in found.items()}


@pytest.fixture
async def written(open_log: Open, directory: Path) -> Path:
    """A closed log with two full tiles and a partial one on level 0, in several segments."""
    log = open_log(segment_max_bytes=50_000)
    await log.start()
    await asyncio.gather(*(log.record(note_entry(number)) for number in range(RECORDS)))
    await log.close()
    assert len(list_segments(directory)) > 1
    return directory


@pytest.mark.req("AUD-02")
async def test_tiles_are_as_tlog_tiles_says_for_the_size_in_the_checkpoint_copy(
    written: Path,
) -> None:
    leaves = leaves_of(written)
    assert len(leaves) == RECORDS + 3
    assert parse((written / "checkpoint").read_text()).checkpoint.size == len(leaves)
    expected = tiles_for(leaves)
    assert set(expected) == {"tile/0/000", "tile/0/001", "tile/0/002.p/91", "tile/1/000.p/2"}
    assert {name: standing(written)[name] for name in expected} == expected


@pytest.mark.req("AUD-02")
async def test_partial_tiles_stand_for_each_checkpoint_copy_until_the_full_one_does(
    open_log: Open, directory: Path, clock: StillClock
) -> None:
    log = open_log()
    await log.start()
    assert set(standing(directory)) == {"tile/0/000.p/2"}  # genesis and boot
    for number in range(3):
        clock.ns += 1_000_000_000
        await log.record(note_entry(number))
        last = directory / f"tile/0/000.p/{log.size}"
        await until(last.exists)
    await log.close()
    leaves = leaves_of(directory)
    sizes = (2, 3, 4, 5, 6)  # with `shutdown`
    assert standing(directory) == {
        f"tile/0/000.p/{size}": b"".join(leaves[:size]) for size in sizes
    }
    log = open_log()
    await log.start()
    await asyncio.gather(*(log.record(note_entry(number)) for number in range(250)))
    await log.close()
    assert standing(directory) == tiles_for(leaves_of(directory))


async def test_tiles_of_a_second_opening_go_on_where_the_first_ended(
    written: Path, open_log: Open
) -> None:
    log = open_log()
    await log.start()
    await asyncio.gather(*(log.record(note_entry(number)) for number in range(RECORDS)))
    await log.close()
    expected = tiles_for(leaves_of(written))
    assert expected.items() <= standing(written).items()
    assert verify(written).valid


Harm = Callable[[Path], None]


def _lose(name: str) -> Harm:
    def harm(directory: Path) -> None:
        (directory / name).unlink()

    return harm


def _cut(name: str, size: int) -> Harm:
    def harm(directory: Path) -> None:
        (directory / name).write_bytes((directory / name).read_bytes()[:size])

    return harm


def _blank(name: str, begin: int, end: int) -> Harm:
    def harm(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[:begin] + bytes(end - begin) + data[end:])

    return harm


def _lose_all(directory: Path) -> None:
    shutil.rmtree(directory / "tile")


@pytest.mark.req("AUD-02")
@pytest.mark.parametrize(
    "harm",
    [
        _lose_all,
        _lose("tile/0/000"),
        _lose("tile/0/002.p/91"),
        _lose("tile/1/000.p/2"),
        _cut("tile/0/001", 0),
        _cut("tile/0/001", 4096 + 7),
        _cut("tile/0/002.p/91", 33),
        _blank("tile/0/000", 4096, 8192),
        _blank("tile/0/002.p/91", 0, 512),
    ],
)
async def test_a_tile_that_is_missing_or_torn_is_made_anew(
    written: Path, open_log: Open, harm: Harm
) -> None:
    before = {name: data for name, data in standing(written).items() if ".p/" not in name}
    harm(written)
    log = open_log()
    await log.close()
    assert before.items() <= standing(written).items()
    assert tiles_for(leaves_of(written)).items() <= standing(written).items()
    assert verify(written).valid


async def test_partial_tiles_that_a_crash_left_beside_the_full_one_are_deleted(
    written: Path, open_log: Open
) -> None:
    folder = written / "tile" / "0" / "001.p"
    folder.mkdir()
    full = (written / "tile" / "0" / "001").read_bytes()
    (folder / "9").write_bytes(full[: 9 * 32])
    (folder / "10.new").write_bytes(b"")
    assert verify(written).valid
    await open_log().close()
    assert not folder.exists()


@pytest.mark.req("AUD-02")
@pytest.mark.parametrize(
    ("name", "offset", "seq"),
    [
        ("tile/0/000", 17, 17),
        ("tile/0/001", 255, 511),
        ("tile/0/002.p/91", 90, 602),
        ("tile/1/000.p/2", 1, 256),
    ],
)
async def test_a_tile_that_contradicts_the_records_is_damage_at_that_record(
    written: Path, open_log: Open, name: str, offset: int, seq: int
) -> None:
    data = bytearray((written / name).read_bytes())
    data[offset * 32 + 3] ^= 1
    (written / name).write_bytes(data)
    before = every_file(written)
    (finding,) = verify(written).findings
    assert (finding.kind, finding.seq, finding.place) == ("edited", seq, f"{name}:{offset}")
    with pytest.raises(ConfigurationError, match=rf"{name}:{offset}`, record {seq}: edited: the"):
        open_log()
    after = every_file(written)
    assert {path for path in after if after[path] != before.get(path)} <= {written / "LOCK"}


async def test_a_partial_tile_beside_a_full_one_is_held_against_the_records_too(
    written: Path, open_log: Open
) -> None:
    (written / "tile" / "0" / "000.p").mkdir()
    (written / "tile" / "0" / "000.p" / "1").write_bytes(b"x" * 32)
    (finding,) = verify(written).findings
    assert (finding.seq, finding.place) == (0, "tile/0/000.p/1:0")
    with pytest.raises(ConfigurationError, match="record 0: edited"):
        open_log()


@pytest.mark.req("AUD-02")
async def test_tiles_tell_of_records_that_were_cut_from_the_end(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await log.record(note_entry())
    await log.close()
    (segment,) = list_segments(directory)
    kept = segment.read_bytes().splitlines(keepends=True)[:-2]
    segment.write_bytes(b"".join(kept))
    (directory / "checkpoint").write_text(orjson.loads(kept[-1])["cp"])
    (finding,) = verify(directory).findings
    assert (finding.kind, finding.seq) == ("truncated", 3)
    with pytest.raises(ConfigurationError, match="hashes of record 3 and more, which are gone"):
        open_log()


@pytest.mark.req("AUD-02")
async def test_tiles_never_lie_behind_the_copy_of_the_checkpoint(
    open_log: Open, directory: Path, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    replace = files.replace

    def look(path: Path, data: bytes) -> None:
        if path.name == "checkpoint":
            expected = tiles_for(leaves_of(directory)[: parse(data.decode()).checkpoint.size])
            assert expected.items() <= standing(directory).items()
            seen.append(len(expected))
        replace(path, data)

    monkeypatch.setattr(files, "replace", look)
    log = open_log()
    await log.start()
    for _ in range(3):
        await asyncio.gather(*(log.record(note_entry(number)) for number in range(200)))
    await log.close()
    assert seen[-1] == 4


async def test_hashes_are_found_with_and_without_tiles(written: Path) -> None:
    leaves = leaves_of(written)
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    for harm in (lambda _: None, _lose("tile/0/001"), _lose("tile/1/000.p/2"), _lose_all):
        harm(written)
        reader = TileReader(written)
        assert root_of(len(leaves), reader.node) == tree.root()
        assert root_of(256, TileReader(written).node) == hash_node(
            reader.node(7, 0), reader.node(7, 1)
        )
    with pytest.raises(LookupError, match="the log has no record 603"):
        TileReader(written).node(0, 603)
    with pytest.raises(LookupError, match="the log has no record"):
        TileReader(written).node(8, 2)


def test_the_writer_s_memory_answers_for_what_is_not_yet_in_a_tile(tmp_path: Path) -> None:
    writer = TileWriter(tmp_path, Files(), full=[], edges=[])
    tree = Tree()
    for number in range(3):
        leaves = [hash_leaf(b"%d.%d" % (number, at)) for at in range(300)]
        writer.add(leaves)
        for leaf in leaves:
            tree.append(leaf)
        assert root_of(tree.size, writer.node) == tree.root()
        with pytest.raises(LookupError, match=f"no record {tree.size}"):
            writer.node(0, tree.size)
    assert not standing(tmp_path)
    writer.write_full()
    assert set(standing(tmp_path)) == {"tile/0/000", "tile/0/001", "tile/0/002"}
    assert root_of(tree.size, writer.node) == tree.root()


async def test_a_full_disk_lets_tiles_lie_behind_until_there_is_room(
    open_log: Open, directory: Path, files: FaultyFiles, clock: StillClock
) -> None:
    log = open_log(reserve_bytes=65_536)
    await log.start()
    recorded = [await log.record_intent(intent(number)) for number in range(3)]
    files.full_after = 10
    clock.ns += 1_000_000_000
    for one in recorded:
        await log.record_outcome(outcome(one))
    assert log.is_full
    behind = set(standing(directory))
    assert f"tile/0/000.p/{log.size}" not in behind
    files.full_after = None
    clock.ns += 1_000_000_000
    await until(lambda: not log.is_full)
    clock.ns += 1_000_000_000
    await log.record(note_entry())
    await log.close()
    assert tiles_for(leaves_of(directory)).items() <= standing(directory).items()
    assert [record["type"] for record in records_of(directory)][-1] == "shutdown"
