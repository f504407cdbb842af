"""Processes of a test: waiting for them, looking below them, and gateways that die at a step."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.e2e.site import ROOT, Site

STOP_S, PATIENCE_S = 30.0, 15.0


def eventually(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> Any:  # noqa: ANN401 - whatever it returns
    """Return what `condition` returns as soon as that is true; fail when it never is."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


def listens(port: int | None) -> bool:
    """Whether somebody takes connections there: asked at a fraction of what a request costs."""
    assert port is not None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


class Process(Protocol):
    """The part of `subprocess.Popen` that is used here."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        ...


def environment() -> dict[str, str]:
    """Return what a gateway of a site gets: its limits are those of its file."""
    return {name: value for name, value in os.environ.items() if "__LIMITS__" not in name}


class Zygote:
    """Starts gateways that die at a step; see `tests.e2e.killable`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.killable"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str) -> str:
        """Give one command; return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def start(self, site: Site, step: str) -> Forked:
        """Start a gateway that dies at `step`."""
        return Forked(self, int(self.ask("start", str(site.path), step)))

    def stop(self) -> None:
        """End it."""
        self._process.communicate()


class Forked:
    """A gateway that the zygote has started, as `subprocess.Popen` would show it."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote, self.pid, self._code = zygote, pid, ""

    def poll(self) -> int | None:
        """See `Process`."""
        self._code = self._code or self._zygote.ask("poll", str(self.pid))
        return int(self._code) if self._code else None

    def wait(self, timeout: float | None = None) -> int:
        """See `Process`."""
        eventually(lambda: self.poll() is not None, "the gateway ends", timeout or STOP_S)
        return int(self._code)

    def send_signal(self, sig: int) -> None:
        """See `Process`."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """See `Process`."""
        self.send_signal(signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes below this one that are alive."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it has ended
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(name.split()[0]))
    found: list[int] = []
    below = parents.get(pid, [])
    while below:
        found += below
        below = [child for parent in below for child in parents.get(parent, [])]
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
