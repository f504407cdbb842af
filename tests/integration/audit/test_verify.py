"""Verification of a directory, by the function and by the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from gateway.adapters.audit import audit_reader
from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_keys import vkey_of
from gateway.adapters.audit.audit_verify import verify
from gateway.cli import audit as command
from gateway.core.entry import Entry
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits
from gateway.core.log.chain import RECORD_MAX_BYTES
from tests.integration.audit.parts import ORIGIN, Open, intent, note_entry, outcome

MAIN = "from gateway.cli import main; main()"


def _edit_the_call(directory: Path) -> str:
    """Change the call's record; return the name of its segment."""
    segment = list_segments(directory)[1]
    segment.write_bytes(segment.read_bytes().replace(b"run-1", b"run-2"))
    return segment.name


@pytest.fixture
async def written(open_log: Open, directory: Path) -> Path:
    """A closed log of a call and a record over three segments; return its directory."""
    log = open_log(segment_max_bytes=800)
    await log.start()
    await log.record_outcome(outcome(await log.record_intent(intent(1))))
    await log.record(note_entry(2))
    await log.close()
    return directory


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


@pytest.mark.req("GW-13")
def test_a_log_as_written_is_valid(written: Path, signer: Ed25519PrivateKey) -> None:
    report = verify(written, vkey=vkey_of(signer, ORIGIN), every_signature=True)
    assert (report.valid, report.findings, report.warnings) == (True, (), ())
    assert (report.records, report.origin) == (6, ORIGIN)
    assert report.first_ts == report.last_ts is not None


def test_a_key_read_from_the_log_itself_is_warned_of(written: Path) -> None:
    assert verify(written).warnings[0].startswith("UNPINNED_KEY")


@pytest.mark.req("GW-13")
def test_a_change_of_any_single_byte_is_found(written: Path, signer: Ed25519PrivateKey) -> None:
    vkey = vkey_of(signer, ORIGIN)
    for path in [*list_segments(written), written / "checkpoint"]:
        content = path.read_bytes()
        for at in range(len(content)):
            changed = bytearray(content)
            changed[at] ^= 1 << at % 8
            path.write_bytes(changed)
            assert not verify(written, vkey=vkey).valid, (path.name, at)
        path.write_bytes(content)
    assert verify(written, vkey=vkey).valid


def test_a_finding_names_record_file_and_line(written: Path) -> None:
    name = _edit_the_call(written)
    (finding,) = verify(written).findings
    assert (finding.kind, finding.seq) == ("edited", 2)
    assert finding.place == f"{name}:2"


async def test_a_record_that_is_longer_than_the_format_allows_is_told(
    open_log: Open, directory: Path
) -> None:
    """As by the stand-alone verifiers: both judge by the same page."""
    entry = Entry(type="x.long", op="op", fields={"x": "y" * RECORD_MAX_BYTES})
    log = open_log(limits=Limits(record_max_bytes=2 * RECORD_MAX_BYTES))
    await log.start()
    receipt = await log.record(entry)
    await log.close()
    (finding,) = verify(directory).findings
    assert (finding.kind, finding.seq) == ("not_canonical", receipt.seq)
    with pytest.raises(ConfigurationError, match="longer than the format allows"):
        open_log()


def test_a_missing_segment_is_deleted(written: Path) -> None:
    list_segments(written)[1].unlink()
    (finding,) = verify(written).findings
    assert finding.kind == "deleted"
    assert "no segment starts at" in finding.what


def test_a_missing_end_is_truncated(written: Path) -> None:
    list_segments(written)[-1].unlink()
    (finding,) = verify(written).findings
    assert (finding.kind, finding.place) == ("truncated", "checkpoint")


@pytest.mark.parametrize("name", ["0" * 19 + "1", "9" * 20])
def test_an_empty_file_named_like_a_segment_is_no_part_of_the_log(written: Path, name: str) -> None:
    (written / f"{name}.jsonl").touch()
    assert verify(written).findings == ()


def test_behind_a_copy_of_the_checkpoint_that_is_none_the_log_is_read_all_the_same(
    written: Path,
) -> None:
    records = verify(written).records
    (written / "checkpoint").write_text("nonsense")
    report = verify(written)
    (finding,) = report.findings
    assert (finding.kind, finding.seq, finding.place) == ("edited", records - 1, "checkpoint")
    assert report.records == records
    name = _edit_the_call(written)
    (finding,) = verify(written).findings
    assert (finding.seq, finding.place) == (2, f"{name}:2")


def test_an_end_without_checkpoint_is_torn_unless_it_is_being_written(
    written: Path, open_log: Open
) -> None:
    last = list_segments(written)[-1]
    content = last.read_bytes()
    (written / "checkpoint").unlink()
    for kept in (content[: content.rindex(b"\n", 0, -1) + 1], content[:-1]):
        last.write_bytes(kept)
        (finding,) = verify(written).findings
        assert finding.kind == "torn"


async def test_a_batch_on_its_way_is_no_damage(open_log: Open, directory: Path) -> None:
    log = open_log()
    segment = list_segments(directory)[0]
    content = segment.read_bytes()
    line = content.splitlines(keepends=True)[0]
    segment.write_bytes(content + line[:50])
    report = verify(directory)
    assert report.valid
    assert "being written" in report.warnings[-1]
    segment.write_bytes(content + b"x" * 70_000)  # more than a line: no batch on its way
    assert not verify(directory).valid
    segment.write_bytes(content)
    await log.close()


def test_another_key_is_told(written: Path) -> None:
    other = vkey_of(Ed25519PrivateKey.from_private_bytes(bytes(32)), ORIGIN)
    (finding, *_) = verify(written, vkey=other).findings
    assert finding.kind == "wrong_key"
    (written / "log.vkey").write_text("nonsense")
    assert verify(written).findings[0].place == "log.vkey"
    with pytest.raises(ValueError, match="verifier key"):
        verify(written, vkey="nonsense")


@pytest.mark.req("GW-13")
def test_the_command_says_valid_and_exits_with_0(written: Path, tmp_path: Path) -> None:
    vkey = (written / "log.vkey").read_text().strip()
    (tmp_path / "pinned").write_text(vkey + "\n")
    for key in (vkey, tmp_path / "pinned"):
        result = _run("verify", written, "--vkey", key, "--checkpoint", written / "checkpoint")
        assert result.exit_code == 0
        assert "valid: every record" in result.stdout
        assert result.stderr == ""


@pytest.mark.req("GW-13")
def test_the_command_names_the_change_and_exits_with_8(written: Path) -> None:
    _edit_the_call(written)
    result = _run("verify", written)
    assert result.exit_code == 8
    assert "edited at record 2" in result.stdout
    assert "UNPINNED_KEY" in result.stderr
    report = json.loads(_run("verify", written, "-o", "json").stdout)
    assert (report["valid"], report["findings"][0]["kind"]) == (False, "edited")


def test_the_command_tells_what_it_cannot_use(written: Path, tmp_path: Path) -> None:
    for arguments in (
        ["verify", written, "--vkey", "a+b"],
        ["verify", written, "--vkey", tmp_path / "none"],
        ["verify", written, "--checkpoint", tmp_path],
        ["verify", written, "--checkpoint", written / "log.vkey"],
    ):
        result = _run(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert "[Errno" not in result.stderr
    for name in ("verify", "tail", "show"):
        assert _run(name, tmp_path, *(["1"] if name == "show" else [])).exit_code == 5


def test_tail_prints_the_last_records(written: Path) -> None:
    lines = _run("tail", written, "-n", "5").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "call.intent" in lines[1]
    assert "billing.refund" in lines[1]
    assert len(_run("tail", written, "-n", "100").stdout.splitlines()) == 6
    assert _run("tail", written, "-n", "0").stdout == ""
    records = [
        json.loads(line) for line in _run("tail", written, "-o", "jsonl").stdout.splitlines()
    ]
    assert [record["seq"] for record in records] == list(range(6))


def test_tail_tells_who_where_and_how_it_ended(written: Path) -> None:
    shown = _run("tail", written, "-n", "4", "-o", "json").stdout
    assert '"status": "ok"' in shown
    assert "2023-11-14T22:13:20.000+00:00" in _run("tail", written, "-n", "1").stdout


def test_show_prints_an_operation_or_one_record(written: Path) -> None:
    both = _run("show", written, "op-1", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["type"] for line in both] == ["call.intent", "call.outcome"]
    assert json.loads(_run("show", written, "4").stdout)["op"] == "op-2"
    for unknown in ("op-9", "99", "9" * 21):
        result = _run("show", written, unknown)
        assert (result.exit_code, result.stdout) == (5, "")


async def test_following_yields_records_as_they_come(open_log: Open, directory: Path) -> None:
    log = open_log(segment_max_bytes=1000)
    await log.start()
    pauses = iter([True, True, False])

    def follow() -> Iterator[int]:
        for record in audit_reader.follow(directory, 1, lambda: next(pauses)):
            yield record["seq"]

    following = follow()
    assert next(following) == 1
    await log.record(note_entry(1))
    assert next(following) == 2
    await log.record(note_entry(2))
    await log.record(note_entry(3))
    assert list(following) == [3, 4]


def test_what_is_no_record_ends_the_reading(written: Path) -> None:
    segment = list_segments(written)[-1]
    segment.write_bytes(b'["not a record"]\n' + segment.read_bytes())
    assert [record["seq"] for record in audit_reader.read_records(written)] == list(
        range(int(segment.stem))
    )


def test_tail_follows_until_it_is_interrupted(written: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "audit", "tail", written, "-f"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert "shutdown" in lines[-1]
