"""`countersign audit checkpoint|prove|check-proof`: what is proven, and what is refused."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_keys import vkey_of
from gateway.adapters.audit.audit_proofs import LogProver, head_of, load_keys, newest_head
from gateway.cli import build
from gateway.cli.audit import app
from gateway.core.entry import Entry
from gateway.core.errors import AuditError
from gateway.core.log.merkle import hash_leaf, is_consistent
from gateway.core.log.note import Checkpoint, build_key, parse, sign
from gateway.core.log.tlog_proof import find_fault, parse_proof
from tests.integration.audit.parts import (
    ORIGIN,
    Open,
    StillClock,
    intent,
    note_entry,
    outcome,
    records_of,
)

RECORDS = 300
ROTATE = Entry(type="key.rotate", op="rotation", fields={"why": "command"})


@pytest.fixture
async def written(open_log: Open, directory: Path) -> Path:
    """A closed log of one call and many records; its batches end at 2, 3, 4, … and at the end."""
    log = open_log(segment_max_bytes=40_000)
    await log.start()
    await log.record_outcome(outcome(await log.record_intent(intent(1))))
    await asyncio.gather(*(log.record(note_entry(100 + number)) for number in range(RECORDS)))
    await log.close()
    return directory


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.req("AUD-02")
def test_the_newest_checkpoint_is_printed_as_it_stands(written: Path) -> None:
    result = run("checkpoint", written)
    assert result.stdout == (written / "checkpoint").read_text()
    told = json.loads(run("checkpoint", written, "-o", "json").stdout)
    assert told["note"] == result.stdout
    assert (told["origin"], told["size"], told["witnesses"]) == (ORIGIN, RECORDS + 5, [])


@pytest.mark.req("AUD-02")
def test_every_record_is_proven_under_the_newest_checkpoint(written: Path) -> None:
    keys = load_keys(written)
    prover = LogProver(written, newest_head(written), keys)
    for seq in range(RECORDS + 5):
        proven = prover.prove(seq)
        found = parse_proof(proven.proof)
        assert (found.index, orjson.loads(proven.line)["seq"]) == (seq, seq)
        assert find_fault(found, hash_leaf(proven.line), keys) is None


def test_a_record_and_its_proof_are_printed_one_after_the_other(written: Path) -> None:
    result = run("prove", 7, "--dir", written)
    line, _, proof = result.stdout.partition("\n")
    assert json.loads(line)["seq"] == 7
    assert find_fault(parse_proof(proof), hash_leaf(line.encode()), load_keys(written)) is None
    told = json.loads(run("prove", 7, "--dir", written, "-o", "json").stdout)
    assert told == {"seq": 7, "record": line, "proof": proof}


@pytest.mark.req("AUD-02")
def test_an_operation_is_proven_record_by_record_and_checked_without_the_log(
    written: Path, tmp_path: Path, signer: Ed25519PrivateKey
) -> None:
    out, vkey = tmp_path / "out", vkey_of(signer, ORIGIN)
    result = run("prove", "op-1", "--dir", written, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "2.json",
        "2.json.tlog-proof",
        "3.json",
        "3.json.tlog-proof",
    ]
    assert result.stdout.split() == [
        str(out / name) for name in sorted(p.name for p in out.iterdir())
    ]
    proof = out / "3.json.tlog-proof"
    checked = run("check-proof", proof, "--record", out / "3.json", "--vkey", vkey)
    assert checked.exit_code == 0
    assert checked.stdout == f"record 3 of `{ORIGIN}` is among its first {RECORDS + 5}\n"
    leaf = hash_leaf((out / "3.json").read_bytes()).hex()
    assert run("check-proof", proof, "--leaf", leaf, "--vkey", written / "log.vkey").exit_code == 0
    other = run("check-proof", proof, "--record", out / "2.json", "--vkey", vkey)
    assert other.exit_code == 8
    assert other.stderr == (
        "error: not proven: record and hashes do not add up to the root of its checkpoint\n"
    )


@pytest.mark.req("AUD-02")
def test_a_record_is_proven_under_an_older_checkpoint(written: Path, tmp_path: Path) -> None:
    by_size = run("prove", 1, "--dir", written, "--size", 3)
    assert parse_proof(by_size.stdout.partition("\n")[2]).signed.checkpoint.size == 3
    note = tmp_path / "note"
    note.write_text(head_of(written, 3).note)
    by_note = run("prove", 1, "--dir", written, "--checkpoint", note)
    assert by_note.stdout == by_size.stdout
    cosigned = note.read_text() + "— witness.example " + "A" * 102 + "==\n"
    note.write_text(cosigned)
    under = run("prove", 1, "--dir", written, "--checkpoint", note).stdout
    assert under.endswith(cosigned)


@pytest.mark.req("AUD-02")
def test_a_proof_of_growth_holds_between_two_checkpoints(written: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text(head_of(written, 3).note)
    by_size = run("prove", "--dir", written, "--consistency", 3)
    assert run("prove", "--dir", written, "--consistency", note).stdout == by_size.stdout
    head, _, newest = by_size.stdout.partition("\n\n")
    first, *hashes = head.split("\n")
    old, new = parse(note.read_text()).checkpoint, parse(newest).checkpoint
    assert first == "old 3"
    proof = [b64decode(line) for line in hashes]
    assert is_consistent(3, old.root, new.size, new.root, proof)
    between = run("prove", "--dir", written, "--consistency", 3, "--size", 4).stdout
    assert parse(between.partition("\n\n")[2]).checkpoint.size == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prove", 9999], 5, "no record 9999 under the checkpoint of 305 records"),
        (["prove", 3, "--size", 3], 5, "no record 3 under the checkpoint of 3 records"),
        (["prove", "nope"], 5, "no record of operation `nope` in"),
        (["prove", 1, "--size", 200], 5, "no checkpoint of 200 records; the next one has"),
        (["prove", 1, "--size", 9999], 5, "no checkpoint of 9999 records"),
        (["prove", 1, "--size", 0], 5, "no checkpoint of 0 records"),
        (["prove", "--consistency", 9999], 5, "of 305 records has not grown from 9999"),
        (["prove", "--consistency", 0], 5, "of 305 records has not grown from 0"),
        (["prove"], 2, "name a record or an operation, or else `--consistency`"),
        (["prove", 1, "--consistency", 3], 2, "or else `--consistency`"),
        (["prove", 1, "--size", 3, "--checkpoint", "x"], 2, "not both"),
        (["prove", 1, "--checkpoint", "nowhere"], 2, "error: `nowhere`: No such file or directory"),
        (["prove", 1, "--vkey", "a+b"], 2, "not an Ed25519 verifier key"),
    ],
)
def test_what_cannot_be_proven_is_told_plainly(
    written: Path, arguments: list[object], code: int, words: str
) -> None:
    result = run(*arguments, "--dir", written)
    assert result.exit_code == code
    assert words in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["checkpoint", "nowhere"], 5, "`nowhere` holds no audit log"),
        (["checkpoint", "--config", "nowhere.yaml"], 2, "or name the log's directory"),
        (["checkpoint", "x", "--config", "y"], 2, "not both"),
        (["check-proof", "nowhere", "--leaf", "00" * 32, "--vkey", "k"], 2, "nowhere"),
        (["check-proof", "nowhere", "--leaf", "00", "--vkey", "k"], 2, "not 32 bytes in hex"),
        (["check-proof", "nowhere", "--leaf", "zz" * 32, "--vkey", "k"], 2, "not 32 bytes in hex"),
        (["check-proof", "nowhere", "--vkey", "k"], 2, "give the record with `--record`"),
    ],
)
def test_what_is_not_there_is_told_plainly(arguments: list[object], code: int, words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, words in result.stderr) == (code, True)


@pytest.mark.req("GW-04")
def test_the_configuration_that_the_environment_names_leads_to_the_log(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gateway"
    assert CliRunner().invoke(build("init"), ["init", str(folder)]).exit_code == 0
    written.rename(folder / "audit")
    monkeypatch.setenv("COUNTERSIGN_CONFIG", str(folder / "countersign.yaml"))
    assert run("checkpoint").stdout == run("checkpoint", folder / "audit").stdout != ""
    assert run("checkpoint", "--config", "nowhere.yaml").exit_code == 2


def test_a_log_without_a_checkpoint_has_none_to_print(directory: Path) -> None:
    directory.mkdir()
    (directory / f"{0:020}.jsonl").touch()
    result = run("checkpoint", directory)
    assert (result.exit_code, result.stderr) == (
        5,
        f"error: `{directory}` holds no signed checkpoint\n",
    )


Change = Callable[[Path], None]


def _edit_a_record(directory: Path) -> None:
    segment = list_segments(directory)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"n":105', b'"n":106'))


def _edit_a_tile(directory: Path) -> None:
    tile = directory / "tile" / "0" / "000"
    data = bytearray(tile.read_bytes())
    data[10 * 32] ^= 1
    tile.write_bytes(data)


@pytest.mark.req("AUD-02")
@pytest.mark.parametrize("change", [_edit_a_record, _edit_a_tile])
def test_a_log_that_does_not_add_up_proves_nothing(written: Path, change: Change) -> None:
    seq = next(record["seq"] for record in records_of(written) if record.get("n") == 105)
    change(written)
    result = run("prove", seq, "--dir", written)
    assert result.exit_code == 8
    assert "do not add up to the root" in result.stderr
    assert "see `countersign audit verify`" in result.stderr
    assert not result.stdout


@pytest.mark.req("AUD-07")
async def test_a_key_of_an_early_epoch_is_enough_to_prove_what_later_ones_signed(
    open_log: Open, directory: Path, tmp_path: Path, clock: StillClock
) -> None:
    log = open_log(signer=KeyFile(tmp_path / "audit.pem"))
    await log.start()
    for _ in range(2):
        await log.rotate_key(ROTATE, clock.ns // 1000)
        await log.record(note_entry(1))
    await log.close()
    first, second, _ = (directory / "log.vkey").read_text().splitlines()
    newest = records_of(directory)[-1]["seq"]
    for vkey in (first, second):
        assert run("prove", newest, "--dir", directory, "--vkey", vkey).exit_code == 0
        grown = run("prove", "--dir", directory, "--consistency", 3, "--vkey", vkey)
        assert grown.exit_code == 0, grown.stderr

    # Without the log, a proof is of one epoch: which one is told.
    out = tmp_path / "out"
    assert run("prove", newest, "--dir", directory, "--out", out).exit_code == 0
    asked = (out / f"{newest}.json.tlog-proof", "--record", out / f"{newest}.json")
    last = (directory / "checkpoint").read_text().splitlines()[-1].split()[2]
    refused = run("check-proof", *asked, "--vkey", first)
    assert refused.exit_code == 8
    assert f"`{ORIGIN}+{b64decode(last)[:4].hex()}`: give that one" in refused.stderr
    assert run("check-proof", *asked, "--vkey", directory / "log.vkey").exit_code == 0


@pytest.mark.req("AUD-07")
async def test_a_key_that_nobody_before_has_named_is_not_followed(
    open_log: Open, directory: Path, tmp_path: Path, clock: StillClock
) -> None:
    log = open_log(signer=KeyFile(tmp_path / "audit.pem"))
    await log.start()
    await log.rotate_key(ROTATE, clock.ns // 1000)
    await log.close()
    pinned = vkey_of(Ed25519PrivateKey.from_private_bytes(bytes(32)), ORIGIN)
    forged = tmp_path / "forged"  # another log of this name, which the pinned key began by its word
    forged.mkdir()
    first = (directory / "log.vkey").read_text().splitlines()[0]
    for segment in list_segments(directory):
        changed = segment.read_bytes().replace(first.encode(), pinned.encode())
        (forged / segment.name).write_bytes(changed)
    refused = run("prove", 0, "--dir", forged, "--vkey", pinned)
    assert (refused.exit_code, refused.stdout) == (8, "")


@pytest.mark.req("AUD-02")
def test_a_checkpoint_of_another_history_proves_nothing(
    written: Path, tmp_path: Path, signer: Ed25519PrivateKey
) -> None:
    note = tmp_path / "note"
    key = build_key(ORIGIN, signer.public_key())
    note.write_text(sign(Checkpoint(ORIGIN, 4, bytes(32)), key, signer))
    grown = run("prove", "--dir", written, "--consistency", note)
    assert (grown.exit_code, grown.stdout) == (8, "")
    assert "the first 4 records are not those of the older checkpoint" in grown.stderr
    assert run("prove", 1, "--dir", written, "--checkpoint", note).exit_code == 8
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    pinned = vkey_of(other, ORIGIN)
    for what in (["1"], ["--consistency", "3"]):
        refused = run("prove", *what, "--dir", written, "--vkey", pinned)
        assert refused.exit_code == 8
        assert "not signed by a given key" in refused.stderr


async def test_records_are_proven_while_the_log_is_being_written(
    open_log: Open, directory: Path
) -> None:
    log = open_log()
    await log.start()
    await asyncio.gather(*(log.record(note_entry(number)) for number in range(RECORDS)))
    prover = LogProver(directory, newest_head(directory), load_keys(directory))
    assert prover.prove(RECORDS + 1).seq == RECORDS + 1
    with pytest.raises(LookupError, match="no record 302"):
        prover.prove(RECORDS + 2)
    with pytest.raises(AuditError, match="the first 4 records"):
        prover.prove_growth(4, bytes(32))


@pytest.mark.req("AUD-02")
async def test_outcomes_are_proven_at_once_while_tiles_fill(
    open_log: Open, signer: Ed25519PrivateKey
) -> None:
    log = open_log()
    await log.start()
    key = build_key(ORIGIN, signer.public_key())

    async def record_and_prove(number: int) -> None:
        receipt = await log.record(note_entry(number))
        proof = parse_proof(await log.prove(receipt))
        assert proof.index == receipt.seq
        assert find_fault(proof, receipt.leaf, [key]) is None

    first = await log.record(note_entry())
    for begin in range(0, 800, 40):
        await asyncio.gather(*(record_and_prove(begin + number) for number in range(40)))
    old = parse_proof(await log.prove(first))  # its tile is on the disk by now
    assert (old.index, find_fault(old, first.leaf, [key])) == (first.seq, None)
