"""Load from `wrk`, an independent C client; or, where it is missing, from a Python process.

Both send the same prepared requests round robin over keep-alive connections, as fast as answers
come (closed loop), and report the same figures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench.processes import ROOT, MeasurementError

REFUSED_MAX: Final = 0.005
"""How many of the calls may be refused. A machine that others use too makes policy miss its
deadline now and then, which is a deny; the table tells how often.
"""
_SLACK_S: Final = 30
_DONE: Final = """
local at = 0
request = function()
  at = at % #requests + 1
  return requests[at]
end
done = function(summary, latency, _)
  io.write(string.format(
    '\\nFIGURES {"requests":%d,"duration_s":%f,"p50_ms":%f,"p99_ms":%f,"max_ms":%f,'
      .. '"errors":%d,"refused":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.errors.status))
end
"""


class Figures(Struct, frozen=True):
    """What one load saw. `errors`: broken connections, timeouts; `refused`: statuses above 399."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    refused: int = 0

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.requests / self.duration_s


class LoadGenerator:
    """Drives one target. `name` says with what, and stands in the table."""

    def __init__(self, folder: Path, *, wrk: str | None = None) -> None:
        self._folder = folder
        self._wrk = shutil.which("wrk") if wrk is None else wrk
        self.name: Final = "wrk" if self._wrk else "python asyncio (wrk is not installed)"

    def run(
        self, port: int, requests: Sequence[bytes], *, connections: int, seconds: float
    ) -> Figures:
        """Load `port` on loopback. Raises `MeasurementError` when answers failed.

        That is: a connection broke, or more than a few answers were no success.
        """
        if self._wrk:
            command = self._wrk_command(port, requests, connections, seconds)
        else:
            prepared = self._folder / "requests.json"
            prepared.write_text(json.dumps([request.decode() for request in requests]))
            command = [sys.executable, "-m", "bench.client", str(port), str(prepared)]
            command += [str(connections), str(seconds)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, timeout=seconds + _SLACK_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise MeasurementError(f"the load generator failed: {error}") from None
        return self._read(done.stdout)

    def _wrk_command(
        self, port: int, requests: Sequence[bytes], connections: int, seconds: float
    ) -> list[str]:
        script = self._folder / "load.lua"
        script.write_text(build_script(requests))
        return [
            str(self._wrk),
            "--threads=1",
            f"--connections={connections}",
            f"--duration={max(1, round(seconds))}s",
            "--timeout=10s",
            f"--script={script}",
            f"http://127.0.0.1:{port}/",
        ]

    @staticmethod
    def _read(output: bytes) -> Figures:
        _, _, text = output.rpartition(b"FIGURES ")
        figures = msgspec.json.decode(text, type=Figures)
        few = figures.requests * REFUSED_MAX
        if figures.errors or not figures.requests or figures.refused > few:
            raise MeasurementError(f"under load answers failed: {figures}")
        return figures


def build_script(requests: Sequence[bytes]) -> str:
    """Return the Lua script with which `wrk` sends these requests, byte for byte."""
    literals = ",\n".join(
        '"' + "".join(f"\\{byte:03d}" for byte in request) + '"' for request in requests
    )
    return f"local requests = {{\n{literals}\n}}\n{_DONE}"
