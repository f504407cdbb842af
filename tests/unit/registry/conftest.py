from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.registry.desk import Desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.start()
    yield desk
    await desk.client.aclose()
