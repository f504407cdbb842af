from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_verify import verify
from gateway.core.log.merkle import hash_leaf

WRITER = Path(__file__).with_name("writer_process.py")
CYCLES = 6


def _write_until_killed(directory: Path, records: int) -> list[tuple[int, str]]:
    """Let a process write, kill it hard, and return the receipts that it had got."""
    with subprocess.Popen([sys.executable, WRITER, directory], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(records)]
        process.kill()
        lines += process.stdout.read().splitlines(keepends=True)
    whole = [line.split() for line in lines if line.endswith(b"\n")]
    return [(int(seq), leaf.decode()) for seq, leaf in whole]


@pytest.mark.req("GW-13")
def test_no_acknowledged_record_is_lost_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    promised: dict[int, str] = {}
    for cycle in range(CYCLES):
        for seq, leaf in _write_until_killed(tmp_path, 40 + 61 * cycle):
            assert seq not in promised
            promised[seq] = leaf
    _write_until_killed(tmp_path, 1)
    leaves = [
        hash_leaf(line).hex()
        for segment in list_segments(tmp_path / "audit")
        for line in segment.read_bytes().split(b"\n")
        if line.startswith((b'{"args"', b'{"boot"'))
    ]
    assert len(promised) > 100 * CYCLES // 2
    assert {seq: leaves[seq] for seq in promised} == promised


@pytest.mark.req("GW-13")
def test_a_killed_writer_leaves_a_log_that_verifies_after_the_next_start(tmp_path: Path) -> None:
    for _ in range(2):
        _write_until_killed(tmp_path, 30)
    kept = [finding.kind for finding in verify(tmp_path / "audit").findings]
    assert kept in ([], ["torn"])  # before the next start, only the last batch may be in pieces
