"""The signing key changes, and the old one is gone (spec §4.2)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_keys import load_key, vkey_of
from gateway.adapters.audit.audit_verify import verify
from gateway.cli import audit
from gateway.core.entry import Entry
from gateway.core.errors import AuditError, ConfigurationError
from tests.integration.audit.parts import (
    ORIGIN,
    FaultyFiles,
    Open,
    StillClock,
    lines_of,
    note_entry,
    records_of,
    until,
)

pytestmark = pytest.mark.req("AUD-07")
ROTATE = Entry(type="key.rotate", op="rotation", fields={"why": "command"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.pem"


class CrashError(Exception):
    """The process ends here."""


class CrashingFiles(Files):
    """Ends the process before one of its operations on the key."""

    def __init__(self, before: str) -> None:
        self._before = before

    def sync_directory(self, path: Path) -> None:
        if self._before == "sync_directory":
            raise CrashError
        super().sync_directory(path)

    def write(self, descriptor: int, data: bytes) -> None:
        if self._before == "write":
            raise CrashError
        super().write(descriptor, data)


async def test_after_a_rotation_the_new_key_signs_and_the_old_one_is_destroyed(
    open_log: Open, path: Path, directory: Path, clock: StillClock
) -> None:
    log = open_log(signer=KeyFile(path))
    await log.start()
    first = vkey_of(load_key(path), ORIGIN)
    old_file = os.open(path, os.O_RDONLY)
    await log.record(note_entry(1))
    clock.ns += 5 * 10**9
    receipt = await log.rotate_key(ROTATE, clock.ns // 1000)
    await log.record(note_entry(2))
    second = vkey_of(load_key(path), ORIGIN)
    assert second != first
    assert (log.epochs, log.epoch_us) == ((first, second), clock.ns // 1000)
    assert not os.read(old_file, 4096).strip(b"\0")
    os.close(old_file)
    assert not path.with_name(path.name + ".next").exists()
    assert (directory / "log.vkey").read_text().split() == [first, second]
    await log.close()
    record = records_of(directory)[receipt.seq]
    assert (record["epoch"], record["key"], record["why"]) == (1, second, "command")
    notes = [
        line["cp"].splitlines()[-1].split()[2][:5]
        for line in lines_of(directory)
        if "v" not in line
    ]
    at = [line.get("type") for line in lines_of(directory)].index("key.rotate")
    assert (
        "cp" in lines_of(directory)[at + 1]
    )  # the last record of its batch, sealed by the old key
    assert len(set(notes)) == 2
    for pinned in (first, second):
        report = verify(directory, vkey=pinned, every_signature=True)
        assert (report.valid, report.findings) == (True, ())


async def test_records_that_come_during_a_rotation_are_signed_by_the_new_key(
    open_log: Open, path: Path, directory: Path, clock: StillClock
) -> None:
    log = open_log(signer=KeyFile(path))
    await log.start()
    writing = [asyncio.ensure_future(log.record(note_entry(n))) for n in range(5)]
    rotating = asyncio.ensure_future(log.rotate_key(ROTATE, clock.ns // 1000))
    for n in range(40):
        writing.append(asyncio.ensure_future(log.record(note_entry(n))))
        await asyncio.sleep(0.001)
    await asyncio.gather(rotating, *writing)
    await asyncio.gather(*(log.rotate_key(ROTATE, clock.ns // 1000) for _ in range(3)))
    await log.close()
    assert verify(directory, vkey=log.epochs[0], every_signature=True).valid
    assert len(log.epochs) == 5
    await open_log(signer=KeyFile(path)).close()
    assert verify(directory, vkey=log.epochs[0], every_signature=True).valid


async def test_the_old_key_cannot_open_the_log_any_more(
    open_log: Open, path: Path, clock: StillClock
) -> None:
    log = open_log(signer=KeyFile(path))
    old = load_key(path)
    await log.start()
    await log.rotate_key(ROTATE, clock.ns // 1000)
    await log.close()
    with pytest.raises(ConfigurationError, match="wrong_key"):
        open_log(signer=old)


@pytest.mark.parametrize("before", ["sync_directory", "write"])
async def test_a_crash_while_the_old_key_is_destroyed_leaves_a_log_that_opens_with_the_new_one(
    before: str, open_log: Open, path: Path, directory: Path, clock: StillClock
) -> None:
    open_log(signer=KeyFile(path))  # makes the key
    first = load_key(path)
    log = open_log(signer=KeyFile(path, CrashingFiles(before)), dir=directory.with_name("other"))
    await log.start()
    with pytest.raises(CrashError):
        await log.rotate_key(ROTATE, clock.ns // 1000)
    await log.close()
    again = open_log(signer=KeyFile(path), dir=directory.with_name("other"))
    assert again.epochs[0] == vkey_of(first, ORIGIN)
    assert again.epochs[1] == vkey_of(load_key(path), ORIGIN)
    await again.close()


async def test_a_crash_before_the_rotation_is_durable_forgets_the_new_key(
    open_log: Open, path: Path, files: FaultyFiles, clock: StillClock, directory: Path
) -> None:
    log = open_log(signer=KeyFile(path))
    await log.start()
    before = load_key(path)
    files.fail_sync = True
    with pytest.raises(AuditError):
        await log.rotate_key(ROTATE, clock.ns // 1000)
    files.fail_sync = False
    assert path.with_name(path.name + ".next").exists()
    await log.close()
    # whether the batch came to the disk decides; here it did not
    segment = directory / f"{0:020d}.jsonl"
    text = segment.read_bytes()
    segment.write_bytes(text[: text.index(b'{"boot"', text.index(b'{"cp":'))])
    again = open_log(signer=KeyFile(path))
    assert again.epochs == (vkey_of(before, ORIGIN),)
    assert not path.with_name(path.name + ".next").exists()
    await again.close()


async def test_a_crash_after_the_rotation_is_durable_takes_up_the_new_key(
    open_log: Open, path: Path, files: FaultyFiles, clock: StillClock, directory: Path
) -> None:
    log = open_log(signer=KeyFile(path))
    await log.start()
    files.fail_sync = True  # the batch is written; only its acknowledgement is missing
    with pytest.raises(AuditError):
        await log.rotate_key(ROTATE, clock.ns // 1000)
    files.fail_sync = False
    await log.close()
    new = load_key(path.with_name(path.name + ".next"))
    again = open_log(signer=KeyFile(path))
    assert again.epochs[1] == vkey_of(new, ORIGIN) == vkey_of(load_key(path), ORIGIN)
    await again.close()
    assert verify(directory, every_signature=True).valid


async def test_a_torn_successor_is_no_hindrance(open_log: Open, path: Path) -> None:
    await open_log(signer=KeyFile(path)).close()
    path.with_name(path.name + ".next").touch(mode=0o600)
    log = open_log(signer=KeyFile(path))
    assert len(log.epochs) == 1
    await log.close()


async def test_a_key_that_is_in_no_file_cannot_change(open_log: Open) -> None:
    log = open_log(signer=Ed25519PrivateKey.generate())
    await log.start()
    with pytest.raises(AuditError, match="not in a file"):
        await log.rotate_key(ROTATE, 0)
    await until(lambda: log.healthy)


async def test_a_log_vkey_that_was_kept_after_a_rotation_verifies_at_the_command_line(
    open_log: Open, path: Path, directory: Path, clock: StillClock, tmp_path: Path
) -> None:
    log = open_log(signer=KeyFile(path))
    await log.start()
    await log.rotate_key(ROTATE, clock.ns // 1000)
    await log.record(note_entry(1))
    await log.close()
    kept = tmp_path / "kept+log.vkey"  # a `+` in a file's name makes no key of it
    kept.write_bytes((directory / "log.vkey").read_bytes())
    said = CliRunner().invoke(audit.app, ["verify", str(directory), "--vkey", str(kept)])
    assert (said.exit_code, said.stderr) == (0, "")
    other = vkey_of(Ed25519PrivateKey.from_private_bytes(bytes(32)), ORIGIN)
    kept.write_text(f"{other}\n{kept.read_text()}")
    said = CliRunner().invoke(audit.app, ["verify", str(directory), "--vkey", str(kept)])
    assert said.exit_code == 8
