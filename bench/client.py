"""The load generator where `wrk` is missing: keep-alive connections straight on sockets.

`python -m bench.client <port> <requests.json> <connections> <seconds>`
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import uvloop

_SUCCESS = (b"HTTP/1.1 2", b"HTTP/1.1 3")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Send one prepared request; return the whole answer. It must have a `content-length`."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    raise ValueError("the answer has no length")


async def drive(
    port: int, requests: Sequence[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Load a port from several connections at once; return the figures."""
    latencies: list[float] = []
    refused = 0
    todo = cycle(requests)
    begin = time.perf_counter()

    async def caller() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        now = time.perf_counter()
        while now - begin < seconds:
            answer = await ask(reader, writer, next(todo))
            refused += not answer.startswith(_SUCCESS)
            now, before = time.perf_counter(), now
            latencies.append((now - before) * 1000)
        writer.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    elapsed = time.perf_counter() - begin
    latencies.sort()
    return {
        "requests": len(latencies),
        "duration_s": elapsed,
        "p50_ms": percentile(latencies, 50),
        "p99_ms": percentile(latencies, 99),
        "max_ms": latencies[-1],
        "errors": 0,
        "refused": refused,
    }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the ordered values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def main(port: str, prepared: str, connections: str, seconds: str) -> None:
    """Run as a process of its own."""
    requests = [text.encode() for text in json.loads(Path(prepared).read_text())]
    figures = uvloop.run(drive(int(port), requests, int(connections), float(seconds)))
    print("FIGURES " + json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:5])
