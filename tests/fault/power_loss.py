"""Cuts the power at every point of a writer's life, and of the recovery after it, and looks.

A writer's life is recorded; then for each prefix of what it did to its files, each legal state of
the disk (tests.fault.disk) is put into a folder in memory, opened, and compared with what had been
promised by then. Lives go on: after a kill, where the disk still owes what was not synced, and
after a power failure; those are recorded and cut the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct, field

from tests.fault.disk import Disk, State
from tests.fault.recorder import Event, Recorder, write_state
from tests.fault.story import Ack, Place, SetClock, Tell, Writer, inspect, tell_opened

_SEGMENT_BYTES: Final = 3_500
_RESERVE_BYTES: Final = 700
_LIVES_MOST: Final = 3
_STEP_NS: Final = 2 * 10**9


class Life(Struct):
    """What a process did to the disk, what it promised, and what was promised before it.

    `owing`: after how many events a segment holds what is not synced.
    """

    disk: Disk
    events: list[Event]
    promised: list[Ack]
    number: int
    clock_ns: int
    owing: list[int] = field(default_factory=list)


class Budget(Struct, frozen=True):
    """How much to look at.

    `rounds` of the story in a first life, up to `forms` of one file and up to `states` in all at
    each point of it. `later` lives begin where others end, with up to `later_states` at each point.
    """

    rounds: int
    forms: int
    later: int
    later_states: int
    states: int = 10**6


class Result(Struct):
    """What was looked at and found."""

    figures: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seen: dict[bytes, int] = field(default_factory=dict)


class _Folder:
    """A folder in which states are made to stand, and the clock of the log in it."""

    def __init__(self, folder: Path) -> None:
        self.place: Final = Place(folder)
        self.clock: Final = SetClock()
        folder.mkdir(exist_ok=True)

    def put(self, state: State) -> None:
        write_state(self.place.root, state)

    def record(self, disk: Disk, act: Callable[[Tell], None]) -> list[Event]:
        """Let something happen on a disk; return what it did to it."""
        self.put(disk.seen())
        for name, *others in disk.links():
            for other in others:
                (self.place.root / other).unlink()
                (self.place.root / other).hardlink_to(self.place.root / name)
        with Recorder(self.place.root, disk) as recorder:
            act(recorder.tell)
            unseen = recorder.unseen()
            assert not unseen, f"something changes files and is not seen: {unseen}"
            return recorder.events.copy()


async def tell_story(folder: _Folder, tell: Tell, name: str, rounds: int, seed: int) -> None:
    """Open a log, write the story in an order that repeats, and close it."""
    log = folder.place.open(
        clock=folder.clock, segment_max_bytes=_SEGMENT_BYTES, reserve_bytes=_RESERVE_BYTES
    )
    tell_opened(log, tell)
    await log.start()
    writer = Writer(log, tell, name=name, seed=seed)
    for number in range(rounds):
        await asyncio.gather(writer.call(), writer.call(finish=False), writer.event())
        if number % 2 == 0:
            folder.clock.ns += _STEP_NS  # what is lazy comes with the next batch
        await (writer.rotate if (number + seed) % 2 else writer.erase)()
    await log.close()


class PowerLoss:
    """One exploration; see the module."""

    def __init__(self, folder: Path, seed: int, budget: Budget, *, most_problems: int = 10) -> None:
        self._random: Final = Random(seed)  # noqa: S311 - states to be had again
        self._budget: Final = budget
        self._most_problems: Final = most_problems
        self._writing: Final = _Folder(folder / "writing")
        self._checking: Final = _Folder(folder / "checking")
        self.result: Final = Result()

    def run(self) -> Result:
        """Explore a first life, and so many later ones, each from a point of one before it."""
        first = self._live(Disk(), [], 1, self._budget.rounds, self._writing.clock.ns)
        self._cut(first)
        lives = [first]
        for _ in range(self._budget.later):
            if self._is_done():
                break
            life = self._go_on(self._random.choice(lives))
            self._cut(life)
            if life.number < _LIVES_MOST:
                lives.append(life)
        return self.result

    def _is_done(self) -> bool:
        return len(self.result.problems) >= self._most_problems

    def _live(
        self, disk: Disk, promised: list[Ack], number: int, rounds: int, clock_ns: int
    ) -> Life:
        self._writing.clock.ns = clock_ns + _STEP_NS

        def act(tell: Tell) -> None:
            name, seed = f"l{number}", self._random.randrange(2**32)
            asyncio.run(tell_story(self._writing, tell, name, rounds, seed))

        events = self._writing.record(disk, act)
        self.result.figures["lives"] += 1
        return Life(disk, events, promised, number, self._writing.clock.ns)

    def _cut(self, life: Life) -> None:
        """Cut the power after each event of a life."""
        disk, promised = life.disk.copy(), life.promised.copy()
        for done, event in enumerate(life.events, 1):
            if isinstance(event, Ack):
                promised.append(event)
                continue
            event(disk)
            if any(map(is_segment, disk.owing())):
                life.owing.append(done)
            states = self._states(disk)
            most = self._budget.states if life.number == 1 else self._budget.later_states
            nothing_and_all, rest = states[:2], states[2:]
            for state in nothing_and_all + self._random.sample(rest, min(len(rest), most)):
                self._check(state, promised, life)
                if self._is_done():
                    return

    def _states(self, disk: Disk) -> list[State]:
        return list(disk.crash_states(self._random, self._budget.forms, is_minor))

    def _go_on(self, life: Life) -> Life:
        """Begin the next life where one was killed, or where its power failed."""
        disk, promised = life.disk.copy(), life.promised.copy()
        if life.owing and self._random.random() < 0.5:
            end = self._random.choice(life.owing)
        else:
            end = self._random.randrange(len(life.events))
        for event in life.events[:end]:
            if isinstance(event, Ack):
                promised.append(event)
            else:
                event(disk)
        if self._random.random() < 0.3:
            disk = Disk.of(self._random.choice(self._states(disk)))
        return self._live(disk, promised, life.number + 1, 1, life.clock_ns)

    def _check(self, state: State, promised: Sequence[Ack], life: Life) -> None:
        digest = hash_state(state)
        if self.result.seen.get(digest) == len(promised):
            return
        self.result.seen[digest] = len(promised)
        self.result.figures["checks"] += 1
        self._checking.put(state)
        self._checking.clock.ns = life.clock_ns + _STEP_NS
        for problem in inspect(self._checking.place, promised, self._checking.clock):
            self.result.problems.append(f"life {life.number}: {problem}")
            self.result.figures["lost"] += problem.startswith("lost")


def is_segment(path: str) -> bool:
    """Whether records stand in it."""
    return path.endswith(".jsonl") and not is_minor(path)


def is_minor(path: str) -> bool:
    """Whether the log can be opened without it, whatever it holds."""
    return path.rpartition("/")[2] in {"reserve", "LOCK"} or "/openings/" in path


def hash_state(state: State) -> bytes:
    """Return what tells states from each other."""
    digest = hashlib.blake2b(digest_size=16)
    for path, content in sorted(state.items()):
        digest.update(b"%b\0%d\0" % (path.encode(), -1 if content is None else len(content)))
        digest.update(content or b"")
    return digest.digest()
