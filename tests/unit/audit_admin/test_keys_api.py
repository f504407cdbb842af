"""The signing keys, at the door and by the clock (AUD-07)."""

from __future__ import annotations

import pytest

from gateway.wiring.audit import rotate_if_due
from tests.fixed import NOW_S, CountingIds, FixedClock
from tests.unit.audit_admin.conftest import Desk, Keys

pytestmark = pytest.mark.req("AUD-07")
ROUTE = "/v1/keys"


async def test_an_admin_lets_a_new_key_sign_and_the_record_says_who(desk: Desk) -> None:
    desk.clock.now_s += 60
    answer = await desk.post("ada", ROUTE)
    assert answer.json() == {
        "epoch": 1,
        "since_us": (NOW_S + 60) * 1_000_000,
        "max_age_h": 24,
        "keys": [{"epoch": 0, "key": "first-key"}, {"epoch": 1, "key": "key-1"}],
    }
    (entry,) = desk.keys.entries
    assert (entry.type, entry.fields) == ("key.rotate", {"why": "command"})
    assert [(one.path, one.value, one.subject) for one in entry.openings] == [("by", b"ada", "ada")]


@pytest.mark.parametrize(
    ("who", "status"), [("ada", 200), ("aud", 200), ("otto", 200), ("ann", 403)]
)
async def test_the_keys_are_listed_for_those_who_look_after_them(
    desk: Desk, who: str, status: int
) -> None:
    assert (await desk.get(who, ROUTE)).status_code == status


@pytest.mark.parametrize("who", ["aud", "otto", "ann"])
async def test_only_admins_rotate(desk: Desk, who: str) -> None:
    assert (await desk.post(who, ROUTE)).status_code == 403
    assert not desk.keys.entries


async def test_a_key_that_is_old_enough_is_replaced_by_the_clock() -> None:
    keys, clock, ids = Keys(), FixedClock(), CountingIds()
    clock.now_s += 24 * 3600 - 1
    await rotate_if_due(keys, clock, ids, 24)
    assert not keys.entries
    clock.now_s += 1
    await rotate_if_due(keys, clock, ids, 24)
    await rotate_if_due(keys, clock, ids, 24)
    (entry,) = keys.entries
    assert (entry.fields, entry.openings) == ({"why": "schedule"}, ())
    clock.now_s += 24 * 3600
    await rotate_if_due(keys, clock, ids, 24)
    assert len(keys.entries) == 2


async def test_a_schedule_of_zero_never_rotates() -> None:
    keys, clock = Keys(), FixedClock()
    clock.now_s += 10**9
    await rotate_if_due(keys, clock, CountingIds(), 0)
    assert not keys.entries
