"""What a person sees: plain answers, exit codes, and words."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.verify.conftest import Judge, found
from tests.unit.verify.logbuilder import (
    Log,
    TestKey,
    canonical,
    inclusion_path,
    leaf_of,
    proof_text,
    tree_root,
)

pytestmark = pytest.mark.req("AUD-03")
VECTORS = Path(__file__).parents[4] / "shared" / "vectors"


@pytest.fixture
def log() -> Log:
    return Log().start().call("op-1")


def run(
    script: ModuleType, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    code: int = script.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name the log's directory"),
        (["{dir}", "more"], "unrecognized arguments: more"),
        (["{dir}/none"], "No such file"),
        (["{dir}/checkpoint"], "is a file"),
        (["{dir}/.."], "did you mean"),
        (["{dir}/empty"], "holds no segment"),
        (["{dir}", "--key", "garbage"], "No such file"),
        (["{dir}", "--key", "a+b+c"], "no verifier key"),
        (["{dir}", "--key", "{dir}/checkpoint"], "no verifier key"),
        (["{dir}", "--key", "{dir}/nothing"], "holds no verifier key"),
        (["{dir}", "--key", "{dir}/binary"], "is no text"),
        (["{dir}", "--checkpoint", "{dir}/none"], "No such file"),
        (["{dir}", "--checkpoint", "{dir}/log.vkey"], "no signed checkpoint"),
        (["{dir}", "--require", "luck"], "cannot be required"),
        (["{dir}", "--require", "witness"], "--witness VKEY"),
        (["{dir}", "--require", "witness:0"], "cannot be required"),
        (["{dir}", "--max-findings", "0"], "from 1 on"),
        (["{dir}", "--max-findings", "x"], "invalid int"),
        (["--proof", "{dir}/checkpoint"], "with --proof, --record and --key"),
        (["--proof", "{dir}/none", "--record", "{dir}/none", "--key", "{dir}/log.vkey"], "none"),
        (["{dir}", "--state", "{dir}"], "directory"),
    ],
)
def test_wrong_usage_is_answered_with_one_plain_line(
    script: ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    *,
    log: Log,
    words: list[str],
    says: str,
) -> None:
    folder = log.write(tmp_path / "log")
    (folder / "empty").mkdir()
    (folder / "nothing").touch()
    (folder / "binary").write_bytes(b"\xff\xfe\0")
    words = [word.replace("{dir}", str(folder)) for word in words]
    if "--state" not in words:
        words += ["--state", "none"]
    code, out, err = run(script, capsys, *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_segment_that_cannot_be_read_is_a_plain_answer(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    folder = log.write(tmp_path / "log")
    (folder / f"{6:020d}.jsonl").mkdir()
    code, _, err = run(script, capsys, str(folder), "--state", "none")
    assert code == 2
    assert f"{6:020d}.jsonl" in err
    (folder / f"{0:020d}.jsonl").unlink()
    (folder / f"{0:020d}.jsonl").mkdir()
    assert run(script, capsys, str(folder), "--state", "none")[0] == 2


def test_help_tells_the_exit_codes(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--help"])
    assert "4 fork or rollback" in " ".join(capsys.readouterr().out.split())


def test_a_valid_log_is_told_in_words(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    folder = log.write(tmp_path / "log")
    words = [str(folder), "--state", "none", "--key", log.key.vkey, "--stats"]
    code, out, _ = run(script, capsys, *words)
    assert code == 0
    for part in (
        "log.example.com/audit: VALID",
        "6 records in 3 batches, 2023-11-14 22:13:20 UTC to",
        f"epoch 0: from record 0, {log.key.vkey}",
        f"root at 6 records: {tree_root(log.leaves).hex()}",
        "not checked: that tools did what they answered",
        "records/s",
    ):
        assert part in out
    assert "WARNING" not in out


def test_findings_are_told_in_words_with_their_place(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    log.outcome("op-9").outcome("op-8").batch()
    log.lines[0][7] = log.lines[0][7].replace(b"1200", b"1201")
    folder = log.write(tmp_path / "log")
    code, out, _ = run(script, capsys, str(folder), "--state", "none", "--max-findings", "1")
    assert code == 1
    assert "NOT VALID" in out
    assert "record 5: EDITED: the record was changed after it was written" in out
    assert f"[{0:020d}.jsonl:8]" in out
    assert "WARNING UNPINNED_KEY" in out


def test_rules_are_named_and_the_rest_is_counted(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    folder = log.outcome("op-9").outcome("op-8").batch().write(tmp_path / "log")
    words = [str(folder), "--state", "none", "--max-findings", "1"]
    out = run(script, capsys, *words)[1]
    assert "record 6: RULE BROKEN (outcome_without_intent): a call ended that had never" in out
    assert "and 1 more" in out
    report = json.loads(run(script, capsys, *words, "--json", "--stats")[1])
    assert (len(report["findings"]), report["more_findings"]) == (1, 1)
    assert report["stats"]["records_per_second"] > 0


def test_findings_without_number_are_counted_and_not_kept(judge: Judge) -> None:
    log = Log().start()
    for index in range(1100):
        log.outcome(f"op-{index}", after=0)
    report = judge(log.batch(), "--max-findings", "2000")
    assert len(report["findings"]) + report["more_findings"] == 1100


def test_a_fork_is_told_with_the_place_of_its_proof(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    state = str(tmp_path / "state" / "memory")
    run(script, capsys, str(log.write(tmp_path / "log")), "--state", state)
    fork = Log().start().call("op-2")
    code, out, _ = run(script, capsys, str(fork.write(tmp_path / "log")), "--state", state)
    assert code == 4
    assert "both signed checkpoints are kept in" in out
    assert "FORKED" in out


def test_less_than_asked_is_told(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    witness = TestKey("w", "w.example", 4)
    folder = log.witnessed(witness).batch().write(tmp_path / "log")
    words = [str(folder), "--state", "none", "--require", "key", "--witness", witness.vkey]
    code, out, _ = run(script, capsys, *words)
    assert code == 3
    assert "below what you asked: no pinned key" in out
    assert "witness w.example cosigned the first 6 records" in out


def test_text_from_the_log_cannot_steer_a_terminal(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    log.witnessed(cosignatures=["\x1b[2J\nVALID AA=="]).batch()
    out = run(script, capsys, str(log.write(tmp_path / "log")), "--state", "none")[1]
    assert "\x1b" not in out
    assert "\nVALID" not in out


def test_a_time_beyond_the_calendar_is_no_crash(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = Log()
    log.ts = 2**53 - 5_000_000
    code, out, _ = run(script, capsys, str(log.start().write(tmp_path / "log")), "--state", "none")
    assert code == 0
    assert "2255-06-05" in out
    assert script.moment(None) == "?"
    assert script.moment(10**18) == f"{10**18} µs"


# One record's proof


def kept(folder: Path, log: Log, index: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "proof").write_text(proof_text(log, index), encoding="utf-8")
    records = [line for lines in log.lines for line in lines if not line.startswith(b'{"cp')]
    (folder / "line").write_bytes(records[index] + b"\n")
    return ["--proof", str(folder / "proof"), "--record", str(folder / "line")]


@pytest.mark.parametrize("index", range(6))
def test_one_record_is_proven_offline(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log, index: int
) -> None:
    words = kept(tmp_path / "p", log, index)
    code, out, _ = run(script, capsys, *words, "--key", log.key.vkey, "--json")
    report = json.loads(out)
    assert (code, report["valid"], report["log"], report["size"]) == (0, True, log.origin, 6)


@pytest.mark.parametrize(
    ("file", "old", "new", "kind"),
    [
        ("line", b"1200", b"1201", "edited"),
        ("line", b'"v":1}', b'"v":1} ', "edited"),
        ("proof", b"index 5", b"index 4", "edited"),
        ("proof", b"index 5", b"index 05", "edited"),
        ("proof", b"index 5", b"index 6", "edited"),
        ("proof", b"index 5\n", b"index 5\nAAAA\n", "edited"),
        ("proof", b"@v1", b"@v2", "edited"),
        ("proof", b"\n6\n", b"\n7\n", "wrong_key"),
        ("proof", b"\n\n", b"\n", "edited"),
        ("proof", b"=\n\n\xe2", b"\n\n\xe2", "edited"),
    ],
)
def test_a_proof_that_does_not_prove_is_refused(
    script: ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    *,
    log: Log,
    file: str,
    old: bytes,
    new: bytes,
    kind: str,
) -> None:
    words = kept(tmp_path, log, 5)
    data = (tmp_path / file).read_bytes()
    assert old in data
    (tmp_path / file).write_bytes(data.replace(old, new, 1))
    code, out, _ = run(script, capsys, *words, "--key", log.key.vkey, "--json")
    assert (code, found(json.loads(out))[0][0]) == (1, kind)


def test_a_proof_is_worth_nothing_without_the_right_key(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    words = kept(tmp_path, log, 5)
    code, out, _ = run(script, capsys, *words, "--key", TestKey("other").vkey, "--json")
    assert (code, found(json.loads(out))) == (1, [("wrong_key", 5)])


def test_a_proof_under_the_key_of_another_epoch_names_that_key(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    first = log.key.vkey
    words = kept(tmp_path, log.rotate().call("op-2"), 5)
    code, out, _ = run(script, capsys, *words, "--key", first)
    name, key_id, _ = log.key.vkey.split("+", 2)
    assert code == 1
    assert f"it names {name}+{key_id}; after a change of the key, give that one, too" in out
    assert run(script, capsys, *words, "--key", log.key.vkey)[0] == 0


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"log":"log.example.com/audit", "seq":0}', "not_canonical"),
        (canonical({"log": "log.example.com/audit", "seq": 1}), "wrong_log"),
        (canonical({"log": "other.example", "seq": 0}), "wrong_log"),
    ],
)
def test_a_proven_line_must_be_a_record_of_this_place(
    script: ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    line: bytes,
    kind: str,
) -> None:
    log = Log()
    log.put_line(line).batch()
    words = kept(tmp_path, log, 0)
    code, out, _ = run(script, capsys, *words, "--key", log.key.vkey, "--json")
    assert (code, found(json.loads(out))) == (1, [(kind, 0)])


def test_a_hash_of_another_length_is_no_proof(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    words = kept(tmp_path, log, 5)
    text = (tmp_path / "proof").read_text(encoding="utf-8")
    (tmp_path / "proof").write_text(text.replace("index 5\n", "index 5\nAAAA\n"), encoding="utf-8")
    out = run(script, capsys, *words, "--key", log.key.vkey)[1]
    assert "a hash has not 32 bytes" in out


def test_a_proof_may_have_to_be_witnessed(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Log
) -> None:
    witness = TestKey("w", "w.example", 4)
    words = kept(tmp_path, log, 5)
    words += ["--key", log.key.vkey, "--witness", witness.vkey, "--require", "witness"]
    assert run(script, capsys, *words)[0] == 3
    text = log.last_note.partition("\n\n")[0] + "\n"
    cosigned = f"{proof_text(log, 5)}— w.example {witness.cosignature(text)}\n"
    (tmp_path / "proof").write_text(cosigned, encoding="utf-8")
    assert run(script, capsys, *words)[0] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13])
def test_inclusion_is_right_for_every_record_and_wrong_for_any_other(
    module: ModuleType, size: int
) -> None:
    leaves = [leaf_of(bytes([n])) for n in range(size)]
    root = tree_root(leaves)
    for index in range(size):
        path = inclusion_path(index, leaves)
        assert module.included_root(index, size, leaves[index], path) == root
        assert module.included_root(index, size, leaves[index], [*path, root]) is None
        for other in range(size):
            if other != index:
                assert module.included_root(other, size, leaves[index], path) != root
    assert module.included_root(size, size, root, []) is None
    stack: list[bytes] = []
    module.grow(stack, 0, leaves)
    assert module.root_of(stack) == root
    assert module.root_of([]) == tree_root([])
