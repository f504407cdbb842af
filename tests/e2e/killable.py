"""Serves gateways that kill themselves with SIGKILL at a named step of a call.

    python -m tests.e2e.killable

Each line on stdin is a command, each line on stdout its answer: `start CONFIG STEP` → process id;
`poll PID` → exit code, or nothing while it runs. Gateways are forked from this process, which has
imported everything, has put the first one's policies through the gate and runs nothing, so a start
takes little time.

Steps are those of `gateway.dispatch.Step`, and two of the call itself: `recorded` (the intent is
durable, nothing is sent) and `answered` (the tool has answered, no outcome is recorded). `never` is
`countersign serve` as it is.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from connectors import upstreams
from connectors.mcp_http import McpHttpTransport
from gateway import cli
from gateway.adapters.policy.policy_bundle import gate_folder
from gateway.config.settings import load_config
from gateway.core.calls.call import RecordedIntent, Relay, UpstreamResult
from gateway.wiring import gateway

LATE = (
    "anyio._backends._asyncio",
    "gateway.cli.serve",
    "httpcore",
    "pydantic.v1",
    "uvicorn.lifespan.off",
)
"""What a gateway imports as it starts, and not before."""


def die() -> None:
    """Leave no chance to tidy up."""
    os.kill(os.getpid(), signal.SIGKILL)


class Fatal(McpHttpTransport):
    """Reaches the tool, or not, and takes the gateway with it."""

    step = ""

    async def call(self, intent: RecordedIntent, relay: Relay | None) -> UpstreamResult:
        """Die before or after the call."""
        if self.step == "recorded":
            die()
        result = await super().call(intent, relay)
        if self.step == "answered":
            die()
        return result


def serve(path: str, step: str) -> None:
    """Serve until it is time to die, or until told to end."""
    if step == "never":
        sys.argv = ["countersign", "serve", "--config", path]
        cli.main()

    def reached(now: str) -> None:
        if now == step:
            die()

    Fatal.step = step
    setattr(upstreams, "McpHttpTransport", Fatal)  # noqa: B010 - no seam is for this
    gateway.serve(load_config(Path(path), {}), reached=reached)


def prepare(path: str) -> None:
    """Do once what each gateway would do: what passed the gate here has passed there."""
    gate_folder(Path(path).with_name("policies"))
    for name in LATE:
        import_module(name)
    gc.freeze()  # no gateway goes through what is here when it collects


def start(path: str, step: str) -> int:
    """Fork a gateway that logs where a real one would; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(Path(path).with_name("stderr.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
    os.dup2(sys.stdin.fileno(), sys.stdout.fileno())
    serve(path, step)
    raise SystemExit(0)


def poll(pid: int) -> str:
    """Return the exit code of a gateway that has ended, as `subprocess` tells it."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return str(os.waitstatus_to_exitcode(status)) if found else ""


def main() -> None:
    """Take commands until stdin ends."""
    for number, line in enumerate(sys.stdin):
        verb, *words = line.split()
        if number == 0:  # `start`: there is nothing to poll yet
            prepare(words[0])
        answer = str(start(*words)) if verb == "start" else poll(int(words[0]))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
