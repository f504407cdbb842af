"""What the tests of the log share: a clock, a disk that fails, calls and records."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import orjson

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.core.calls.call import Intent, Outcome, RecordedIntent
from gateway.core.entry import Entry, Opening

ORIGIN = "gateway.example.com/audit"
KEK = bytes(range(32))
DEPLOYMENT = {"environment": "test"}


class StillClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns


class FaultyFiles(Files):
    """A disk that can hang and fail, and does not wait for the platter."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self.fail_sync = False
        self.fail_write_after: int | None = None
        self.full_after: int | None = None
        """With this much more written, the disk is full, but for what its reserve gives back."""
        self.reserve: Path | None = None
        self.syncs = 0

    def sync(self, descriptor: int) -> None:  # noqa: ARG002 - as in `Files`
        self.syncs += 1
        assert self.flowing.wait(20)
        if self.fail_sync:
            raise OSError(errno.EIO, "input/output error")

    def sync_directory(self, path: Path) -> None:
        """Nothing here outlives the machine."""

    def allocate(self, path: Path, size: int) -> None:
        if self.full_after is not None:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.reserve = path
        super().allocate(path, size)

    def write(self, descriptor: int, data: bytes) -> None:
        if self.full_after is not None and self.reserve is not None and self.reserve.exists():
            super().write(descriptor, data[: self.full_after])
            raise OSError(errno.ENOSPC, "no space left on device")
        if self.fail_write_after is not None:
            super().write(descriptor, data[: self.fail_write_after])
            raise OSError(errno.ENOSPC, "no space left on device")
        super().write(descriptor, data)


class Open(Protocol):
    def __call__(self, **changes: object) -> FileAuditLog: ...


def note_entry(number: int = 0, **changes: object) -> Entry:
    """Some record."""
    settings: dict[str, Any] = {
        "type": "config.change",
        "op": f"op-{number}",
        "fields": {"n": number},
        **changes,
    }
    return Entry(**settings)


def intent(number: int = 0, **fields: object) -> Intent:
    """A call about to be recorded. The log looks at nothing but its entry."""
    body = {
        "actor": {"agent": "bot", "run": "run-1", "root": "root-1"},
        "tool": {"id": "billing.refund"},
        **fields,
    }
    openings = (Opening("args", b'{"amount":250}', "alice"),)
    nothing = cast("Any", None)
    return Intent(
        resolved=nothing,
        decision=nothing,
        entry=Entry(type="call.intent", op=f"op-{number}", fields=body, openings=openings),
        idempotency_key="k",
        deadline_ms=1000,
        find_stop=lambda: None,
    )


def outcome(recorded: RecordedIntent) -> Outcome:
    entry = Entry(
        type="call.outcome",
        op=recorded.intent.entry.op,
        fields={"intent": recorded.seq, "status": "ok", "delivery": "sent"},
    )
    return Outcome(intent=recorded, status="ok", delivery="sent", entry=entry)


def erasure(key_id: str) -> Entry:
    """The record that the subject of a key is erased."""
    fields = {"subject": key_id, "basis": "request", "openings": 1}
    return Entry(type="redact", op="op-e", fields=fields, event_id=f"erasure-{key_id}")


def lines_of(directory: Path) -> list[dict[str, Any]]:
    """Every line of a log, records and checkpoints."""
    return [
        orjson.loads(line)
        for segment in list_segments(directory)
        for line in segment.read_bytes().splitlines()
    ]


def records_of(directory: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(directory) if "v" in line]


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads go on until something holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it holds in another thread
            await asyncio.sleep(0.001)


def every_file(directory: Path) -> dict[Path, bytes]:
    """Every file below a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
