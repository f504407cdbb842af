"""Starting, measuring and ending the processes of a run. What is started here ends here."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

ROOT: Final = Path(__file__).resolve().parent.parent
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_START_S: Final = 90.0
_STOP_S: Final = 10.0


class MeasurementError(Exception):
    """The bench could not measure. Says what to look at."""


class Usage(Struct, frozen=True):
    """CPU time used so far, in seconds, and resident memory in bytes, over several processes."""

    cpu_s: float
    rss_bytes: int


class Processes:
    """The children of one run; leaving it ends them all, by their ids."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._started):
            self.stop(process)

    def start(
        self, name: str, command: Sequence[str], *, program: str = sys.executable
    ) -> subprocess.Popen[bytes]:
        """Start a Python program of ours; what it says on stderr goes to a file of that name.

        `program`: another Python than this one.
        """
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [program, *command],
                cwd=ROOT,
                env=build_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes to the bench, which then ends them in order
            )
        self._started.append(process)
        return process

    def start_listening(
        self, name: str, command: Sequence[str], *, program: str = sys.executable
    ) -> tuple[int, int]:
        """Start a program that prints its port; return its process id and that port."""
        process = self.start(name, command, program=program)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline().strip() if ready else b""
        if not line.isdigit():
            raise MeasurementError(f"`{name}` did not start: {self.tail(name)}")
        return process.pid, int(line)

    def tail(self, name: str) -> str:
        """Return the end of what a program said on stderr."""
        return (self._logs / f"{name}.log").read_text(errors="replace")[-2000:].strip()

    @staticmethod
    def stop(process: subprocess.Popen[bytes]) -> None:
        """Ask a process to end; kill it, and what it started, if it does not."""
        if process.poll() is None:
            family = find_family(process.pid)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                for pid in family:
                    _kill(pid)
                process.wait(_STOP_S)
        if process.stdout is not None:
            process.stdout.close()


def build_environment() -> dict[str, str]:
    """Return this process's environment without anybody's own settings of a gateway."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COUNTERSIGN_")}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def find_family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in listing.read_text().split()]
            except OSError:
                continue
    return found


def read_usage(pids: Iterable[int]) -> Usage:
    """Return what these processes have used."""
    cpu_s, rss_bytes = 0.0, 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s += (int(fields[11]) + int(fields[12])) * _TICK_S  # utime and stime, proc(5)
        rss_bytes += _resident(pid)
    return Usage(cpu_s, rss_bytes)


def read_family(pid: int) -> dict[int, Usage]:
    """Return what a process and each of its descendants have used, but of those that just end."""
    found = {}
    for member in find_family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[member] = read_usage([member])
    return found


def _resident(pid: int) -> int:
    """Return the resident bytes of a process; of pages that several share, its share (proc(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def wait_until(ready: Iterable[bool], what: str, process: subprocess.Popen[bytes]) -> None:
    """Ask again and again until `ready` yields true. Raises `MeasurementError` after a while."""
    end = time.monotonic() + _START_S
    for is_ready in ready:
        if is_ready:
            return
        if process.poll() is not None:
            raise MeasurementError(f"{what} ended with exit code {process.returncode}")
        if time.monotonic() > end:
            raise MeasurementError(f"{what} was not ready after {_START_S:.0f} s")
        time.sleep(0.05)
