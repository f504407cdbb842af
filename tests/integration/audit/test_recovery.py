"""Opening a log after any ending: what is cut, and what is never touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_verify import verify
from gateway.core.approvals.holds import Hold
from gateway.core.errors import ConfigurationError
from gateway.core.kills.kill import Kill, build_kill_lift, build_kill_set
from gateway.core.records.audit_admin import build_hold, build_redact
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


@pytest.mark.req("GW-13", "GW-18")
async def test_a_log_brings_back_what_no_older_state_may_undo(open_log: Open) -> None:
    person = Kill(id="a" * 32, kind="human", target="olga", at=0)
    agent = Kill(id="b" * 32, kind="agent", target="bot", at=0)
    kept = Hold(id="kept", subject="key-1", state="set", nonce="n" * 43, asked_by="ann")
    gone = replace(kept, id="gone", subject="key-2")
    log = open_log()
    await log.start()
    entries = (
        build_kill_set(person, "op-1", lambda name: f"key-of-{name}"),
        build_kill_set(agent, "op-2", str),
        build_kill_lift(agent, "op-3", str, why="command"),
        note_entry(4, type="run.end", fields={"run": "run-1"}),
        build_hold("hold.set", "op-5", kept, confirmed_by="ben"),
        build_hold("hold.set", "op-6", gone, confirmed_by="ben"),
        build_hold("hold.release", "op-7", gone, confirmed_by="ben"),
        build_redact("op-8", by="ann", key_id="key-3", basis="request", openings=0, reason="asked"),
        note_entry(9, type="registry.change", fields={"entry": "agent:bot", "version": 3}),
    )
    receipts = [await log.record(entry) for entry in entries]
    await log.close()
    again = open_log()
    found = again.recovered
    assert found.ended_runs == {"run-1"}
    assert found.holds == {"kept": "key-1", "gone": None}
    assert found.redacted == {"key-3": receipts[7].seq}
    assert {name: kill and kill.kind for name, kill in found.kills.items()} == {
        person.id: "human",
        agent.id: None,
    }
    assert found.stopped.voids("key-of-olga", 1_700_000_000)
    assert found.registered == {"agent:bot": 3}
    await again.close()


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
