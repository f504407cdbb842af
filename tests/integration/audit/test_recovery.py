"""Opening a log after any ending: what is cut, and what is never touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_verify import verify
from gateway.core.errors import ConfigurationError
from tests.integration.audit.parts import Open, note_entry, records_of


@pytest.fixture
async def written(open_log: Open, directory: Path) -> bytes:
    """A log of five records in four batches, closed, without what follows a batch later."""
    log = open_log()
    await log.start()
    for number in range(2):
        await log.record(note_entry(number))
    await log.close()
    (directory / "checkpoint").unlink()
    shutil.rmtree(directory / "tile")
    return list_segments(directory)[0].read_bytes()


def _last_batch(content: bytes) -> int:
    """Where the last batch begins."""
    return content.rindex(b'\n{"boot"') + 1


def _put(directory: Path, content: bytes) -> Path:
    segment = directory / f"{0:020d}.jsonl"
    segment.write_bytes(content)
    (directory / "checkpoint").unlink(missing_ok=True)
    shutil.rmtree(directory / "tile", ignore_errors=True)
    return segment


@pytest.mark.req("GW-13")
async def test_a_batch_torn_at_any_byte_is_cut_and_kept_aside(
    written: bytes, open_log: Open, directory: Path
) -> None:
    start = _last_batch(written)
    for end in [start + 1, *range(start + 7, len(written) - 1, 31), len(written) - 1]:
        segment = _put(directory, written[:end])
        log = open_log()
        assert log.size == 5  # genesis, boot, two records, and the new boot
        await log.close()
        boot = records_of(directory)[4]
        assert boot["type"] == "boot"
        assert boot["cut"]["bytes"] == end - start
        kept = directory / boot["cut"]["kept_in"]
        assert kept.read_bytes() == written[start:end]
        assert verify(directory).valid
        kept.unlink()
        assert segment.exists()


async def test_a_second_torn_batch_does_not_overwrite_the_first(
    written: bytes, open_log: Open, directory: Path
) -> None:
    for kept in ("torn", "torn.2"):
        _put(directory, written[:-20])
        await open_log().close()
        assert (directory / f"{0:020d}.jsonl.{kept}").exists()


async def test_a_log_torn_in_its_very_first_batch_begins_anew(
    written: bytes, open_log: Open, directory: Path
) -> None:
    _put(directory, written[:100])
    await open_log().close()
    records = records_of(directory)
    assert [record["type"] for record in records] == ["genesis", "boot", "shutdown"]
    assert records[1]["cut"]["bytes"] == 100


async def test_a_batch_with_a_hole_of_unwritten_blocks_is_cut(
    written: bytes, open_log: Open, directory: Path
) -> None:
    start = _last_batch(written)
    _put(directory, written[:start] + bytes(64) + written[start + 64 :])
    log = open_log()
    assert log.size == 5
    await log.close()
    assert verify(directory).valid


@pytest.mark.req("GW-13")
async def test_a_change_of_any_byte_refuses_to_start_and_touches_nothing(
    written: bytes, open_log: Open, directory: Path, signer: Ed25519PrivateKey
) -> None:
    for at in range(0, len(written) - 1, 23):
        changed = bytearray(written)
        changed[at] ^= 1 << at % 7
        segment = _put(directory, bytes(changed))
        with pytest.raises(ConfigurationError, match=r"audit log is damaged at `.*; keep a copy"):
            open_log()
        assert segment.read_bytes() == bytes(changed)
    _put(directory, written[:-1] + b"x")
    with pytest.raises(ConfigurationError, match="where the line should end"):
        open_log()


async def test_damage_is_named_by_file_line_and_kind(
    written: bytes, open_log: Open, directory: Path
) -> None:
    lines = written.splitlines(keepends=True)
    del lines[3]
    _put(directory, b"".join(lines))
    with pytest.raises(ConfigurationError, match=r"0\.jsonl`, line 4: deleted: "):
        open_log()


async def test_holes_before_other_batches_are_damage(
    written: bytes, open_log: Open, directory: Path
) -> None:
    _put(directory, written[:20] + bytes(5) + written[25:])
    with pytest.raises(ConfigurationError, match="damaged"):
        open_log()


@pytest.mark.req("GW-13")
async def test_a_log_shorter_than_the_copy_of_its_checkpoint_is_damaged(
    written: bytes, open_log: Open, directory: Path
) -> None:
    _put(directory, written)
    await open_log().close()
    list_segments(directory)[0].write_bytes(written[: _last_batch(written)])
    with pytest.raises(ConfigurationError, match="truncated: records 4 to 6 are gone"):
        open_log()
    list_segments(directory)[0].write_bytes(written[:-20])
    with pytest.raises(ConfigurationError, match="truncated"):
        open_log()
    assert list_segments(directory)[0].read_bytes() == written[:-20]
    list_segments(directory)[0].unlink()
    with pytest.raises(ConfigurationError, match="truncated"):
        open_log()


async def test_a_copy_of_the_checkpoint_that_is_none_is_told(
    written: bytes, open_log: Open, directory: Path
) -> None:
    (directory / "checkpoint").write_text("nonsense")
    with pytest.raises(ConfigurationError, match="delete it"):
        open_log()


@pytest.mark.req("GW-13")
async def test_damage_in_an_earlier_segment_is_never_cut(open_log: Open, directory: Path) -> None:
    log = open_log(segment_max_bytes=1)
    await log.start()
    for number in range(3):
        await log.record(note_entry(number))
    await log.close()
    first, second, *_ = list_segments(directory)
    content = first.read_bytes()
    first.write_bytes(content[:-10])
    with pytest.raises(ConfigurationError, match="torn"):
        open_log()
    first.write_bytes(content[: content.index(b"\n") + 1])
    with pytest.raises(ConfigurationError, match="torn"):
        open_log()
    first.write_bytes(content)
    second.unlink()
    with pytest.raises(ConfigurationError, match="segment before this one is missing"):
        open_log()


async def test_an_empty_last_segment_is_gone_on_in(open_log: Open, directory: Path) -> None:
    log = open_log(segment_max_bytes=1)
    await log.close()
    fresh = directory / f"{3:020d}.jsonl"
    fresh.touch()
    await open_log().close()
    assert fresh.stat().st_size > 0
    assert verify(directory).valid
