"""Somebody who takes decision logs as OPA sends them: standard library, knows nothing of ours."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Collector:
    """A server on loopback that keeps what it takes. `refusals`: statuses it answers with first."""

    def __init__(self) -> None:
        self.refusals: list[int] = []
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.posts = 0
        self.came = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.posts += 1
                status = collector.refusals.pop(0) if collector.refusals else 200
                if status == 200:
                    if self.headers.get("content-encoding") == "gzip":
                        body = gzip.decompress(body)
                    collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                    collector.events += json.loads(body)
                self.send_response(status)
                if status in {301, 307}:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()
                if status == 200:
                    collector.came.set()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.url = f"{self.root}/logs"


@contextmanager
def run_collector() -> Iterator[Collector]:
    """Run a collector for as long as the block lasts."""
    found = Collector()
    serving = threading.Thread(target=found.server.serve_forever, args=(0.02,))
    serving.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        serving.join()
        found.server.server_close()
