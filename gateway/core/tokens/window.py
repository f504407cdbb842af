"""When a grant may be used: hours of the week in UTC, and a first and a last second.

A week is 10,080 minutes. The minutes at which a window is open are the bits of one integer, which
decides both whether a call is in time and whether one window lies in another. UTC has no summer
time, so every week is the same week.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.core.tokens.token import Window

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DAY: Final = 1_440
_WEEK: Final = 7 * _DAY
_EPOCH: Final = 3 * _DAY
"""The minute of the week at which time began: 1970-01-01 was a Thursday."""

_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


def is_open(window: Window, now_s: int) -> bool:
    """Whether `now_s`, in seconds since the epoch, lies in `window`."""
    if window.not_before is not None and now_s < window.not_before:
        return False
    if window.not_after is not None and now_s > window.not_after:
        return False
    return bool(_open_minutes(window.days, window.start, window.end) >> _minute(now_s) & 1)


def is_within(parent: Window, child: Window) -> bool:
    """Whether `parent` is open whenever `child` is. Hours are compared as if dates did not bind."""
    minutes = _open_minutes(child.days, child.start, child.end)
    begin, end = child.not_before, child.not_after
    if not minutes or (begin is not None and end is not None and begin > end):
        return True  # never open
    first, last = parent.not_before, parent.not_after
    return (
        not minutes & ~_open_minutes(parent.days, parent.start, parent.end)
        and (first is None or (begin is not None and begin >= first))
        and (last is None or (end is not None and end <= last))
    )


def find_window_fault(window: Window) -> str | None:
    """Say why `window` has no clear meaning, or is never open, or return None."""
    for day in window.days:
        if day not in DAYS:
            return f"`{day[:16]}` is no day; use {', '.join(DAYS)}"
    if _clock(window.start) is None:
        return f"`{window.start[:16]}` is no time to start; write `HH:MM` from 00:00 to 23:59, UTC"
    if _clock(window.end, last=True) is None:
        return f"`{window.end[:16]}` is no time to end; write `HH:MM` from 00:00 to 24:00, UTC"
    if window.start == window.end:
        return "a window that starts and ends at one time is never open; for all day leave both out"
    begin, end = window.not_before, window.not_after
    if begin is not None and end is not None and begin > end:
        return "`not_before` is later than `not_after`; the window is never open"
    return None


@lru_cache(maxsize=1024)
def _open_minutes(days: tuple[str, ...], start: str, end: str) -> int:
    """Return the minutes of the week as bits, Monday 00:00 the lowest; 0 if they cannot be told."""
    begin, close = _clock(start), _clock(end, last=True)
    if begin is None or close is None or not set(days) <= {*DAYS}:
        return 0
    long = close - begin if close >= begin else close - begin + _DAY
    minutes = 0
    for number, day in enumerate(DAYS):
        if day in (days or DAYS):
            minutes |= ((1 << long) - 1) << (number * _DAY + begin)
    whole_week = (1 << _WEEK) - 1
    return minutes & whole_week | minutes >> _WEEK  # Sunday night goes on in Monday's morning


def _clock(text: str, *, last: bool = False) -> int | None:
    """`09:30` → 570; None for what is no time of day. `24:00` is one only at the end."""
    if last and text == "24:00":
        return _DAY
    found = _TIME.fullmatch(text)
    return None if found is None else int(found[1]) * 60 + int(found[2])


def _minute(now_s: int) -> int:
    return (now_s // 60 + _EPOCH) % _WEEK
