"""Fills a real disk under a real log, again and again.

    unshare -m python -m tests.fault.full_disk ROUNDS SEED FOLDER

FOLDER becomes a disk of its own, small and in memory, which only this process sees. In each round
calls are admitted until the disk is full, then all of them end, then there is room again. Prints
JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.core.calls.call import RecordedIntent
from gateway.core.entry import Entry
from gateway.core.errors import AuditError
from gateway.core.limits import Limits
from tests.fault.story import Ack, Place, inspect, intent, outcome, tell_opened

DISK_KIB: Final = 2_048
RESERVE_BYTES: Final = 256 * 1024
_TRIES_MOST: Final = 2_000
_PATIENCE_S: Final = 20
_SEGMENT_BYTES: Final = 40_000


class Round:
    """One time that the disk fills up and is free again."""

    def __init__(self, log: FileAuditLog, folder: Path, tell: Callable[[Ack], None]) -> None:
        self._log: Final = log
        self._filler: Final = folder / "filler"
        self._tell: Final = tell
        self.problems: list[str] = []
        self.figures: Counter[str] = Counter()

    async def run(self, name: str, before: int) -> None:
        """Admit calls, fill the disk, admit until it is refused, end all, make room, go on."""
        admitted = [await self._admit(f"{name}-{number}") for number in range(before)]
        fill(self._filler)
        admitted += await self._until_refused(name)
        await self._refuses(name)
        done = await asyncio.gather(
            *(self._log.record_outcome(outcome(recorded)) for recorded in admitted),
            return_exceptions=True,
        )
        for recorded, answer in zip(admitted, done, strict=True):
            if isinstance(answer, BaseException):
                self.problems.append(f"{name}: no room for an outcome: {answer}")
            else:
                op = recorded.intent.entry.op
                self._tell(Ack("outcome", answer.seq, answer.leaf.hex(), op))
                self.figures["outcomes"] += 1
        if not self._log.healthy:
            self.problems.append(f"{name}: a full disk poisoned the log")
        self._filler.unlink()
        await self._until_taken(name)

    async def _admit(self, op: str) -> RecordedIntent:
        recorded = await self._log.record_intent(intent(op, "alice"))
        self._tell(Ack("intent", recorded.seq, recorded.leaf.hex(), op))
        self.figures["admitted"] += 1
        return recorded

    async def _until_refused(self, name: str) -> list[RecordedIntent]:
        admitted = []
        for number in range(_TRIES_MOST):
            try:
                admitted.append(await self._admit(f"{name}-full-{number}"))
            except AuditError as error:
                if error.code != "audit_overloaded":
                    self.problems.append(f"{name}: refused with {error.code}")
                return admitted
        self.problems.append(f"{name}: the disk never filled up")
        return admitted

    async def _refuses(self, name: str) -> None:
        """Whatever is no outcome is refused now, and a change of keys, which needs a file."""
        entry = Entry(type="config.change", op=name, fields={})
        for asked in (self._log.record_intent(intent(name, "alice")), self._log.record(entry)):
            try:
                await asked
                self.problems.append(f"{name}: taken although the disk is full")
            except AuditError:
                self.figures["refused"] += 1

    async def _until_taken(self, name: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while self._log.is_full:  # noqa: ASYNC110 - it changes in another thread
                    await asyncio.sleep(0.01)
            recorded = await self._admit(f"{name}-after")
            await self._log.record_outcome(outcome(recorded))
        except (TimeoutError, AuditError) as error:
            self.problems.append(f"{name}: nothing is taken although there is room: {error!r}")


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    os.write(descriptor, bytes(size))
            except OSError:
                continue
    finally:
        os.close(descriptor)


def fill_again_and_again(rounds: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run the rounds, each on a disk of its own; return the figures."""
    choose = random.Random(seed)  # noqa: S311 - rounds to be had again
    figures: Counter[str] = Counter()
    problems: list[str] = []
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(folder)]
    for number in range(rounds):
        subprocess.run(mount, check=True)
        turn = asyncio.run(_fill_twice(Place(folder), f"r{number}", choose))
        problems += turn.problems
        figures += turn.figures + Counter({"filled": 2})
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - where this machine has it
    return {"figures": figures, "problems": problems}


async def _fill_twice(place: Place, name: str, choose: random.Random) -> Round:
    acks: list[Ack] = []
    log = place.open(
        reserve_bytes=RESERVE_BYTES,
        segment_max_bytes=_SEGMENT_BYTES,
        limits=Limits(audit_wait_ms=5_000),
    )
    tell_opened(log, acks.append)
    await log.start()
    turn = Round(log, place.root, acks.append)
    for again in range(2):
        await turn.run(f"{name}-{again}", choose.randint(0, 120))
    await log.close()
    turn.problems += inspect(place, acks, values_are_kept=True)
    return turn


if __name__ == "__main__":
    print(json.dumps(fill_again_and_again(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
