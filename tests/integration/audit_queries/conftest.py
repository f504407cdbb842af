from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.audit_queries.desk import Desk


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    """A log of 6 rounds in a few segments."""
    found = Desk(tmp_path)
    await found.play()
    return found
