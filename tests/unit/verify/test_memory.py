"""What was seen before: a log that is shorter or other later is told, with a proof."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.verify.conftest import Judge, found
from tests.unit.verify.logbuilder import Log, TestKey

pytestmark = pytest.mark.req("AUD-03")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "verified.json"


def test_a_log_that_grew_is_remembered_anew(judge: Judge, state: Path) -> None:
    log = Log().start()
    words = ["--state", str(state)]
    assert judge(log, *words)["valid"]
    assert json.loads(state.read_text())["logs"][log.origin] == log.last_note
    log.call("op-1")
    assert judge(log, *words)["valid"]
    assert json.loads(state.read_text())["logs"][log.origin] == log.last_note
    assert judge(log, *words)["valid"]


def test_a_log_that_shrank_is_rewound_with_a_proof(judge: Judge, state: Path) -> None:
    log = Log().start().call("op-1")
    assert judge(log, "--state", str(state))["exit"] == 0
    whole = log.last_note
    del log.lines[0][-2:]
    report = judge(log, "--state", str(state), copy=False)
    assert (report["exit"], found(report)) == (4, [("rewound", 5)])
    proof = json.loads(Path(report["fraud_proof"]).read_text())
    assert proof["known"] == whole
    assert proof["shown"].startswith(f"{log.origin}\n5\n")
    assert proof["keys"] == log.vkeys
    assert json.loads(state.read_text())["logs"][log.origin] == whole


def test_a_rewound_log_is_told_once_though_its_copy_says_so_too(judge: Judge, state: Path) -> None:
    log = Log().start().call("op-1")
    judge(log, "--state", str(state))
    del log.lines[0][-2:]
    assert found(judge(log, "--state", str(state))) == [("rewound", 5)]


def test_another_history_is_a_fork_with_a_proof(judge: Judge, state: Path) -> None:
    log = Log().start().call("op-1")
    judge(log, "--state", str(state))
    fork = Log().start().call("op-2").call("op-3")
    report = judge(fork, "--state", str(state))
    assert (report["exit"], found(report)) == (4, [("forked", 5)])
    proof = json.loads(Path(report["fraud_proof"]).read_text())
    assert proof["known"] == log.last_note
    assert proof["shown"].startswith(f"{log.origin}\n6\n")


def test_another_key_for_a_log_that_was_seen_is_told(judge: Judge, state: Path) -> None:
    judge(Log().start().call("op-1"), "--state", str(state))
    other = Log(key=TestKey("stranger")).start()
    report = judge(other, "--state", str(state), pinned=False)
    assert (report["exit"], found(report)) == (1, [("wrong_key", 5)])
    assert report["fraud_proof"] is None


def test_logs_of_other_names_do_not_disturb_each_other(judge: Judge, state: Path) -> None:
    one, other = Log().start().call("op-1"), Log("other.example/audit").start()
    for log in (one, other, one, other):
        assert judge(log, "--state", str(state))["exit"] == 0
    assert set(json.loads(state.read_text())["logs"]) == {one.origin, other.origin}


def test_a_verification_that_took_long_takes_nothing_from_those_that_ended_meanwhile(
    judge: Judge, script: ModuleType, state: Path, tmp_path: Path
) -> None:
    log, other = Log().start().call("op-1"), Log("other.example/audit").start()
    began = script.Memory(state)
    report = script.Verifier(script.Asked(log.write(tmp_path / "before"))).run()
    longer = log.call("op-2")
    for one in (longer, other):
        assert judge(one, "--state", str(state))["exit"] == 0
    began.keep(report)
    kept = json.loads(state.read_text())["logs"]
    assert kept == {one.origin: one.last_note for one in (longer, other)}


def test_who_holds_the_folder_of_a_memory_keeps_no_verification_for_ever(
    judge: Judge, script: ModuleType, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "PATIENCE_S", 0.1)
    state.parent.mkdir()
    handle = os.open(state.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    report = judge(Log().start(), "--state", str(state))
    os.close(handle)
    assert report["exit"] == 0
    assert report["warnings"][0].startswith("NO_MEMORY")


def test_a_log_that_is_not_valid_is_not_remembered(judge: Judge, state: Path) -> None:
    judge(Log().start().outcome("op-1").batch(), "--state", str(state))
    assert not state.exists()


def test_a_fork_without_memory_says_so_without_a_file(judge: Judge, tmp_path: Path) -> None:
    log = Log().start().call("op-1")
    kept = tmp_path / "kept"
    kept.write_text(log.key.note(5, bytes(32)), encoding="utf-8")
    report = judge(log, "--checkpoint", str(kept))
    assert (report["exit"], report["fraud_proof"]) == (4, None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"logs":3}', '{"logs":{"a":"b"}}', "\0", "[" * 5000]
)
def test_a_damaged_memory_is_refused_plainly(judge: Judge, state: Path, text: str) -> None:
    state.parent.mkdir()
    state.write_text(text)
    report = judge(Log().start(), "--state", str(state))
    assert report["exit"] == 2
    assert str(state) in report["error"]


def test_a_memory_that_cannot_be_written_is_a_warning(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    report = judge(Log().start(), "--state", str(tmp_path / "file" / "state"))
    assert report["exit"] == 0
    assert report["warnings"][0].startswith("NO_MEMORY")


def test_the_memory_lies_where_xdg_says(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: object
) -> None:
    memory = script.Memory  # type: ignore[attr-defined]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert memory.default() == tmp_path / "xdg" / "countersign" / "verified.json"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert memory.default() == Path.home() / ".local/state/countersign/verified.json"
