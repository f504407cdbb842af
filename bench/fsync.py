"""What the disk itself takes to make a record durable, asked the way the audit log asks."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

RECORD_BYTES: Final = 2048


def measure_fsync(directory: Path, seconds: float) -> list[float]:
    """Append 2 KB and `fdatasync`, again and again, in `directory`; return each time in ms."""
    path = directory / "fsync-probe"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
    path.unlink()  # the log's folder looks as before, whatever happens now
    record, times = os.urandom(RECORD_BYTES), []
    try:
        end = time.perf_counter() + seconds
        now = time.perf_counter()
        while now < end:
            os.write(descriptor, record)
            os.fdatasync(descriptor)
            now, before = time.perf_counter(), now
            times.append((now - before) * 1000)
    finally:
        os.close(descriptor)
    return times


def median(times: list[float]) -> float:
    """Return the median."""
    return statistics.median(times)
