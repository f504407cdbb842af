"""A gateway with one launched run."""

from __future__ import annotations

import pytest

from tests.unit.path.world import World


@pytest.fixture
async def world() -> World:
    world = World()
    await world.launch()
    return world
