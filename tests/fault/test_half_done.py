"""What is half done when a disk is full or fails, or when a caller gives up."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_keys import load_or_create, load_or_create_kek
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.core.entry import Entry
from gateway.core.errors import AuditError
from tests.fault.story import Ack, Place, SetClock, Writer, inspect, intent, outcome, tell_opened

pytestmark = pytest.mark.req("AUD-10")
FULL = OSError(errno.ENOSPC, "no space left on device")


class Narrow(Files):
    """A disk that is full for files of these names, and for the reserve."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.is_full = False

    def _meet(self, path: Path) -> None:
        if self.is_full and any(name in str(path) for name in self.names):
            raise FULL

    def replace(self, path: Path, data: bytes) -> None:
        self._meet(path)
        super().replace(path, data)

    def append_to(self, path: Path) -> int:
        self._meet(path)
        return super().append_to(path)

    def create(self, path: Path) -> int:
        self._meet(path)
        return super().create(path)

    def allocate(self, path: Path, size: int) -> None:
        self._meet(path)
        super().allocate(path, size)


def entry(number: int) -> Entry:
    return Entry(type="config.change", op=f"op-{number}", fields={"setting": "x"})


async def test_a_checkpoint_copy_for_which_there_is_no_room_waits_and_poisons_nothing(
    tmp_path: Path,
) -> None:
    place, files, clock = Place(tmp_path), Narrow("checkpoint", "reserve"), SetClock()
    acks: list[Ack] = []
    log = place.open(files=files, clock=clock)
    tell_opened(log, acks.append)
    await log.start()
    recorded = await log.record_intent(intent("op-1", "alice"))
    before = (place.audit / "checkpoint").read_bytes()
    files.is_full = True
    for _ in range(3):  # the reserve is given up, then there is none
        clock.ns += 2 * 10**9
        done = await log.record_outcome(outcome(recorded))
        acks.append(Ack("outcome", done.seq, done.leaf.hex(), "op-1"))
    assert log.healthy
    assert log.is_full
    with pytest.raises(AuditError, match="full"):
        await log.record_intent(intent("op-2", "alice"))
    assert (place.audit / "checkpoint").read_bytes() == before
    files.is_full = False
    clock.ns += 2 * 10**9
    await log.close()
    assert (place.audit / "checkpoint").read_bytes() != before
    assert inspect(place, acks, clock) == []


@pytest.mark.parametrize("name", [".jsonl", "openings/"])
async def test_a_segment_for_which_there_is_no_room_begins_in_the_room_of_the_reserve(
    tmp_path: Path, name: str
) -> None:
    place, clock = Place(tmp_path), SetClock()
    acks: list[Ack] = []
    files = OnceFull(name, place.audit / "reserve")
    log = place.open(files=files, clock=clock, segment_max_bytes=1000)
    tell_opened(log, acks.append)
    await log.start()
    writer = Writer(log, acks.append, name="w", seed=1)
    await writer.call()
    files.is_full = True
    for _ in range(3):
        receipt = await log.record_outcome(outcome(await log.record_intent(intent("op", "a"))))
        acks.append(Ack("outcome", receipt.seq, receipt.leaf.hex(), "op"))
        clock.ns += 2 * 10**9
        await until_room(log, clock)
    assert files.refused
    assert log.healthy
    await log.close()
    assert inspect(place, acks, clock) == []


class OnceFull(Narrow):
    """A disk that is full until the reserve is given up."""

    def __init__(self, name: str, reserve: Path) -> None:
        super().__init__(name)
        self._reserve = reserve
        self.refused = 0

    def _meet(self, path: Path) -> None:
        if self._reserve.exists() and path.suffix == ".jsonl" and self.refused < 1:
            try:
                super()._meet(path)
            except OSError:
                self.refused += 1
                raise


async def until_room(log: FileAuditLog, clock: SetClock) -> None:
    """Wait until the reserve is taken again."""
    async with asyncio.timeout(20):
        while log.is_full:
            clock.ns += 2 * 10**9
            await asyncio.sleep(0.01)


class Slow(Files):
    """A disk that can be held up."""

    def __init__(self) -> None:
        self.flowing, self.entered = threading.Event(), threading.Event()
        self.flowing.set()

    def sync(self, descriptor: int) -> None:
        self.entered.set()
        assert self.flowing.wait(20)
        super().sync(descriptor)


async def test_a_key_change_whose_caller_gives_up_is_done_all_the_same(tmp_path: Path) -> None:
    place, files = Place(tmp_path), Slow()
    acks: list[Ack] = []
    log = place.open(files=files)
    tell_opened(log, acks.append)
    await log.start()
    files.flowing.clear()
    files.entered.clear()
    rotate = Entry(type="key.rotate", op="r", fields={"why": "command"})
    change = asyncio.ensure_future(log.rotate_key(rotate, 1))
    await asyncio.to_thread(files.entered.wait, 20)
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    files.flowing.set()
    await log.rotate_key(rotate, 2)
    receipt = await log.record(entry(1))
    acks.append(Ack("record", receipt.seq, receipt.leaf.hex(), "op-1"))
    assert len(log.epochs) == 3
    await log.close()
    assert inspect(place, acks) == []


class Failing(Slow):
    """A disk that fails to sync files, or directories of this name."""

    def __init__(self) -> None:
        super().__init__()
        self.fails, self.directory = False, ""

    def sync(self, descriptor: int) -> None:
        if self.fails:
            raise OSError(errno.EIO, "input/output error")
        super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        if path.name == self.directory:
            raise OSError(errno.EIO, "input/output error")
        super().sync_directory(path)


ROTATE = Entry(type="key.rotate", op="r", fields={"why": "schedule"})


async def test_asking_again_after_a_key_change_that_failed_does_not_lose_the_key_of_the_log(
    tmp_path: Path,
) -> None:
    place, files = Place(tmp_path), Failing()
    acks: list[Ack] = []
    log = place.open(files=files)
    tell_opened(log, acks.append)
    await log.start()
    files.fails = True
    for _ in range(2):  # the batch may be on the disk all the same; here it is
        with pytest.raises(AuditError, match="input/output"):
            await log.rotate_key(ROTATE, 1)
    files.fails = False
    await log.close()
    assert inspect(place, acks) == []
    again = place.open()
    assert len(again.epochs) == 2
    await again.close()


async def test_a_new_key_that_could_not_be_put_in_its_place_is_before_the_next_change(
    tmp_path: Path,
) -> None:
    place, files = Place(tmp_path), Failing()
    acks: list[Ack] = []
    log = place.open(files=files)
    tell_opened(log, acks.append)
    await log.start()
    for name in ("keys", "keys", ""):
        files.directory = name
        try:
            await log.rotate_key(ROTATE, 1)
        except AuditError as error:
            assert "input/output" in str(error)  # noqa: PT017 - the last one goes well
            assert name
    receipt = await log.record(entry(1))
    acks.append(Ack("record", receipt.seq, receipt.leaf.hex(), "op-1"))
    await log.close()
    assert len(log.epochs) == 3
    assert inspect(place, acks) == []


class Forgetful(Failing):
    """A disk whose memory counts as synced what a failed sync did not bring to it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Path, bytes] = {}

    def settle(self, path: Path) -> None:
        super().settle(path)
        path.write_bytes(self.kept.get(path, path.read_bytes()))  # as it is read anew


async def test_what_a_failed_sync_left_in_memory_is_not_believed(tmp_path: Path) -> None:
    place, files = Place(tmp_path), Forgetful()
    acks: list[Ack] = []
    log = place.open(files=files)
    tell_opened(log, acks.append)
    await log.start()
    writer = Writer(log, acks.append, name="w", seed=1)
    await writer.call()
    files.kept = {path: path.read_bytes() for path in place.audit.glob("*.jsonl")}
    files.fails = True
    with pytest.raises(AuditError):
        await writer.call()
    files.fails = False
    await log.close()
    again = place.open(files=files)
    assert [record["op"] for record in place.records()].count("w-2") == 0
    files.kept.clear()
    await again.close()
    assert inspect(place, acks) == []


def test_a_key_file_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    class CutError(Exception):
        pass

    def cut(*_: object) -> None:
        raise CutError

    key, kek = tmp_path / "keys" / "a.pem", tmp_path / "keys" / "a.kek"
    for name in ("write", "sync"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Files, name, cut)
            for make, path in ((load_or_create, key), (load_or_create_kek, kek)):
                with pytest.raises(CutError):
                    make(path)
                assert list(path.parent.iterdir()) == []
    assert load_or_create(key)[1] == load_or_create(key)[1]
    assert load_or_create_kek(kek) == load_or_create_kek(kek)
