"""Keys change by epoch (§4.2), witnesses cosign (§4.3)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.unit.verify.conftest import Judge, found
from tests.unit.verify.logbuilder import ORIGIN, Log, TestKey, b64, tree_root

pytestmark = pytest.mark.req("AUD-07")


def three_epochs() -> Log:
    """0-3 start, 4-5 a call, 6 the first rotation, 7-8 a call, 9 the second, 10 a policy."""
    return Log().start().call("op-1").rotate().call("op-2").rotate().policy().batch()


def test_keys_follow_each_other(judge: Judge) -> None:
    log = three_epochs()
    report = judge(log, "--all-signatures")
    assert report["findings"] == []
    assert [(epoch["epoch"], epoch["first_seq"]) for epoch in report["epochs"]] == [
        (0, 0),
        (1, 7),
        (2, 10),
    ]
    assert [epoch["key"] for epoch in report["epochs"]] == log.vkeys


def test_a_later_key_may_be_pinned_and_covers_less(judge: Judge) -> None:
    log = three_epochs()
    report = judge(log, "--key", log.vkeys[1], pinned=False)
    assert report["valid"]
    assert report["warnings"][0].startswith("LATE_KEY")
    assert "before 7" in report["warnings"][0]


def test_several_keys_may_be_pinned_in_a_file(judge: Judge, tmp_path: Path) -> None:
    log = three_epochs()
    keys = tmp_path / "keys"
    keys.write_text("# the log's keys\n" + "".join(f"{vkey}\n" for vkey in log.vkeys) + "\n")
    report = judge(log, "--key", str(keys), pinned=False)
    assert (report["valid"], report["warnings"]) == (True, [])


def test_an_old_key_does_not_sign_a_later_epoch(judge: Judge) -> None:
    log = Log().start().rotate()
    log.policy().batch(log.first_key).policy().batch()
    assert found(judge(log)) == [("out_of_epoch", 5)]


def test_a_coming_key_does_not_sign_an_earlier_epoch(judge: Judge) -> None:
    log = Log().start()
    log.policy().batch(TestKey("epoch 1")).policy().batch().rotate().policy().batch()
    assert found(judge(log)) == [("out_of_epoch", 4)]


def test_the_new_key_does_not_sign_its_own_rotation(judge: Judge) -> None:
    log = Log().start()
    new = TestKey("epoch 1")
    log.add("key.rotate", epoch=1, key=new.vkey, why="schedule").batch(new)
    log.key = new
    log.policy().batch()
    assert found(judge(log)) == [("out_of_epoch", 4)]


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": 2},
        {"epoch": 0},
        {"epoch": "1"},
        {"epoch": ...},
        {"key": TestKey("epoch 0").vkey},
        {"key": TestKey("x", "other.example").vkey},
        {"key": ...},
        {"key": f"{ORIGIN}+00000000+AA=="},
    ],
)
def test_a_rotation_names_the_next_epoch_and_a_new_key(
    judge: Judge, fields: dict[str, object]
) -> None:
    log = Log().start().rotate(**fields)  # type: ignore[arg-type]
    assert found(judge(log))[0] == ("out_of_epoch", 4)


def test_a_rotation_ends_its_batch(judge: Judge) -> None:
    log = Log().start()
    new = TestKey("epoch 1")
    log.add("key.rotate", epoch=1, key=new.vkey, why="schedule").policy().batch()
    log.key = new
    log.policy().batch()
    assert found(judge(log))[0] == ("out_of_epoch", 4)


def test_a_key_is_not_used_for_two_epochs(judge: Judge) -> None:
    log = Log().start().rotate("epoch 1").rotate("epoch 0")
    assert found(judge(log)) == [("out_of_epoch", 5)]


def test_the_last_signature_of_each_epoch_is_checked(judge: Judge) -> None:
    log = Log().start()
    new = TestKey("epoch 1")
    log.add("key.rotate", epoch=1, key=new.vkey, why="schedule")
    good = log.key.note(5, tree_root(log.leaves))
    bad = log.key.note(5, hashlib.sha256(b"other").digest()).split("\n")
    log.checkpoint("\n".join([*good.split("\n")[:4], bad[4], ""]))
    log.key = new
    log.policy().batch()
    assert found(judge(log)) == [("edited", 4)]


def test_boot_names_the_key_of_its_epoch(judge: Judge) -> None:
    log = Log().start().rotate()
    log.boot("boot-1", key=log.vkeys[0]).batch()
    assert found(judge(log)) == [("key_mismatch", 5)]


def test_an_edit_in_a_closed_epoch_is_found_and_the_epochs_behind_are_read(judge: Judge) -> None:
    log = three_epochs()
    index = next(i for i, line in enumerate(log.lines[0]) if b'"seq":5,' in line)
    log.lines[0][index] = log.lines[0][index].replace(b"1200", b"1201")
    report = judge(log)
    assert found(report) == [("edited", 5)]
    assert len(report["epochs"]) == 3


def test_damage_around_a_rotation_does_not_hide_the_next_key(judge: Judge) -> None:
    log = three_epochs()
    index = next(i for i, line in enumerate(log.lines[0]) if b'"seq":6,' in line)
    log.lines[0][index + 1] = log.lines[0][index + 1].replace(b"\\n7\\n", b"\\n8\\n")
    report = judge(log)
    assert found(report) == [("edited", 6)]
    assert len(report["epochs"]) == 3


def line_of(log: Log, seq: int) -> int:
    return next(i for i, line in enumerate(log.lines[0]) if b'"seq":%d,' % seq in line)


def test_a_rotation_that_stands_twice_is_one_finding(judge: Judge) -> None:
    log = three_epochs()
    index = line_of(log, 6)
    log.lines[0].insert(index, log.lines[0][index])
    report = judge(log)
    assert found(report) == [("inserted", 7)]
    assert len(report["epochs"]) == 3


def test_a_rotations_checkpoint_line_that_stands_twice_is_inserted(judge: Judge) -> None:
    log = three_epochs()
    index = line_of(log, 6) + 1
    log.lines[0].insert(index, log.lines[0][index])
    assert found(judge(log)) == [("inserted", 6)]


# Witnesses


@pytest.fixture
def witnesses() -> list[TestKey]:
    return [TestKey(f"witness {n}", f"w{n}.example", 4) for n in range(3)]


def watched(log: Log, *witnesses: TestKey, **fields: object) -> Log:
    return log.start().call("op-1").witnessed(*witnesses, **fields).batch()


@pytest.mark.req("AUD-08")
def test_cosignatures_of_known_witnesses_count(judge: Judge, witnesses: list[TestKey]) -> None:
    log = watched(Log(), *witnesses[:2])
    words = [word for key in witnesses for word in ("--witness", key.vkey)]
    report = judge(log, *words, "--require", "witness:2")
    assert (report["exit"], report["witnessed"]) == (0, {"w0.example": 6, "w1.example": 6})
    report = judge(log, *words, "--require", "witness:3")
    assert (report["exit"], report["valid"], report["findings"]) == (3, True, [])
    assert judge(log, *words[:2], "--require", "witness")["exit"] == 0
    assert judge(log, *words[4:], "--require", "witness")["exit"] == 3


@pytest.mark.req("AUD-08")
def test_a_bad_cosignature_of_a_known_witness_is_a_finding(
    judge: Judge, witnesses: list[TestKey]
) -> None:
    bad = f"w0.example {witnesses[0].cosignature('another text')}"
    log = watched(Log(), cosignatures=[bad])
    assert judge(log)["valid"]
    assert found(judge(log, "--witness", witnesses[0].vkey)) == [("edited", 6)]


@pytest.mark.req("AUD-08")
@pytest.mark.parametrize(
    "fields",
    [
        {"size": 5, "root": "00" * 32},
        {"size": 3},
        {"size": 99},
        {"size": 0},
        {"size": "6"},
        {"size": True},
        {"root": "00" * 32},
        {"root": None},
        {"root": "AB" * 32},
        {"cosignatures": None},
        {"cosignatures": ["w0.example AA=="]},
        {"cosignatures": ["w0.example"]},
        {"cosignatures": [" " + b64(bytes(76))]},
        {"cosignatures": [7]},
    ],
)
def test_what_was_witnessed_is_a_checkpoint_of_the_log(
    judge: Judge, witnesses: list[TestKey], fields: dict[str, object]
) -> None:
    assert found(judge(watched(Log(), witnesses[0], **fields))) == [("edited", 6)]


@pytest.mark.req("AUD-08")
def test_what_was_witnessed_has_the_size_of_a_checkpoint_line(
    judge: Judge, witnesses: list[TestKey]
) -> None:
    log = Log().start().intent("op-1").outcome("op-1").batch().witnessed(witnesses[0], size=5)
    assert found(judge(log.batch())) == [("edited", 6)]


@pytest.mark.req("AUD-08")
def test_a_cosigned_checkpoint_beside_the_log_counts(
    judge: Judge, witnesses: list[TestKey], tmp_path: Path
) -> None:
    log = Log().start().call("op-1")
    text = log.last_note.partition("\n\n")[0] + "\n"
    blob = witnesses[0].cosignature(text)
    folder = log.write(tmp_path / "log")
    (folder / "witness").mkdir()
    kept = folder / "witness" / "checkpoint"
    kept.write_text(f"{log.last_note}— w0.example {blob}\n", encoding="utf-8")
    words = ["--witness", witnesses[0].vkey, "--require", "witness"]
    report = judge(folder, *words)
    assert (report["exit"], report["witnessed"]) == (0, {"w0.example": 6})
    kept.write_text(
        f"{log.last_note}— w0.example {witnesses[0].cosignature('x')}\n", encoding="utf-8"
    )
    assert found(judge(folder, *words)) == [("edited", 5)]
    kept.write_text(TestKey("stranger").note(6, tree_root(log.leaves)), encoding="utf-8")
    assert found(judge(folder)) == [("wrong_key", 5)]
