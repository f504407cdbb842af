"""A process that writes records until it is killed, and says which ones it was promised."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from gateway.adapters.audit.audit_keys import load_or_create
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.core.entry import Entry, Opening
from tests.patience import PATIENT


class WallClock:
    """The machine's own time."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


async def main(directory: Path) -> None:
    """Write with 16 callers; print the number of each record once its receipt is here."""
    signer, _ = load_or_create(directory / "key.pem")
    log = FileAuditLog.open(
        directory / "audit",
        origin="gateway.example.com/audit",
        signer=signer,
        kek=bytes(range(32)),
        clock=WallClock(),
        limits=PATIENT,
        deployment={"environment": "test"},
        segment_max_bytes=60_000,
    )
    await log.start()

    async def write() -> None:
        while True:
            opening = Opening("args", os.urandom(100), "alice")
            receipt = await log.record(
                Entry(type="call.intent", op="o", fields={}, openings=(opening,))
            )
            os.write(1, b"%d %b\n" % (receipt.seq, receipt.leaf.hex().encode()))

    await asyncio.gather(*(write() for _ in range(16)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
