"""§6.1: one thing is done to a log, and the verifier says what and where."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.verify.conftest import Judge, found
from tests.unit.verify.logbuilder import (
    ORIGIN,
    Log,
    TestKey,
    b64,
    canonical,
    cp_line,
    tree_root,
    write_tiles,
)

pytestmark = pytest.mark.req("AUD-03")


def honest() -> Log:
    """Records 0-3 in the first batch, then four calls; two segments, eight batches."""
    log = Log().start()
    log.call("op-1").call("op-2").segment()
    log.intent("op-3").intent("op-4").refused("op-5").batch()
    return log.outcome("op-3").outcome("op-4").batch().shutdown().batch()


def line_of(log: Log, seq: int) -> tuple[list[bytes], int]:
    """The segment's lines and the index in them of a record."""
    for lines in log.lines:
        for index, line in enumerate(lines):
            if b'"seq":%d,' % seq in line:
                return lines, index
    raise AssertionError(seq)


def edit(log: Log, seq: int, old: bytes, new: bytes) -> Log:
    lines, index = line_of(log, seq)
    assert old in lines[index]
    lines[index] = lines[index].replace(old, new, 1)
    return log


def rebuilt(log: Log, change: Callable[[int, bytes], bytes], key: TestKey | None = None) -> Log:
    """Work out every later link and root again, as a forger without the key would."""
    import json  # noqa: PLC0415

    forged = Log()
    forged.boot_id = "boot-0"
    for lines in log.lines:
        for line in lines:
            if line.startswith(b'{"cp":'):
                root = tree_root(forged.leaves)
                if key:
                    forged.batch(key)
                    continue
                note = json.loads(line)["cp"].split("\n")
                forged.checkpoint(
                    f"{ORIGIN}\n{len(forged.leaves)}\n{b64(root)}\n\n{note[4]}\n",
                )
            else:
                record = json.loads(change(len(forged.leaves), line))
                record |= {"prev": forged.prev, "seq": len(forged.leaves)}
                if forged.pending:
                    record["cp"] = forged.pending
                forged.put(record)
        forged.segment()
    forged.lines.pop()
    forged.firsts.pop()
    return forged


def test_an_honest_log_is_valid(judge: Judge) -> None:
    log = honest()
    report = judge(log, tiles=True)
    assert report["valid"] is True
    assert (report["exit"], report["findings"], report["warnings"]) == (0, [], [])
    assert (report["log"], report["records"], report["size"]) == (ORIGIN, 14, 14)
    assert report["checkpoints"] == 8
    assert report["root"] == tree_root(log.leaves).hex()
    assert report["epochs"] == [{"epoch": 0, "key": log.key.vkey, "first_seq": 0}]
    assert report["first_ts"] < report["last_ts"] == log.ts


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("seq", range(14))
def test_an_edited_record_is_named(judge: Judge, seq: int, tiles: bool) -> None:  # noqa: FBT001
    log = honest()
    folder_leaves = list(log.leaves)
    edit(log, seq, b'"v":1', b'"v":2')
    log.leaves = folder_leaves
    assert found(judge(log, tiles=tiles)) == [("edited", seq)]


@pytest.mark.parametrize("seq", range(14))
def test_a_deleted_record_is_named(judge: Judge, seq: int) -> None:
    log = honest()
    lines, index = line_of(log, seq)
    del lines[index]
    assert found(judge(log))[0] == ("deleted", seq)


@pytest.mark.parametrize("seq", range(14))
def test_a_record_that_stands_twice_is_named(judge: Judge, seq: int) -> None:
    log = honest()
    lines, index = line_of(log, seq)
    lines.insert(index, lines[index])
    assert found(judge(log)) == [("inserted", seq + 1)]


@pytest.mark.parametrize(("one", "other"), [(0, 1), (2, 3), (3, 4), (5, 9), (8, 9), (12, 13)])
def test_two_records_that_changed_places_are_named_once(judge: Judge, one: int, other: int) -> None:
    log = honest()
    (a, i), (b, j) = line_of(log, one), line_of(log, other)
    a[i], b[j] = b[j], a[i]
    assert found(judge(log)) == [("reordered", one)]


def test_two_edits_far_apart_are_two_findings(judge: Judge) -> None:
    log = edit(edit(honest(), 5, b"1200", b"1201"), 11, b"1200", b"1201")
    assert found(judge(log)) == [("edited", 5), ("edited", 11)]


def test_a_range_over_several_batches_that_is_gone_is_one_finding(judge: Judge) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    del lines[index : line_of(log, 7)[1]]
    report = judge(log)
    assert found(report) == [("deleted", 5)]
    assert any("together" in what for what in report["not_checked"])


def test_a_segment_that_is_gone_is_deleted_records(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    folder = log.write(tmp_path / "log")
    (folder / f"{0:020d}.jsonl").unlink()
    report = judge(folder, "--key", log.key.vkey)
    assert found(report) == [("deleted", 0)]


def test_a_segment_under_another_number_is_found(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    folder = log.write(tmp_path / "log")
    (folder / f"{8:020d}.jsonl").rename(folder / f"{9:020d}.jsonl")
    assert found(judge(folder)) == [("edited", 8)]


def test_a_batch_over_two_segments_is_found(judge: Judge) -> None:
    log = Log().start().intent("op-1").segment().outcome("op-1").batch()
    assert found(judge(log)) == [("edited", 5)]


def test_other_files_are_no_part_of_the_log(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    folder = log.write(tmp_path / "log")
    for name in ("1.jsonl", "x" * 20 + ".jsonl", f"{99:020d}.jsonl.torn", "notes.txt"):
        (folder / name).write_bytes(b"anything")
    assert judge(folder)["valid"]


def test_segments_may_be_symbolic_links(judge: Judge, tmp_path: Path) -> None:
    folder = honest().write(tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.glob("*.jsonl"):
        (linked / path.name).symlink_to(path)
    assert judge(linked)["valid"]


# Checkpoint lines


def test_a_checkpoint_line_that_is_gone_is_named(judge: Judge) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    del lines[index - 1]
    assert found(judge(log)) == [("deleted", 4)]


def test_a_checkpoint_line_that_stands_twice_is_named(judge: Judge) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    lines.insert(index, lines[index - 1])
    assert found(judge(log)) == [("inserted", 4)]


@pytest.mark.parametrize("place", [-92, -60, -5])
def test_a_changed_signature_in_the_middle_is_named(judge: Judge, place: int) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    line = bytearray(lines[index - 1])
    line[place] = ord("A") if line[place] != ord("A") else ord("B")
    lines[index - 1] = bytes(line)
    [(kind, seq)] = found(judge(log))
    assert (kind in {"edited", "wrong_key"}, seq) == (True, 4)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (b"\\n5\\n", b"\\n05\\n", "edited"),
        (b"\\n5\\n", b"\\n+5\\n", "edited"),
        (b"\\n5\\n", b"\\n6\\n", "edited"),
        (b"\\n5\\n", b"\\n\xd9\xa5\\n", "edited"),
        (b"=\\n\\n", b"=\\nextension\\n\\n", "edited"),
        (b"=\\n\\n", b"\\n\\n", "edited"),
        (b'{"cp":"log', b'{"cp":"Log', "edited"),
        (b"\xe2\x80\x94 log", b"\xe2\x80\x94 Log", "wrong_key"),
        (b"\xe2\x80\x94", b"-", "edited"),
        (b"\xe2\x80\x94", b"\\u2014", "not_canonical"),
        (b'{"cp":', b'{"cp": ', "not_canonical"),
        (b'\\n"}', b'\\n","x":1}', "edited"),
        (b'\\n"}', b'"}', "edited"),
        (b'\\n"}', b'\\n"', "edited"),
        (b'{"cp":"', b'{"cp":{"', "edited"),
    ],
)
def test_another_spelling_of_a_checkpoint_line_is_refused(
    judge: Judge, old: bytes, new: bytes, kind: str
) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    assert old in lines[index - 1]
    lines[index - 1] = lines[index - 1].replace(old, new, 1)
    assert found(judge(log)) == [(kind, 4)]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'\\n"}', b'\\n"]'), (b'\\n"}', b'\\t"}'), (b'\\n"}', b'\\n"} '), (b'\\n"}', b'xx"}')],
)
def test_the_last_bytes_of_the_last_checkpoint_line_count(
    judge: Judge, old: bytes, new: bytes
) -> None:
    log = honest()
    log.lines[-1][-1] = log.lines[-1][-1].replace(old, new)
    [(kind, seq)] = found(judge(log))
    assert (kind in {"edited", "not_canonical"}, seq) == (True, 13)


@pytest.mark.parametrize("blob", [b"", b"short", bytes(67), bytes(69)])
def test_a_signature_of_another_length_is_refused_under_a_later_one_too(
    judge: Judge, blob: bytes
) -> None:
    log = Log().start().policy()
    text = log.key.note(5, tree_root(log.leaves)).partition("\n\n")[0]
    log.checkpoint(f"{text}\n\n— {ORIGIN} {b64(log.key.id + blob)}\n").policy().batch()
    assert found(judge(log)) == [("edited", 4)]


def test_a_checkpoint_line_alone_in_a_segment_is_found(judge: Judge) -> None:
    log = Log().start().policy().segment().batch().policy().batch()
    assert found(judge(log)) == [("edited", 4)]


def test_a_known_checkpoint_names_the_key_that_signed_it(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    blob = b64(log.key.id)[:4]
    kept = tmp_path / "kept"
    kept.write_text(log.last_note.replace(f" {blob}", " AAAA"), encoding="utf-8")
    assert found(judge(log, "--checkpoint", str(kept))) == [("wrong_key", 13)]


def test_a_second_signature_line_is_refused(judge: Judge) -> None:
    log = Log().start()
    note = log.last_note + TestKey("other", "w.example").line("x\n")
    log.lines[-1][-1] = cp_line(note)
    assert found(judge(log, copy=False)) == [("edited", 3)]


def test_a_root_that_is_signed_but_wrong_is_refused(judge: Judge) -> None:
    log = Log().start().policy("cd" * 32)
    log.checkpoint(log.key.note(5, hashlib.sha256(b"else").digest()))
    assert found(judge(log, copy=False)) == [("edited", 4)]


def test_a_batch_without_a_record_is_refused(judge: Judge) -> None:
    log = Log().start()
    log.batch().policy().batch()
    assert found(judge(log)) == [("inserted", 3)]


def test_the_last_record_moved_to_an_earlier_place_is_named_once(judge: Judge) -> None:
    log = honest()
    lines, index = line_of(log, 13)
    lines.insert(0, lines.pop(index))
    assert found(judge(log)) == [("reordered", 8)]


def test_the_last_checkpoint_line_gone_is_no_cut(judge: Judge) -> None:
    log = honest()
    log.lines[-1].pop()
    assert found(judge(log)) == [("missing", 13)]


def test_a_torn_batch_that_was_complete_before_is_a_cut_too(judge: Judge, tmp_path: Path) -> None:
    folder = honest().write(tmp_path / "log")
    last = folder / f"{8:020d}.jsonl"
    last.write_bytes(last.read_bytes()[:-400])
    assert found(judge(folder)) == [("torn", 13), ("truncated", 13)]


def test_damage_in_the_first_batch_leaves_the_rest_readable(judge: Judge) -> None:
    log = Log().start().segment().boot("boot-1").batch().rotate().policy().batch()
    del log.lines[0][-1]
    report = judge(log)
    assert found(report) == [("deleted", 3)]
    assert len(report["epochs"]) == 2


def test_a_gap_over_a_change_of_keys_is_a_gap_only(judge: Judge) -> None:
    log = Log().start().call("op-1").rotate().call("op-2").call("op-3")
    lines, index = line_of(log, 2)
    del lines[index : line_of(log, 8)[1]]
    report = judge(log)
    assert found(report) == [("deleted", 2)]


def test_a_key_changed_in_genesis_is_told_by_the_pinned_one(judge: Judge) -> None:
    log = honest()
    other = TestKey("stranger").vkey.encode()
    edit(log, 0, log.key.vkey.encode(), other)
    assert found(judge(log))[0] == ("edited", 0)
    assert found(judge(log, pinned=False))[0] == ("edited", 0)


# The rehashed log


def forged(seq: int) -> Callable[[int, bytes], bytes]:
    def change(at: int, line: bytes) -> bytes:
        return line.replace(b"1200", b"1201") if at == seq else line

    return change


def test_a_log_worked_out_again_fails_at_the_first_bad_signature(judge: Judge) -> None:
    log = rebuilt(honest(), forged(5))
    assert found(judge(log, copy=False)) == [("edited", 5)]


def test_all_signatures_say_no_more_than_the_last_one_leads_to(judge: Judge) -> None:
    log = rebuilt(honest(), forged(5))
    report = judge(log, "--all-signatures", copy=False)
    assert found(report) == [("edited", 5)]


def test_tiles_tell_the_record_that_a_forger_changed(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    folder = rebuilt(log, forged(11)).write(tmp_path / "log", copy=False)
    write_tiles(folder, log.leaves)
    assert found(judge(folder, "--key", log.key.vkey)) == [("edited", 11)]


def test_tiles_tell_the_record_even_where_the_key_was_known(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    folder = rebuilt(log, forged(5), log.key).write(tmp_path / "log", copy=False)
    write_tiles(folder, log.leaves)
    assert found(judge(folder, "--key", log.key.vkey)) == [("edited", 5)]


def test_a_log_signed_by_a_stranger_has_the_wrong_key(judge: Judge) -> None:
    log = rebuilt(honest(), forged(5), TestKey("stranger"))
    assert found(judge(log, copy=False)) == [("wrong_key", 3)]


def test_a_whole_log_of_another_key_is_told_by_the_pinned_one(judge: Judge) -> None:
    log = Log(key=TestKey("stranger")).start()
    log.first_key = TestKey("epoch 0")
    assert found(judge(log)) == [("wrong_key", 0)]


def test_without_a_pinned_key_a_strangers_log_is_valid_with_a_loud_warning(judge: Judge) -> None:
    log = Log(key=TestKey("stranger")).start()
    report = judge(log, pinned=False)
    assert report["exit"] == 0
    assert report["warnings"][0].startswith("UNPINNED_KEY")
    report = judge(log, "--require", "key", pinned=False)
    assert (report["exit"], report["below"]) == (3, ["no pinned key"])


def test_records_of_another_log_are_named(judge: Judge) -> None:
    other = Log("other.example/audit").start().call("op-1")
    log = honest()
    lines, index = line_of(log, 5)
    lines[index] = line_of(other, 5)[0][line_of(other, 5)[1]]
    assert found(judge(log)) == [("wrong_log", 5)]


# The end of the log


def cut(log: Log, count: int) -> bytes:
    return log.text[-1][:-count]


@pytest.mark.parametrize("copy", [False, True])
def test_a_tail_cut_at_a_batch_is_seen_by_who_holds_a_checkpoint(
    judge: Judge,
    copy: bool,  # noqa: FBT001
) -> None:
    log = honest()
    del log.lines[-1][-5:]
    report = judge(log, copy=copy)
    assert found(report) == ([("truncated", 11)] if copy else [])


def test_a_checkpoint_from_elsewhere_must_be_of_the_log(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    kept = tmp_path / "kept"
    kept.write_text(log.last_note, encoding="utf-8")
    assert judge(log, "--checkpoint", str(kept), "--checkpoint", str(kept))["valid"]
    kept.write_text(log.key.note(8, b"x" * 32), encoding="utf-8")
    report = judge(log, "--checkpoint", str(kept))
    assert (report["exit"], found(report)) == (4, [("forked", 7)])
    kept.write_text(log.key.note(7, tree_root(log.leaves[:7])), encoding="utf-8")
    assert found(judge(log, "--checkpoint", str(kept))) == []
    kept.write_text(log.key.note(10, tree_root(log.leaves[:10])), encoding="utf-8")
    assert found(judge(log, "--checkpoint", str(kept))) == [("forked", 9)]
    kept.write_text(TestKey("stranger").note(8, tree_root(log.leaves[:8])), encoding="utf-8")
    report = judge(log, "--checkpoint", str(kept))
    assert (report["exit"], found(report)) == (1, [("wrong_key", 7)])
    kept.write_text(log.last_note, encoding="utf-8")
    del log.lines[-1][-2:]
    assert found(judge(log, "--checkpoint", str(kept))) == [("truncated", 13)]


def test_a_copy_that_cannot_be_read_is_a_finding(judge: Judge, tmp_path: Path) -> None:
    log = honest()
    folder = log.write(tmp_path / "log")
    for text in ("", "garbage", log.last_note.replace("\n", "\r\n"), log.last_note + "x"):
        (folder / "checkpoint").write_text(text, encoding="utf-8", newline="")
        assert found(judge(folder)) == [("edited", 13)]
    note = log.last_note + TestKey("other", "w.example").line("x\n")
    (folder / "checkpoint").write_text(note, encoding="utf-8")
    assert found(judge(folder)) == [("edited", 13)]


@pytest.mark.parametrize("size", range(1, 1340, 61))
def test_a_torn_tail_is_told_wherever_the_cut_is(judge: Judge, tmp_path: Path, size: int) -> None:
    log = Log().start().intent("op-1").refused("op-2").batch()
    whole = log.text[0]
    start = whole.index(b'"seq":4,')
    start = whole.rindex(b"\n", 0, start) + 1
    folder = log.write(tmp_path / "log", copy=False)
    (folder / f"{0:020d}.jsonl").write_bytes(whole[: start + size])
    rest = whole[start : start + size].split(b"\n")
    seq = 4 + len(rest) - 1 - rest[-1].startswith(b'{"cp')
    assert found(judge(folder)) == [("torn", seq)]


def test_whole_records_without_a_checkpoint_line_lack_their_signature(judge: Judge) -> None:
    log = Log().start().intent("op-1").refused("op-2")
    assert found(judge(log)) == [("missing", 5)]


def test_zero_bytes_in_the_last_batch_are_a_torn_write(judge: Judge) -> None:
    log = honest()
    log.lines[-1][-2] = bytes(len(log.lines[-1][-2]))
    assert found(judge(log)) == [("torn", 13)]


def test_a_batch_under_way_is_no_damage_while_the_lock_is_held(
    judge: Judge, tmp_path: Path
) -> None:
    log = Log().start().intent("op-1").batch().outcome("op-1")
    folder = log.write(tmp_path / "log")
    lock = folder / "LOCK"
    lock.touch()
    assert found(judge(folder)) == [("missing", 5)]
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = judge(folder)
        assert report["valid"]
        assert (report["size"], report["records"]) == (5, 5)
        assert any("being written" in what for what in report["not_checked"])
        (folder / f"{0:020d}.jsonl").write_bytes(log.text[0][:-30])
        assert judge(folder)["valid"]


def test_an_empty_segment_at_the_end_is_a_new_one(judge: Judge, tmp_path: Path) -> None:
    folder = honest().segment().write(tmp_path / "log")
    assert judge(folder)["valid"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0" * 5000,
        b"\xff\xfe\n" * 50,
        os.urandom(3000),
        b"{" * 40_000,
        b"[" * 9000 + b"\n",
    ],
)
def test_garbage_in_place_of_a_log_is_no_crash(judge: Judge, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / f"{0:020d}.jsonl").write_bytes(data)
    report = judge(tmp_path / "log")
    assert report["exit"] == 1
    assert report["findings"][0]["seq"] == 0


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"", "edited"),
        (b"not json", "edited"),
        (b"[1,2]", "edited"),
        (b'{"a":' * 2500 + b"1" + b"}" * 2500, "edited"),
        (b'{"seq":' + b"9" * 9000 + b"}", "edited"),
        (b"\xff" * 40, "edited"),
        (b"\0" * 40, "edited"),
        (b"x" * 600_000, "not_canonical"),
    ],
)
def test_a_line_that_is_no_record_is_a_finding_at_its_place(
    judge: Judge, line: bytes, kind: str
) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    lines[index] = line
    assert found(judge(log)) == [(kind, 5)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b'"v":1', b'"v": 1'),
        lambda line: line.replace(b'"v":1', b'"v":1.0'),
        lambda line: line.replace(b'"v":1', b'"v":1e0'),
        lambda line: line.replace(b'"v":1', b'"v":1,"v":1'),
        lambda line: line.replace(b'{"', b'{"zz":0,"', 1),
        lambda line: line.replace(b"call", b"c\\u0061ll"),
        lambda line: line.replace(b'"v":1', b'"v":1,"w":"\\u007f"'),
        lambda line: line.replace(b'"v":1', b'"v":1,"w":"\\/"'),
        lambda line: line.replace(b'"v":1', b'"v":1,"w":-0'),
        lambda line: line + b" ",
        lambda line: line + b"\r",
    ],
)
def test_another_spelling_of_a_record_is_not_canonical(
    judge: Judge, spoil: Callable[[bytes], bytes]
) -> None:
    log = honest()
    lines, index = line_of(log, 5)
    lines[index] = spoil(lines[index])
    assert found(judge(log)) == [("not_canonical", 5)]


@pytest.mark.parametrize(
    "extra",
    [
        b'"w":1.5',
        b'"w":1e22',
        b'"w":-1e-7',
        b'"w":[1,[2.5]]',
        b'"w":9007199254740992',
        b'"w":-9007199254740992',
        b'"w":18446744073709551616',
        b'"w":{"\xc3\xa9":1}',
        b'"w":"\\ud800"',
        b'"w":"' + b"x" * 16_384 + b'"',
    ],
)
def test_a_record_outside_the_profile_is_refused_though_signed(judge: Judge, extra: bytes) -> None:
    log = Log().start().policy()
    line = log.lines[-1].pop().replace(b'"v":1', b'"v":1,' + extra)
    log.leaves.pop()
    log.put_line(line).batch()
    for plain in ([], ["--plain"]):
        assert found(judge(log, *plain)) == [("not_canonical", 4)]


def test_a_record_at_the_edge_of_the_profile_is_taken(judge: Judge) -> None:
    edge = {"n": 2**53 - 1, "m": 1 - 2**53, "text": "é\u007f\U0001f600", "when": "1.5,2e3:4.5"}
    log = Log().start().add("custom", zz=edge, aa=[None, True, "x-1e5", [], {}])
    size = 16_384 - len(log.lines[-1][-1]) - len(',"zzz":""')
    log.batch().add("custom", zz=edge, aa=[None, True, "x-1e5", [], {}])
    size = 16_384 - len(log.lines[-1].pop()) - len(',"zzz":""')
    log.leaves.pop()
    log.prev, log.pending = log.leaves[-1].hex(), hashlib.sha256(log.lines[-1][-1]).hexdigest()
    log.ts -= 1000
    log.add("custom", zz=edge, aa=[None, True, "x-1e5", [], {}], zzz="y" * size).batch()
    assert max(map(len, log.lines[-1])) == 16_384
    for plain in ([], ["--plain"]):
        assert judge(log, *plain)["valid"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"v": 2}, "edited"),
        ({"v": True}, "edited"),
        ({"v": "1"}, "edited"),
        ({"v": ...}, "edited"),
        ({"log": "other.example/audit"}, "wrong_log"),
        ({"log": None}, "wrong_log"),
        ({"ts": 1_699_999_999_999_999}, "edited"),
        ({"ts": "later"}, "edited"),
        ({"ts": True}, "edited"),
        ({"seq": 5}, "edited"),
        ({"seq": "4"}, "edited"),
        ({"seq": ...}, "edited"),
        ({"prev": "0" * 64}, "edited"),
        ({"prev": ...}, "edited"),
        ({"type": "genesis"}, "edited"),
        ({"type": ...}, "edited"),
    ],
)
def test_a_signed_record_that_breaks_the_chain_is_found(
    judge: Judge, fields: dict[str, object], kind: str
) -> None:
    log = Log().start().add("custom", **fields).batch().policy().batch()
    assert found(judge(log)) == [(kind, 4)]


@pytest.mark.parametrize("name", ["seq", "v", "ts"])
def test_a_truth_value_is_no_number_in_the_first_records(judge: Judge, name: str) -> None:
    log = Log()
    log.boot_id = "boot-0"
    log.ts = 0
    log.add("genesis", op="boot-0", key=log.key.vkey, profile="countersign.audit/v1", after=0)
    log.boot("boot-0", **{name: True}, after=0.000001 if name == "ts" else 0).batch()
    assert found(judge(log)) == [("edited", 1)]


def test_cp_stands_in_the_first_record_behind_a_checkpoint_line_only(judge: Judge) -> None:
    log = Log().start().policy().policy(cp="0" * 64).batch().policy().batch()
    assert found(judge(log))[0][1] in {4, 5}
    log = Log().start().policy(cp=...).batch().policy().batch()
    assert found(judge(log))[0][1] in {3, 4}
    log = Log().start().policy(cp="0" * 64).batch().policy().batch()
    assert found(judge(log)) == [("edited", 3)]


def test_a_log_begins_with_genesis(judge: Judge) -> None:
    log = Log()
    log.boot("boot-0").batch().policy().batch()
    assert found(judge(log))[0][1] == 0


@pytest.mark.parametrize("key", ["", "x", ORIGIN + "+00000000+AA==", None])
def test_a_genesis_without_a_good_key_is_no_start(judge: Judge, key: str | None) -> None:
    log = Log()
    log.boot_id = "boot-0"
    log.add("genesis", op="boot-0", key=key).boot("boot-0").batch().policy().batch()
    report = judge(log)
    assert report["exit"] == 1
    assert found(report)[0][1] == 0


def test_a_batch_longer_than_what_is_kept_is_checked_in_pieces(judge: Judge) -> None:
    log = Log().start()
    for index in range(4100):
        log.add("custom", n=index, after=0)
    log.batch().policy().batch()
    assert judge(log, tiles=True)["valid"]
    edit(log, 1000, b'"n":996', b'"n":997')
    assert found(judge(log))[0] == ("edited", 1000)


def test_a_break_with_no_good_signature_behind_it_ends_the_search(judge: Judge) -> None:
    log = Log().start()
    for index in range(200):
        log.add("custom", n=index).batch(TestKey("stranger"))
    edit(log, 10, b'"n":6', b'"n":7')
    report = judge(log, copy=False)
    assert found(report)[0] == ("wrong_key", 4)
    assert any("everything behind" in what for what in report["not_checked"])


def test_a_long_run_of_changed_lines_is_bounded(judge: Judge) -> None:
    log = Log().start()
    for index in range(4300):
        log.add("custom", n=index, after=0)
    lines = log.lines[0]
    lines[6:] = [b"garbage"] * 4300
    assert found(judge(log, copy=False))[0] == ("edited", 5)


def test_deep_tiles_are_compared(judge: Judge, tmp_path: Path) -> None:
    log = Log().start()
    for index in range(600):
        log.add("custom", n=index, after=0)
    folder = log.batch().write(tmp_path / "log", tiles=True)
    assert judge(folder)["valid"]
    for path, seq in (
        ("0/000", 0),
        ("0/001", 256),
        ("0/002.p/92", 512),
        ("1/000.p/2", 0),
    ):
        tile = folder / "tile" / path
        data = tile.read_bytes()
        tile.write_bytes(b"\1" + data[1:])
        assert found(judge(folder)) == [("edited", seq)], path
        for torn in (
            data[:-1],
            data[:40],
            b"",
            data[:32] + bytes(32) + data[64:],
            bytes(len(data)),
        ):
            tile.write_bytes(torn)
            assert judge(folder)["valid"], path
        tile.write_bytes(data[:-33] + b"x" + data[-32:-1])
        assert found(judge(folder))[0][0] == "edited", path
        tile.write_bytes(data)
    (folder / "tile/0/000").unlink()
    assert judge(folder)["valid"]


def test_full_tiles_of_the_level_above_are_compared(script: ModuleType, tmp_path: Path) -> None:
    """Below a log of 65,536 records and more, which would take too long to sign here."""
    leaves = [hashlib.sha256(index.to_bytes(4, "big")).digest() for index in range(65_536 + 256)]
    nodes = [tree_root(leaves[at : at + 256]) for at in range(0, len(leaves), 256)]
    tile = tmp_path / "tile" / "1" / "000"
    tile.parent.mkdir(parents=True)
    above = tmp_path / "tile" / "2" / "000.p" / "1"
    above.parent.mkdir(parents=True)
    for spoilt in range(3):
        tile.write_bytes(b"".join(nodes[:256]))
        above.write_bytes(tree_root(nodes[:256]))
        if spoilt:
            (tile, above)[spoilt - 1].write_bytes(b"x" * 32)
        told: list[int] = []
        tiles = script.Tiles(tmp_path / "tile", lambda seq, _, told=told: told.append(seq))
        tiles.feed(leaves, script.grow([], 0, leaves))
        tiles.close()
        assert told == ([0] if spoilt else [])


@pytest.mark.parametrize("count", [1, 92, 93, 348])
def test_tiles_of_more_records_than_there_are_show_a_cut(
    judge: Judge, tmp_path: Path, count: int
) -> None:
    log = Log().start()
    for index in range(600 - count):
        log.add("custom", n=index, after=0)
    end = len(log.batch().lines[0])
    for index in range(count):
        log.add("custom", n=index, after=0)
    log.batch()
    leaves = list(log.leaves)
    del log.lines[0][end:]
    folder = log.write(tmp_path / "log", copy=False)
    write_tiles(folder, leaves)
    assert found(judge(folder)) == [("truncated", 604 - count)]
    (folder / "LOCK").touch()
    with (folder / "LOCK").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert judge(folder)["valid"]
    for path in (folder / "tile").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))
    (folder / "tile" / "notes.txt").touch()
    assert judge(folder)["valid"]


def test_canonical_and_leaf_are_as_the_page_says() -> None:
    """The builder itself, on the example of §11."""
    line = canonical({"v": 1, "a": {"c": None, "b": [True]}})
    assert line == b'{"a":{"b":[true],"c":null},"v":1}'
