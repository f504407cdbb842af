"""When a grant may be used, minute by minute, against the calendar of the standard library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Final

import pytest
from hypothesis import example, given, settings

from gateway.core.tokens.token import Window
from gateway.core.tokens.window import DAYS, find_window_fault, is_open, is_within
from tests.effort import share
from tests.unit.core.drawn_limits import WINDOWS

pytestmark = pytest.mark.req("TOK-03")

FRIDAY: Final = 1_800_000_000
"""2027-01-15 08:00:00, a Friday."""

EDGES: Final = (0, 1, 2, 479, 480, 749, 750, 1319, 1320, 1438, 1439)
"""Minutes of the day around the times that are drawn."""

MOMENTS: Final = tuple(
    day * 86_400 + minute * 60 + second
    for day, minute, second in product(range(-1, 9), EDGES, (0, 59))
)


def at(day: str, time: str) -> int:
    """Return that time in the week of 2027-01-11, a Monday."""
    hours, minutes = map(int, time.split(":"))
    moment = datetime(2027, 1, 11, tzinfo=UTC) + timedelta(
        days=DAYS.index(day), hours=hours, minutes=minutes
    )
    return int(moment.timestamp())


def is_in(window: Window, now_s: int) -> bool:
    """Say the same as `is_open` by the calendar: was it opened today or yesterday, and when."""
    now = datetime.fromtimestamp(now_s, UTC)
    time, days = f"{now:%H:%M}", window.days or DAYS
    today, yesterday = DAYS[now.weekday()], DAYS[now.weekday() - 1]
    if window.start <= window.end:
        inside = today in days and window.start <= time < window.end
    else:
        evening = today in days and time >= window.start
        inside = evening or (yesterday in days and time < window.end)
    early = window.not_before is not None and now_s < window.not_before
    late = window.not_after is not None and now_s > window.not_after
    return inside and not early and not late


def test_the_tests_know_which_day_it_is() -> None:
    assert at("fri", "08:00") == FRIDAY


@settings(max_examples=share(100))
@given(window=WINDOWS)
@example(window=Window(("sun",), "22:00", "08:00"))
def test_a_window_is_open_as_the_calendar_says(window: Window) -> None:
    for now_s in MOMENTS:
        assert is_open(window, now_s) is is_in(window, now_s), now_s


@pytest.mark.parametrize(
    ("window", "day", "time", "inside"),
    [
        (Window(), "wed", "13:00", True),
        (Window(("fri",), "08:00", "18:00"), "fri", "08:00", True),
        (Window(("fri",), "08:00", "18:00"), "fri", "07:59", False),
        (Window(("fri",), "08:00", "18:00"), "fri", "17:59", True),
        (Window(("fri",), "08:00", "18:00"), "fri", "18:00", False),
        (Window(("fri",), "08:00", "18:00"), "thu", "12:00", False),
        (Window(("fri",), "22:00", "06:00"), "fri", "22:00", True),
        (Window(("fri",), "22:00", "06:00"), "sat", "05:59", True),
        (Window(("fri",), "22:00", "06:00"), "sat", "06:00", False),
        (Window(("fri",), "22:00", "06:00"), "fri", "05:00", False),
        (Window(("sun",), "22:00", "06:00"), "mon", "05:59", True),
        (Window(("sun",), "22:00", "24:00"), "sun", "23:59", True),
        (Window(("sun",), "22:00", "24:00"), "mon", "00:00", False),
        (Window(("sun",), "22:00", "00:00"), "sun", "23:59", True),
        (Window(("sun",), "22:00", "00:00"), "mon", "00:00", False),
        (Window(not_before=FRIDAY), "fri", "08:00", True),
        (Window(not_before=FRIDAY + 1), "fri", "08:00", False),
        (Window(not_after=FRIDAY), "fri", "08:00", True),
        (Window(not_after=FRIDAY - 1), "fri", "08:00", False),
    ],
)
def test_a_window_is_open_within_its_bounds(
    window: Window, day: str, time: str, *, inside: bool
) -> None:
    assert is_open(window, at(day, time)) is inside


@settings(max_examples=share(300))
@given(parent=WINDOWS, child=WINDOWS)
@example(parent=Window(start="08:00", end="22:00"), child=Window(start="08:00", end="22:00"))
def test_a_window_within_another_is_never_open_alone(parent: Window, child: Window) -> None:
    alone = [s for s in MOMENTS if is_open(child, s) and not is_open(parent, s)]
    if is_within(parent, child):
        assert alone == []
    elif child.not_before is child.not_after is None:
        # Decided exactly: there is such a moment, if need be before or after the parent's dates.
        assert alone != [] or not parent.not_before is parent.not_after is None


@pytest.mark.parametrize(
    ("parent", "child", "within"),
    [
        (Window(), Window(), True),
        (Window(("fri", "sat")), Window(("fri",), "22:00", "06:00"), True),
        (Window(("fri",)), Window(("fri",), "22:00", "06:00"), False),
        (Window(("mon", "sun")), Window(("sun",), "22:00", "06:00"), True),
        (Window((), "22:00", "06:00"), Window(("sat",), "00:00", "06:00"), True),
        (Window(("sat",), "22:00", "06:00"), Window(("sat",), "00:00", "06:00"), False),
        (Window(DAYS), Window(), True),
        (Window(), Window(not_before=5, not_after=6), True),
        (Window(not_before=5), Window(not_before=5), True),
        (Window(not_before=5), Window(not_before=4), False),
        (Window(not_before=5), Window(), False),
        (Window(not_after=5), Window(not_after=5), True),
        (Window(not_after=5), Window(not_after=6), False),
        (Window(not_after=5), Window(), False),
        (Window(not_after=5), Window(not_before=7, not_after=6), True),
        (Window(("fri",)), Window((), "08:00", "08:00"), True),
        (Window(("fri",)), Window(("nay",)), True),
        (Window(not_before=5), Window((), "08:00", "08:00"), True),
        (Window(("fri",)), Window(not_before=FRIDAY, not_after=FRIDAY), False),
    ],
)
def test_whether_a_window_lies_in_another_is_decided(
    parent: Window, child: Window, *, within: bool
) -> None:
    assert is_within(parent, child) is within


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (Window(("fri", "Mon")), "`Mon` is no day"),
        (Window(start="8:00"), "`8:00` is no time to start"),
        (Window(start="24:00", end="12:00"), "`24:00` is no time to start"),
        (Window(start="\u0660\u0668:00"), "is no time to start"),
        (Window(end="18:60"), "`18:60` is no time to end"),
        (Window(end="18:00\n"), "is no time to end"),
        (Window(end="24:01"), "`24:01` is no time to end"),
        (Window(start="08:00", end="08:00"), "never open"),
        (Window(not_before=2, not_after=1), "never open"),
    ],
)
def test_a_window_without_a_clear_meaning_is_told_and_never_open(window: Window, why: str) -> None:
    assert why in str(find_window_fault(window))
    assert not any(is_open(window, now_s) for now_s in (*MOMENTS, FRIDAY))


@pytest.mark.parametrize(
    "window",
    [
        Window(),
        Window(DAYS, "00:00", "23:59", 1, 1),
        Window(start="23:59", end="00:00"),
        Window(not_before=1),
        Window(not_after=1),
    ],
)
def test_a_window_with_a_clear_meaning_is_fine(window: Window) -> None:
    assert find_window_fault(window) is None
