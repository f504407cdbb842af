"""Serves a gateway that kills itself with SIGKILL at a named step of a dispatch.

    python -m tests.e2e.killable CONFIG STEP

Steps are those of `gateway.dispatch.Step`, and two of the call itself: `recorded` (the intent is
durable, nothing is sent) and `answered` (the tool has answered, no outcome is recorded).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from connectors.mcp_http import McpHttpTransport
from gateway import wiring
from gateway.config import load_config
from gateway.core.call import RecordedIntent, Relay, UpstreamResult


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


def main(path: str, step: str) -> None:
    """Serve until it is time to die."""

    def reached(now: str) -> None:
        if now == step:
            die()

    if step in {"recorded", "answered"}:
        Fatal.step = step
        wiring.McpHttpTransport = Fatal  # type: ignore[misc]  # the only fault no seam is for
    wiring.serve(load_config(Path(path), {}), reached=reached)


if __name__ == "__main__":
    main(*sys.argv[1:])
