"""Kills a writer with SIGKILL, opens its log, and again.

    python -m tests.fault.kill_loop CYCLES SEED FOLDER

Writers are forked from this process, which has imported everything and runs no thread. Half of
them are killed after so many bytes of acknowledgements, half end themselves before, after or in the
middle of one of their operations on files. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tests.fault.story import Ack, Place, Writer, inspect, tell_opened
from tests.fault.tap import Op, Tap

CYCLES_PER_LOG: Final = 12
_OPERATIONS_MOST: Final = 220
_BYTES_MOST: Final = 8_000
_BYTES_LIMIT: Final = 10 * _BYTES_MOST
"""A writer that was to end itself is ended here at the latest: an operation can fail to come."""
_CHANGING: Final = frozenset(
    {"create", "empty", "write", "sync", "resize", "allocate", "unlink", "rename", "link", "mkdir"}
)


class Plan(Struct, frozen=True):
    """How a writer ends: at its n-th operation, if `at` is not 0, else by its parent's hand."""

    seed: int
    at: int
    when: str
    after_bytes: int


class Fatal(Tap):
    """Ends the process at its n-th change of a file."""

    def __init__(self, root: Path, plan: Plan) -> None:
        super().__init__(root)
        self._left = plan.at
        self._when = plan.when
        self._counting: Final = threading.Lock()

    def operation(self, op: Op, do: Callable[[], Any]) -> Any:  # noqa: ANN401 - as `os`
        if op.name not in _CHANGING:
            return do()
        with self._counting:
            self._left -= 1
            is_last = self._left == 0
        if is_last and self._when == "before":
            _die()
        if is_last and self._when == "amid" and op.name == "write":
            with open(op.fd, "ab", buffering=0, closefd=False) as file:
                file.write(op.data[: len(op.data) // 2])
            _die()
        result = do()
        if is_last:
            _die()
        return result


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write(place: Place, plan: Plan, pipe: int, name: str) -> None:
    """Be the writer. Does not return."""

    def tell(ack: Ack) -> None:
        os.write(pipe, json.dumps(ack).encode() + b"\n")

    async def run() -> None:
        log = place.open()
        await log.start()
        tell_opened(log, tell)
        await Writer(log, tell, name=name, seed=plan.seed).write_on()

    if plan.at:
        Fatal(place.root, plan).__enter__()
    try:
        asyncio.run(run())
    finally:
        os._exit(3)


def run_once(place: Place, plan: Plan, name: str) -> tuple[list[Ack], int]:
    """Let a writer run until its end; return what it was promised, and how it ended."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        write(place, plan, theirs, name)
    os.close(theirs)
    said = bytearray()
    limit = _BYTES_LIMIT if plan.at else plan.after_bytes
    while part := os.read(ours, 4096):
        said += part
        if len(said) >= limit:
            os.kill(pid, signal.SIGKILL)
    os.close(ours)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [Ack(*json.loads(line)) for line in bytes(said).split(b"\n")[:-1]], code


def loop(cycles: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run so many cycles; return the figures."""
    choose = random.Random(seed)  # noqa: S311 - cycles to be had again
    figures: Counter[str] = Counter()
    problems: list[str] = []
    acks: list[Ack] = []
    place = Place(folder / "0")
    for cycle in range(cycles):
        if cycle % CYCLES_PER_LOG == 0:
            shutil.rmtree(place.root, ignore_errors=True)
            place, acks = Place(folder / str(cycle)), []
            place.root.mkdir(parents=True)
        plan = Plan(
            seed=choose.randrange(2**32),
            at=choose.randint(1, _OPERATIONS_MOST) if cycle % 2 else 0,
            when=choose.choice(("before", "after", "amid")),
            after_bytes=choose.randrange(_BYTES_MOST),
        )
        torn = len(list(place.audit.glob("*.torn*")))
        told, code = run_once(place, plan, f"c{cycle}")
        acks += told
        figures["kills"] += code == -signal.SIGKILL
        figures["kills at an operation"] += plan.at > 0 and code == -signal.SIGKILL
        figures["acknowledged"] += sum(bool(ack.leaf) for ack in told)
        found = inspect(place, acks, values_are_kept=True)
        if code != -signal.SIGKILL:
            found.append(f"the writer ended with {code}")
        figures["lost"] += sum(problem.startswith("lost") for problem in found)
        figures["cut tails"] += len(list(place.audit.glob("*.torn*"))) - torn
        problems += [f"cycle {cycle}, {plan}: {problem}" for problem in found]
    shutil.rmtree(place.root, ignore_errors=True)
    return {"figures": figures, "problems": problems}


if __name__ == "__main__":
    print(json.dumps(loop(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
