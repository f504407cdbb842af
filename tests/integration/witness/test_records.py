"""`countersign audit witnesses`: what a log's own records say of its witnesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.audit.log_files import LogFiles
from gateway.adapters.witness.witness_records import read_witnesses
from gateway.cli import build
from gateway.core.entry import Entry
from gateway.core.log import note as notes
from gateway.core.log.cosignature import Cosignature, build_message, build_witnessed
from gateway.core.log.merkle import is_consistent
from tests.integration.audit.conftest import clock, directory, files, open_log, signer
from tests.integration.audit.parts import Open, StillClock
from tests.integration.witness.parts import WitnessIdentity

__all__ = ["clock", "directory", "files", "open_log", "signer"]
pytestmark = pytest.mark.req("AUD-08")

ONE, TWO = (WitnessIdentity(f"witness.example/{n}", n) for n in (1, 2))
SECOND_NS = 1_000_000_000


def cosign(identity: WitnessIdentity, text: bytes, time_s: int) -> Cosignature:
    signature = identity.private.sign(build_message(time_s, text))
    return Cosignature(identity.key.name, identity.key.id, time_s, signature)


async def witnessed_log(open_log: Open, directory: Path, clock: StillClock) -> None:
    """Make a log that one witness saw at 2 and both at 3 records, and that then went on."""
    log = open_log()
    await log.start()
    for size, seen_by in ((2, [ONE]), (3, [ONE, TWO])):
        newest = LogFiles(directory).newest()
        assert newest is not None
        signed = notes.parse(newest)
        assert signed.checkpoint.size == 2  # the copy may lie behind
        text = notes.build_text(notes.Checkpoint(signed.checkpoint.origin, size, bytes(32)))
        now_s = clock.ns // SECOND_NS
        found = [cosign(identity, text, now_s) for identity in seen_by]
        checkpoint = notes.Checkpoint(signed.checkpoint.origin, size, bytes(32))
        await log.record(build_witnessed("op", checkpoint, found))
        clock.ns += 60 * SECOND_NS
    for _ in range(2):
        await log.record(Entry(type="config.change", op="op", fields={}))
    await log.close()


async def test_each_witness_is_shown_with_what_came_after_it(
    open_log: Open, directory: Path, clock: StillClock
) -> None:
    await witnessed_log(open_log, directory, clock)
    report = read_witnesses(directory, [ONE.key])
    assert report.records == 7
    one, two = report.witnesses
    assert (one.witness, one.size, one.good) == ("witness.example/1", 3, True)
    assert (two.witness, two.size, two.good) == ("witness.example/2", 3, None)
    assert (one.records_beyond, one.seconds_beyond) == (3, 60)  # two records and `shutdown`

    runner, app = CliRunner(), build("audit")
    shown = runner.invoke(app, ["audit", "witnesses", str(directory), "--vkey", ONE.vkey])
    assert shown.exit_code == 0, shown.output
    assert "witness.example/1  3 records at 2023-11-14T22:14:20Z (good)" in shown.output
    assert "(not verified); beyond it 3 records, 60 s" in shown.output
    lines = runner.invoke(app, ["audit", "witnesses", str(directory), "-o", "jsonl"]).output
    assert [json.loads(line)["size"] for line in lines.splitlines()] == [3, 3]


async def test_a_cosignature_that_is_not_its_witnesss_is_told(
    open_log: Open, directory: Path, clock: StillClock, tmp_path: Path
) -> None:
    log = open_log()
    await log.start()
    checkpoint = notes.Checkpoint("gateway.example.com/audit", 2, bytes(32))
    found = [cosign(ONE, b"another text", clock.ns // SECOND_NS)]
    await log.record(build_witnessed("op", checkpoint, found))
    unreadable = {"size": 2, "root": "zz", "cosignatures": ["nonsense"]}
    await log.record(Entry(type="checkpoint.witnessed", op="op", fields=unreadable))
    await log.close()
    keys = tmp_path / "keys"
    keys.write_text(f"{ONE.vkey}\n{TWO.vkey}\n")
    shown = CliRunner().invoke(
        build("audit"), ["audit", "witnesses", str(directory), "--vkey", str(keys)]
    )
    assert shown.exit_code == 8
    assert "(BAD)" in shown.output
    assert "a cosignature is not its witness's" in shown.output


async def test_a_log_without_witnesses_and_a_folder_without_log_are_told_apart(
    open_log: Open, directory: Path, tmp_path: Path
) -> None:
    await open_log().close()
    runner, app = CliRunner(), build("audit")
    shown = runner.invoke(app, ["audit", "witnesses", str(directory)])
    assert (shown.exit_code, "no witness has cosigned" in shown.output) == (0, True)
    shown = runner.invoke(app, ["audit", "witnesses", str(directory), "-o", "json"])
    assert json.loads(shown.output)["witnesses"] == []
    assert runner.invoke(app, ["audit", "witnesses", str(tmp_path / "no")]).exit_code == 5
    wrong = runner.invoke(app, ["audit", "witnesses", str(directory), "--vkey", "a+b"])
    assert wrong.exit_code == 2


async def test_proofs_from_the_files_of_a_log_add_up_or_are_none(
    open_log: Open, directory: Path, clock: StillClock
) -> None:
    files = LogFiles(directory)
    assert files.newest() is None
    log = open_log()
    await log.start()
    seen = []
    for _ in range(5):
        for _ in range(100):
            await log.record(Entry(type="config.change", op="op", fields={}))
        clock.ns += 2 * SECOND_NS
        await log.record(Entry(type="config.change", op="op", fields={}))
        newest = files.newest()
        assert newest is not None
        seen.append(notes.parse(newest).checkpoint)
    await log.close()
    newest = files.newest()
    assert newest is not None
    last = notes.parse(newest).checkpoint
    for old in seen:
        proof = files.prove(old.size, last)
        assert old == last or is_consistent(old.size, old.root, last.size, last.root, proof)
    with pytest.raises(ValueError, match="add up"):
        files.prove(seen[0].size, notes.Checkpoint(last.origin, last.size, bytes(32)))
    with pytest.raises(LookupError):
        files.prove(last.size, notes.Checkpoint(last.origin, last.size + 64, last.root))
