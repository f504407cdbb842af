"""A real OPA server on loopback, for tests that hold us against it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

OPA = os.environ.get("COUNTERSIGN_OPA") or shutil.which("opa")
NO_OPA = "no opa: set COUNTERSIGN_OPA or install it on PATH"
_UP_S = 20.0


class OpaServer:
    """One server, which can be stopped, and started again at the same place."""

    def __init__(self, *arguments: str, tls: bool = False) -> None:
        self.port = free_port()
        self.scheme = "https" if tls else "http"
        self.url = f"{'opas' if tls else 'opa'}://127.0.0.1:{self.port}"
        self.address = f"127.0.0.1:{self.port}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        assert OPA is not None
        command = [OPA, "run", "--server", "--addr", self.address]
        quiet = ["--log-level", "error", "--disable-telemetry"]
        self._process = subprocess.Popen(
            [*command, *quiet, *self._arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait:
            self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait(self) -> None:
        until = time.monotonic() + _UP_S
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, "opa ended"
                time.sleep(0.02)
        raise AssertionError("opa did not come up")


@contextmanager
def run_opa(*arguments: str, tls: bool = False) -> Iterator[OpaServer]:
    """Run a real OPA for as long as the block lasts."""
    server = OpaServer(*arguments, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
