"""The demo's processes: each in a process group of its own, and none left when it is over."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

CONFLICT, VERIFICATION_FAILED = 6, 8
"""Exit codes of `countersign` that the demo expects."""

STOP_S = 8.0
"""How long a process may take to end by itself after SIGTERM."""

_POLL_S = 0.05
_LOG_LINES = 12


class StartError(Exception):
    """A program could not be started, or ended too early. The text says what it said last."""


@dataclass(frozen=True)
class Finished:
    """A command that ran to its end."""

    code: int
    out: str
    err: str

    @property
    def last_error(self) -> str:
        """The last line on stderr, which says what went wrong."""
        return (self.err.strip().splitlines() or [""])[-1]


class Processes:
    """What the demo has started. Leaving the block ends all of it, whatever happened inside."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], *, cwd: Path) -> None:
        """Start a program that stays. What it says goes to `logs/<name>.log`."""
        with (self._logs / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        """Return everything that a program has said."""
        return (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def require_alive(self, name: str) -> None:
        """Raise `StartError`, with what it said last, when a program has ended."""
        code = self._running[name].poll()
        if code is not None:
            last = "\n".join(self.said(name).splitlines()[-_LOG_LINES:])
            raise StartError(f"{name} ended with exit code {code}; it said:\n{last}")

    def stop(self) -> None:
        """End everything, the last started first: SIGTERM to the group, then SIGKILL."""
        for process in reversed(self._running.values()):
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            _signal(process, signal.SIGKILL)  # also whoever is left of its group
            process.wait()
        self._running.clear()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def command(name: str) -> str:
    """Return the path of a program that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


async def run(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Finished:
    """Run a command to its end; `env` comes on top of ours. It ends with us, too."""
    if shutil.which(arguments[0]) is None:
        raise StartError(f"`{arguments[0]}` is not installed; install it, or run `make demo`")
    process = _start(arguments, env or {}, cwd)
    try:
        out, err = await asyncio.to_thread(process.communicate)
    finally:
        _signal(process, signal.SIGKILL)  # the thread returns then, too
    return Finished(process.returncode, out.decode(), err.decode())


def _start(
    arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    """Start a command in one step: asyncio takes some, and hangs where its loop ends in between."""
    return subprocess.Popen(
        arguments,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


async def countersign(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run a `countersign` command, as a person would."""
    return await run(command("countersign"), *arguments, env=env)


def find_left(folder: Path, patience_s: float = 2.0) -> list[str]:
    """Return the processes that still work in `folder` or name it in their command line.

    Asked until none is left or `patience_s` is over: what is killed takes a moment to be gone.
    """
    until = time.monotonic() + patience_s
    while (left := _look(folder)) and time.monotonic() < until:
        time.sleep(_POLL_S)
    return left


def _look(folder: Path) -> list[str]:
    place, found = str(folder.resolve()), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it ended meanwhile, or is somebody else's
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = str((entry / "cwd").readlink())
            if line and (cwd == place or cwd.startswith(place + "/") or _is_server(line, place)):
                found.append(f"{entry.name} {line[:100]}")
    return found


def _is_server(line: str, place: str) -> bool:
    """Whether a command line names the folder as one of ours does, not as an editor may."""
    ours = ("examples.acme.server", "countersign.yaml", "mcp-server-git")
    return place in line and any(name in line for name in ours)
