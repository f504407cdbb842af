from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.regorus import regorus_engines
from gateway.adapters.regorus.regorus_engines import (
    ENGINES_MAX_BYTES,
    Engines,
    drop_command,
    estimate_bytes,
)
from tests.effort import share

pytestmark = pytest.mark.req("POL-13")
THIRD = ENGINES_MAX_BYTES // 3


def test_the_least_recently_used_go_first() -> None:
    engines = Engines()
    assert [engines.add(number, THIRD) for number in (1, 2, 3)] == [[], [], []]
    assert engines.use(1)
    assert engines.add(4, THIRD) == [2]
    assert not engines.use(2)
    assert engines.add(5, 2 * THIRD) == [3, 1]


def test_one_that_is_too_large_is_alone() -> None:
    engines = Engines()
    engines.add(1, THIRD)
    assert engines.add(2, 2 * ENGINES_MAX_BYTES) == [1]
    assert engines.add(3, 1) == [2]


def test_a_copy_is_one_of_its_own() -> None:
    engines = Engines()
    engines.add(1, THIRD)
    copied = engines.copy()
    copied.remove(1)
    copied.remove(1)
    assert engines.use(1)
    assert not copied.use(1)


def test_more_source_takes_more() -> None:
    assert estimate_bytes(0) > 0
    assert estimate_bytes(2_000) - estimate_bytes(1_000) >= 75_000


def test_a_drop_is_a_command() -> None:
    assert json.loads(drop_command(7)) == {"do": "drop", "index": 7}


@settings(max_examples=share(60))
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), max_size=60))
def test_what_is_held_and_what_went_add_up(steps: list[tuple[int, int]]) -> None:
    engines = Engines()
    held: dict[int, int] = {}
    for number, size in steps:
        size *= regorus_engines.ENGINES_MAX_BYTES // 50  # noqa: PLW2901 - in fiftieths
        if not engines.use(number):
            for gone in engines.add(number, size):
                del held[gone]
            held[number] = size
        assert all(engines.copy().use(each) for each in held)
        assert sum(held.values()) <= ENGINES_MAX_BYTES or len(held) == 1
