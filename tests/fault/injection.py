"""Lets system calls of a writer fail, one at a time, by `strace`, and looks at what becomes of it.

    python -m tests.fault.injection SHARE SEED FOLDER

A dry run counts the calls that a short life of a writer makes: opening (with a torn tail to cut),
commits, rotation of segments, tiles, the checkpoint copy, a change of keys, an erasure, closing.
Then each of them fails in each way that its kind can: SHARE of these, chosen by SEED, and one of
each kind at least, are tried.
Writers are forked from this process, warm, and wait until they are traced. Prints JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from gateway.adapters.audit.audit_files import list_segments
from gateway.core.errors import AuditError, ConfigurationError
from tests.fault.story import Ack, Place, Writer, close, inspect, tell_opened

WRITING: Final = ("write", "pwrite64")
SYNCING: Final = ("fdatasync", "fsync")
NAMING: Final = ("rename", "openat", "unlink", "link", "mkdir")
SIZING: Final = ("ftruncate", "truncate", "fallocate")
CALLS: Final = (*WRITING, *SYNCING, *NAMING, *SIZING)
_ERRORS: Final = ("error=EIO", "error=ENOSPC")
FAULTS: Final = {
    **dict.fromkeys(WRITING, (*_ERRORS, "error=EINTR", "retval=0", "signal=KILL")),
    **dict.fromkeys(SYNCING, (*_ERRORS, "error=EINTR", "signal=KILL")),
    **dict.fromkeys(NAMING, (*_ERRORS, "error=EACCES", "signal=KILL")),
    **dict.fromkeys(SIZING, (*_ERRORS, "error=EINTR", "signal=KILL")),
}
_SEGMENT_BYTES: Final = 3_000
_TRACED: Final = re.compile(r"^(\d+) +(\w+)\(")
_SEGMENT_SYNC: Final = re.compile(r"fdatasync\(\d+<[^>]*/audit/\d{20}\.jsonl>")
_MISUSE, _PR_SET_PTRACER, _ANYBODY = 70, 0x59616D61, -1


class Fault(NamedTuple):
    """The `nth` call of this kind, of each thread, fails like this."""

    call: str
    nth: int
    how: str


class End(NamedTuple):
    """How a writer ended: what it was promised, said last, and which calls `strace` made fail."""

    acks: list[Ack]
    said: list[str]
    code: int
    trace: list[str]


def live(place: Place, tell_line: Any) -> None:  # noqa: ANN401 - a function of a line
    """Be a writer for a while. Says `failed` on the first error, and what came of it after that."""

    def tell(ack: Ack) -> None:
        tell_line(json.dumps(ack))

    async def run() -> None:
        log = place.open(segment_max_bytes=_SEGMENT_BYTES)
        tell_opened(log, tell)
        await log.start()
        writer = Writer(log, tell, name=f"w{log.size}", seed=1)
        try:
            for step in (writer.call, writer.event, writer.rotate, writer.call, writer.erase):
                await step()
                await asyncio.gather(writer.call(), writer.call(), writer.call(finish=False))
        except (AuditError, OSError):
            tell_line("failed")
            if not log.healthy:
                await _is_refused(writer.event(), tell_line)
        tell_line("healthy" if log.healthy else "poisoned")
        await log.close()

    try:
        asyncio.run(run())
    except (ConfigurationError, AuditError, OSError) as error:
        tell_line(f"ended {type(error).__name__}: {error}")


async def _is_refused(asking: Any, tell_line: Any) -> None:  # noqa: ANN401 - as above
    try:
        await asking
        tell_line("accepted after a failure")
    except AuditError as error:
        tell_line(f"refused {error.code}")


def fork_writer(place: Place) -> tuple[int, int, int]:
    """Fork a writer that waits; return its id, where it is told to begin, and what it says."""
    hears, begin = os.pipe()
    said, says = os.pipe()
    pid = os.fork()
    if pid:
        os.close(hears)
        os.close(says)
        return pid, begin, said
    code = _MISUSE
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY)
        os.close(begin)
        os.read(hears, 1)
        live(place, lambda line: os.writev(says, [line.encode() + b"\n"]))  # no `write`: see FAULTS
        code = 0
    finally:
        os._exit(code)


def run_writer(place: Place, fault: Fault | None, trace: Path) -> End:
    """Let a writer live under `strace`, and one of its calls fail."""
    pid, begin, said = fork_writer(place)
    words = ["strace", "-f", "-y", "-o", str(trace), "-p", str(pid), "-s", "0"]
    words += ["-e", f"trace={','.join(CALLS)}", "-e", "signal=none"]
    if fault is not None:
        words += ["-e", f"inject={fault.call}:{fault.how}:when={fault.nth}"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        _wait_attached(tracer.stderr)
        os.write(begin, b".")
        text = b"".join(iter(lambda: os.read(said, 65_536), b"")).decode()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        tracer.stderr.read()
    os.close(begin)
    os.close(said)
    lines = text.splitlines()
    acks = [Ack(*json.loads(line)) for line in lines if line.startswith("[")]
    others = [line for line in lines if not line.startswith("[")]
    return End(acks, others, code, trace.read_text(errors="replace").splitlines())


def _wait_attached(said: IO[bytes]) -> None:
    for line in said:
        if b"attached" in line:
            return
        raise RuntimeError(f"strace cannot trace: {line.decode().strip()}")


def build_base(folder: Path) -> tuple[Place, list[Ack]]:
    """Make a log that a writer has left with a torn tail, and what was promised of it."""
    place = Place(folder)
    folder.mkdir()
    acks: list[Ack] = []
    log = place.open(segment_max_bytes=_SEGMENT_BYTES)
    tell_opened(log, acks.append)
    close(log)
    with list_segments(place.audit)[-1].open("ab") as file:
        file.write(b'{"boot":"')
    return place, acks


def list_faults(trace: list[str]) -> Iterator[Fault]:
    """Return every call that was made, with each way in which it can fail."""
    counts: Counter[tuple[str, str]] = Counter()
    most: Counter[str] = Counter()
    for line in trace:
        if found := _TRACED.match(line):
            thread, call = found.groups()
            counts[thread, call] += 1
            most[call] = max(most[call], counts[thread, call])
    for call, count in most.items():
        for nth in range(1, count + 1):
            for how in FAULTS[call]:
                yield Fault(call, nth, how)


def pick(faults: list[Fault], share: float, choose: random.Random) -> list[Fault]:
    """Choose a share of the faults of each kind, and one at least."""
    kinds: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.call, fault.how), []).append(fault)
    return [
        fault
        for kind in kinds.values()
        for fault in choose.sample(kind, max(1, round(share * len(kind))))
    ]


def judge(place: Place, before: list[Ack], end: End, fault: Fault) -> list[str]:
    """Return all that is not as it must be after a writer's end."""
    problems = inspect(place, before + end.acks, values_are_kept=True)
    injected = [line for line in end.trace if "(INJECTED" in line]
    if end.code not in ({0, -signal.SIGKILL} if "KILL" in fault.how else {0}):
        problems.append(f"the writer ended with {end.code}")
    if any("accepted" in line for line in end.said):
        problems.append("a record was accepted after a failure")
    is_error = fault.how in {"error=EIO", "error=ENOSPC"}
    if is_error and any(map(_SEGMENT_SYNC.search, injected)) and end.said[-1] == "healthy":
        problems.append("a failed sync of a segment did not poison the log")
    return problems


def explore(share: float, seed: int, folder: Path) -> dict[str, Any]:
    """Try faults; return the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: Counter[str] = Counter()
    problems: list[str] = []
    base, before = build_base(folder / "base")
    place, trace = Place(folder / "place"), folder / "trace"
    bases: list[tuple[Place | None, list[Ack]]] = [(base, before), (None, [])]
    choose = random.Random(seed)  # noqa: S311 - faults to be had again
    for start, promised in bases:
        _put(start, place)
        dry = run_writer(place, None, trace)
        assert dry.said == ["healthy"], dry.said
        faults = list(list_faults(dry.trace))
        for fault in pick(faults, share, choose):
            _put(start, place)
            end = run_writer(place, fault, trace)
            figures["tried"] += 1
            hit = end.code == -signal.SIGKILL or any("(INJECTED" in line for line in end.trace)
            figures["injected"] += hit
            figures[f"{fault.call}: {fault.how.partition('=')[2]}"] += hit
            figures["poisoned"] += "poisoned" in end.said
            figures["refused after"] += any(line.startswith("refused") for line in end.said)
            found = judge(place, promised, end, fault)
            figures["lost"] += sum(problem.startswith("lost") for problem in found)
            new = "on a new log" if start is None else "on an old log"
            problems += [f"{fault} {new}: {problem}; it said {end.said}" for problem in found]
    return {"figures": figures, "problems": problems}


def _put(start: Place | None, place: Place) -> None:
    shutil.rmtree(place.root, ignore_errors=True)
    if start is None:
        place.root.mkdir()
    else:
        shutil.copytree(start.root, place.root)


if __name__ == "__main__":
    print(json.dumps(explore(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
