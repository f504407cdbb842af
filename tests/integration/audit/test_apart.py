"""A log that a process of its own keeps, and what is handed over to it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.adapters.audit import audit_files, audit_process
from gateway.adapters.audit.audit_apart import KeeperProcess
from gateway.adapters.audit.audit_files import is_locked, lock
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_verify import verify
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.system import SystemClock
from gateway.cli import build
from gateway.config.settings import load_config
from gateway.core.entry import Entry, Opening
from gateway.core.errors import AuditError, ConfigurationError
from gateway.wiring.gateway import Gateway
from tests.integration.audit.parts import (
    DEPLOYMENT,
    KEK,
    ORIGIN,
    erasure,
    intent,
    note_entry,
    outcome,
    records_of,
)
from tests.patience import PATIENT

ARGS = (Opening("args", b"alice's", "alice"),)


def open_log(folder: Path, segment_max_bytes: int = 1 << 20) -> FileAuditLog:
    return FileAuditLog.open(
        folder / "audit",
        origin=ORIGIN,
        signer=KeyFile(folder / "audit.pem"),
        kek=KEK,
        clock=SystemClock(),
        limits=PATIENT,
        deployment=DEPLOYMENT,
        segment_max_bytes=segment_max_bytes,
    )


@pytest.mark.req("GW-13", "AUD-02")
async def test_a_log_goes_on_from_thread_to_process_and_back_over_many_segments_and_tiles(
    tmp_path: Path,
) -> None:
    size = 0
    for turn in range(4):
        log = open_log(tmp_path, segment_max_bytes=20_000)
        await log.start(apart=turn % 2 == 0)
        recorded = await asyncio.gather(*(log.record_intent(intent(n)) for n in range(80)))
        done = await asyncio.gather(*(log.record_outcome(outcome(one)) for one in recorded))
        assert max(one.seq for one in done) == log.size - 1
        await log.close()
        size = log.size
    report = verify(tmp_path / "audit", every_signature=True)
    assert (report.valid, report.records) == (True, size)
    assert (tmp_path / "audit" / "tile" / "0" / "001").stat().st_size == 256 * 32


@pytest.mark.req("AUD-06")
async def test_keys_change_and_subjects_are_erased_in_the_process(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.start(apart=True)
    before = await log.record(note_entry(1, openings=ARGS))
    rotation = Entry(type="key.rotate", op="op-r", fields={"why": "command"})
    await log.rotate_key(rotation, 1)
    key = log.key_id("alice")
    await log.redact(erasure(key), key)
    after = await log.record(note_entry(2, openings=ARGS))
    assert log.read_opening(before.seq, "args") is None
    assert log.read_opening(after.seq, "args") == b"alice's"
    assert len(log.epochs) == 2
    await log.close()
    assert verify(tmp_path / "audit", every_signature=True).valid
    again = open_log(tmp_path)
    assert again.read_opening(after.seq, "args") == b"alice's"
    await again.close()


async def test_an_erasure_that_cannot_be_recorded_erases_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.start(apart=True)
    kept = await log.record(note_entry(1, openings=ARGS))
    key = log.key_id("alice")
    wrong = Entry(type="redact", op="o", fields={"subject": 0.5}, event_id="e")
    with pytest.raises(AuditError) as caught:
        await log.redact(wrong, key)
    assert caught.value.code == "audit_record_invalid"
    assert log.read_opening(kept.seq, "args") == b"alice's"
    assert not list((tmp_path / "audit" / "openings" / "keys").glob("*.erasing"))
    await log.close()


async def test_what_no_message_can_hold_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.start(apart=True)
    for value in (object(), 2**70, "\ud800"):
        with pytest.raises(AuditError) as caught:
            await log.record(note_entry(fields={"x": value}))
        assert caught.value.code == "audit_record_invalid"
    await log.close()


async def test_an_event_that_stands_from_before_is_not_written_again(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.start(apart=True)
    first = await log.record(note_entry(event_id="e-1"))
    await log.close()
    again = open_log(tmp_path)
    assert again.knows("e-1")
    await again.start(apart=True)
    assert await again.record(note_entry(event_id="e-1")) == first
    both = await asyncio.gather(*(again.record(note_entry(event_id="e-2")) for _ in range(2)))
    assert both[0] == both[1]
    assert again.knows("e-2")
    await again.close()
    assert [r.get("event") for r in records_of(tmp_path / "audit")].count("e-2") == 1


async def test_a_process_that_cannot_be_started_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(AuditError, match="nothing can be started that keeps it"):
        await log.start(apart=True)
    await log.close()


async def test_a_process_that_ends_before_it_keeps_anything_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path)

    class Stillborn(KeeperProcess):
        def hand(self, *_: object) -> None:
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr("gateway.adapters.audit.file_audit.KeeperProcess", Stillborn)
    with pytest.raises(AuditError, match="has ended"):
        await log.start(apart=True)
    assert not log.healthy
    await log.close()


@pytest.mark.req("GW-13")
async def test_a_process_that_is_killed_is_reaped_and_how_it_ended_is_told_once(
    tmp_path: Path,
) -> None:
    log, pid, told = await _kept(tmp_path)
    os.kill(pid, signal.SIGKILL)
    assert await told.get() == "what keeps it has ended: killed by signal 9"
    assert not _is_there(pid)
    await log.close()
    assert told.empty()


PROGRAMS = {
    "raise SystemExit(3)": "what keeps it has ended: it exited with 3",
    "pass": "what keeps it has ended",
    "import os, signal, sys; os.close(int(sys.argv[1])); signal.pause()": "what keeps it has ended",
}


@pytest.mark.parametrize(("program", "told"), PROGRAMS.items())
async def test_a_process_that_is_no_keeper_is_told_of_once_however_it_ends_and_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    """Also one that has closed its connection and does not end: nobody waits for it for ever."""
    monkeypatch.setattr("gateway.adapters.audit.audit_apart.ENDING_S", 0.5)
    path = tmp_path / "program.py"
    path.write_text(program)
    monkeypatch.setattr(audit_process, "__file__", str(path))
    said: list[str] = []
    log = open_log(tmp_path)
    with pytest.raises(AuditError, match="what keeps it has ended"):
        await log.start(apart=True, failed=said.append)
    await log.close()
    assert said == [told]
    assert log.keeper_pid is not None
    assert not _is_there(log.keeper_pid)


async def test_a_gateway_that_cannot_have_its_log_kept_says_why_and_gives_the_log_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(build("init"), ["init", str(tmp_path / "g")]).exit_code == 0
    config = load_config(tmp_path / "g" / "countersign.yaml", os.environ)
    path = tmp_path / "program.py"
    path.write_text("raise SystemExit(3)")
    monkeypatch.setattr(audit_process, "__file__", str(path))
    with capture_logs() as lines, pytest.raises(AuditError, match="what keeps it has ended"):
        await Gateway(config).start()
    told = [line["why"] for line in lines if line["event"] == "audit_log_failed"]
    assert told == ["what keeps it has ended: it exited with 3"]
    assert not is_locked(config.audit.dir)


async def test_why_a_process_fails_is_told_in_its_own_words_and_it_is_reaped(
    tmp_path: Path,
) -> None:
    log, pid, told = await _kept(tmp_path)
    keys = tmp_path / "audit" / "openings" / "keys"
    keys.rename(tmp_path / "elsewhere")
    with pytest.raises(AuditError):
        await log.record(note_entry(openings=ARGS))
    assert (await told.get()).startswith("FileNotFoundError")
    for thread in threading.enumerate():
        if thread.name == "audit-keeper-end":
            await asyncio.to_thread(thread.join)
    assert not _is_there(pid)
    await log.close()
    assert told.empty()


async def _kept(folder: Path) -> tuple[FileAuditLog, int, asyncio.Queue[str]]:
    """Start a log, the process that keeps it, and what is told of that process."""
    told: asyncio.Queue[str] = asyncio.Queue()
    log = open_log(folder)
    await log.start(apart=True, failed=told.put_nowait)
    assert log.keeper_pid is not None
    return log, log.keeper_pid, told


def _is_there(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


@pytest.mark.network
def test_the_program_takes_over_what_is_handed_to_it_and_ends_with_its_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InThread(KeeperProcess):
        def __init__(self) -> None:
            self.connection, theirs = socket.socketpair()
            monkeypatch.setattr(sys, "argv", ["audit_process", str(theirs.detach())])
            self._thread = threading.Thread(target=audit_process.main)
            self._thread.start()

        @property
        def pid(self) -> int:
            return os.getpid()

        async def ended(self) -> None:
            self._thread.join()

    async def keep() -> None:
        log = open_log(tmp_path)
        await log.start(apart=True)
        await log.record(note_entry())
        await log.close()

    monkeypatch.setattr(audit_process, "confine", lambda: None)
    monkeypatch.setattr("gateway.adapters.audit.file_audit.KeeperProcess", InThread)
    asyncio.run(keep())
    assert [record["type"] for record in records_of(tmp_path / "audit")][-1] == "shutdown"


def test_a_program_to_which_nothing_is_handed_ends() -> None:
    for sent in (b"", b"\0\0\0\x09half"):
        ours, theirs = socket.socketpair()
        ours.sendall(sent)
        ours.close()
        with theirs:
            assert audit_process.receive(theirs) is None


@pytest.mark.req("AUD-10")
async def test_a_process_that_hangs_is_killed_when_the_log_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.audit.audit_queue.CLOSE_PATIENCE_S", 0.05)
    monkeypatch.setattr("gateway.adapters.audit.audit_apart.ENDING_S", 0.05)
    log = open_log(tmp_path)
    await log.start(apart=True)
    await log.record(note_entry(1))
    assert log.keeper_pid is not None
    assert f"its log kept by process {log.keeper_pid}" in (tmp_path / "audit/LOCK").read_text()
    os.kill(log.keeper_pid, signal.SIGSTOP)
    with pytest.raises(AuditError, match="could not be closed"):
        await log.close()
    again = open_log(tmp_path)
    await again.close()
    assert verify(tmp_path / "audit").valid


@pytest.mark.req("AUD-10")
@pytest.mark.parametrize("apart", [True, False])
async def test_a_log_whose_lock_was_deleted_gets_no_second_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    monkeypatch.setattr(audit_files, "LOCK_PATIENCE_S", 0.05)
    log = open_log(tmp_path)
    await log.start(apart=apart)
    (tmp_path / "audit" / "LOCK").unlink()
    with pytest.raises(ConfigurationError, match="another process, whose `LOCK` was deleted"):
        open_log(tmp_path)
    await log.record(note_entry(1))
    await log.close()
    await open_log(tmp_path).close()
    assert verify(tmp_path / "audit").valid


@pytest.mark.req("AUD-10")
async def test_where_folders_cannot_be_locked_the_file_alone_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def refuse_folders(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "as a network file system says it")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse_folders)
    log = open_log(tmp_path)
    with pytest.raises(ConfigurationError, match=f"held by process {os.getpid()}"):
        open_log(tmp_path)
    await log.close()


@pytest.mark.req("AUD-10")
def test_where_nothing_can_be_locked_no_log_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ConfigurationError, match="No locks available"):
        open_log(tmp_path)


@pytest.mark.req("AUD-10")
def test_a_log_whose_process_has_ended_is_waited_for_and_one_that_lives_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lock(tmp_path)
    with pytest.raises(ConfigurationError, match=f"held by process {os.getpid()}"):
        lock(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "LOCK").write_text(f"process {ended.pid}\n")
    unburied = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, unburied.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked
    monkeypatch.setattr(audit_files, "LOCK_PATIENCE_S", 0.05)
    for gone in (ended, unburied):
        (tmp_path / "LOCK").write_text(f"process {gone.pid}, its log kept by process 1\n")
        begun = time.monotonic()
        with pytest.raises(ConfigurationError, match=f"held by process {gone.pid}"):
            lock(tmp_path)
        assert time.monotonic() - begun >= 0.04
    unburied.wait()
    monkeypatch.setattr(audit_files, "LOCK_PATIENCE_S", 20.0)
    timer = threading.Timer(0.05, os.close, [held])
    timer.start()
    os.close(lock(tmp_path))
    timer.join()
    (tmp_path / "LOCK").write_text("somebody\n")
    held = os.open(tmp_path / "LOCK", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ConfigurationError, match="held by somebody"):
        lock(tmp_path)
    os.close(held)
