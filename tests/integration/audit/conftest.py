from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.file_audit import FileAuditLog
from tests.integration.audit.parts import DEPLOYMENT, KEK, ORIGIN, FaultyFiles, Open, StillClock
from tests.patience import PATIENT


@pytest.fixture(scope="session")
def signer() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
async def open_log(
    directory: Path, signer: Ed25519PrivateKey, clock: StillClock, files: FaultyFiles
) -> AsyncIterator[Open]:
    """Open the log in `directory`; what is still open at the end gets closed."""
    opened: list[FileAuditLog] = []

    def open_it(**changes: object) -> FileAuditLog:
        settings: dict[str, Any] = {
            "origin": ORIGIN,
            "signer": signer,
            "kek": KEK,
            "clock": clock,
            "limits": PATIENT,
            "deployment": DEPLOYMENT,
            "files": files,
            **changes,
        }
        log = FileAuditLog.open(settings.pop("dir", directory), **settings)
        opened.append(log)
        return log

    yield open_it
    files.flowing.set()
    for log in opened:
        await log.close()
