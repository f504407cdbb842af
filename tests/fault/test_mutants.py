"""Mistakes put into the log's code on purpose: the suite finds each of them.

Each stands beside the check that is to find it. A check that finds nothing where a mistake is would
find nothing where one was made in earnest.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.adapters.audit import audit_keys, audit_open, audit_recovery
from gateway.adapters.audit.audit_files import Files
from gateway.adapters.audit.audit_keeper import Keeper
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_recovery import _Index, _Scan
from gateway.adapters.audit.audit_reserve import Reserve
from gateway.adapters.audit.audit_writer import SegmentWriter
from gateway.core.errors import AuditError
from tests.fault.conftest import Figure
from tests.fault.mutants import Mutant, planted
from tests.fault.power_loss import Budget, PowerLoss
from tests.fault.story import Place, SetClock, Writer

pytestmark = pytest.mark.req("AUD-11")
Check = Callable[[Path], list[str]]


def lose_power(folder: Path) -> list[str]:
    """A search that ends with the first problem."""
    for seed in range(3):
        part = folder / str(seed)
        part.mkdir()
        search = PowerLoss(part, seed, Budget(1, 1, 40, 1, 2), most_problems=1)
        try:
            problems = search.run().problems
        except Exception as error:  # noqa: BLE001 - a log in which nothing can be written
            problems = [f"the writer ended: {error!r}"]
        if problems:
            return problems
    return []


class Ailing(Files):
    """A disk whose next sync fails when that is said, or that is full for as long."""

    def __init__(self) -> None:
        self.fails, self.is_full = False, False

    def sync(self, descriptor: int) -> None:
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, "input/output error")
        super().sync(descriptor)

    def allocate(self, path: Path, size: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        super().allocate(path, size)

    def replace(self, path: Path, data: bytes) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        super().replace(path, data)


def fail_sync(folder: Path) -> list[str]:
    """A sync fails once; after that, nothing may be taken."""

    async def run() -> list[str]:
        files = Ailing()
        log = Place(folder).open(files=files, clock=SetClock())  # nothing lazy is synced
        await log.start()
        writer = Writer(log, lambda _: None, name="w", seed=1)
        await writer.event()
        files.fails = True
        with pytest.raises(AuditError):
            await writer.event()
        try:
            await asyncio.wait_for(writer.event(), 1)
        except AuditError:
            return []
        finally:
            await log.close()
        return ["a record was taken after a failed sync"]

    return asyncio.run(run())


def fill_up(folder: Path) -> list[str]:
    """The disk fills up and is free again; calls are taken again."""

    async def run() -> list[str]:
        files, clock = Ailing(), SetClock()
        log = Place(folder).open(files=files, clock=clock)
        await log.start()
        writer = Writer(log, lambda _: None, name="w", seed=1)
        files.is_full = True
        clock.ns += 2 * 10**9
        try:
            await writer.event()  # the copy finds no room
            await until(lambda: log.is_full)
            files.is_full = False
            clock.ns += 2 * 10**9
            await until(lambda: not log.is_full)
            await writer.event()
        except (TimeoutError, AuditError) as error:
            return [f"no record is taken although there is room: {error!r}"]
        finally:
            await log.close()
        return []

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """Let the keeper go on until something holds."""
    async with asyncio.timeout(3):
        while not condition():  # noqa: ASYNC110 - it holds in another thread
            await asyncio.sleep(0.01)


MUTANTS: list[tuple[Mutant, Check]] = [
    (
        Mutant(
            "an acknowledgement without a write",
            Keeper,
            "answer",
            "self._commit()\n",
            "pass\n",
        ),
        lose_power,
    ),
    (
        Mutant(
            "no sync of a batch",
            SegmentWriter,
            "write",
            "self._files.sync(self._descriptor)",
            "pass",
        ),
        lose_power,
    ),
    (
        Mutant(
            "no sync of the directory for a new segment",
            Files,
            "create",
            "self.sync_directory(path.parent)",
            "pass",
        ),
        lose_power,
    ),
    (
        Mutant("no sync of a file put in place", Files, "_replace", "if sync:", "if False:"),
        lose_power,
    ),
    (
        Mutant(
            "no sync of the directory that the log is made in",
            Files,
            "make_directory",
            "self.sync_directory(path.parent)",
            "pass",
        ),
        lose_power,
    ),
    (
        Mutant(
            "no sync of what a killed writer left",
            audit_open,
            "recover",
            "files.settle(segments[-1])",
            "pass",
        ),
        lose_power,
    ),
    (
        Mutant(
            "no sync of a new key",
            audit_keys,
            "_write_new",
            "files.sync(descriptor)",
            "pass",
        ),
        lose_power,
    ),
    (
        Mutant(
            "an old key destroyed before the new one is sure to be in its place",
            KeyFile,
            "_adopt",
            "self._files.sync_directory(self._path.parent)",
            "pass",
        ),
        lose_power,
    ),
    (
        Mutant(
            "an erasure that is on record and not gone through with after a crash",
            Vault,
            "finish",
            'if mark.read_text(errors="replace") in recorded:',
            "if False:",
        ),
        lose_power,
    ),
    (
        Mutant(
            "a recovery that cuts one batch too much",
            audit_recovery,
            "_cut",
            "os.truncate(segment, scan.good)",
            "os.truncate(segment, content.rfind(b'{\"boot', 0, max(scan.good - 1, 0)) + 1 or 0)",
        ),
        lose_power,
    ),
    (
        Mutant(
            "a recovery that forgets an intent that is open",
            _Index,
            "_close",
            'self.recovered.open_intents.pop(value["op"], None)',
            "self.recovered.open_intents.clear()",
        ),
        lose_power,
    ),
    (
        Mutant(
            "a torn tail that is taken for damage",
            _Scan,
            "_stop",
            "if starts_only or has_holes:",
            "if has_holes:",
        ),
        lose_power,
    ),
    (
        Mutant(
            "a hole in the last batch that is taken for damage",
            _Scan,
            "_stop",
            "if starts_only or has_holes:",
            "if starts_only:",
        ),
        lose_power,
    ),
    (
        Mutant(
            "a log that goes on after a failed sync",
            Keeper,
            "answer",
            "self._commit()\n",
            "try:\n        self._commit()\n    except OSError:\n"
            "        no = Refused('audit_unavailable', 'no')\n"
            "        return Answer(0, full=False, results=[no for _ in results])\n",
        ),
        fail_sync,
    ),
    (
        Mutant(
            "a reserve that is never taken again",
            Reserve,
            "refill",
            "if not self.is_spent:",
            "if self._path.parent.joinpath('checkpoint').exists():",
        ),
        fill_up,
    ),
]


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=[m.what for m, _ in MUTANTS])
def test_a_mistake_in_the_writer_is_found(
    mutant: Mutant, check: Check, memory: Path, figure: Figure
) -> None:
    with planted(mutant):
        assert check(memory)
    figure("mutants of the writer, all found", 1)


@pytest.mark.parametrize("check", [fail_sync, fill_up])
def test_without_a_mistake_there_is_nothing_to_find(check: Check, memory: Path) -> None:
    assert check(memory) == []
