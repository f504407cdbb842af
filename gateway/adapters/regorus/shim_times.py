"""`time.*` as OPA 1.22 answers them (v1/topdown/time.go), for the forms on which engines agree.

INVARIANT: what these return, OPA returns for the same arguments. Else they raise, which denies:
named time zones before 2000 and after 2037, other layouts, what Go reads beyond RFC 3339.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final

from gateway.adapters.policy.policy_patterns import READ_LAYOUTS, WRITTEN_LAYOUTS
from gateway.adapters.regorus.shim_natives import RefusedError, ask_native

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
_INT64: Final = 1 << 63
_EPOCH: Final = date(1970, 1, 1).toordinal()
_UTC: Final = ("", "UTC")
_ZONES_FROM: Final = 946_684_800 * _SECOND
_ZONES_UNTIL: Final = 2_145_916_800 * _SECOND
"""2000-01-01 to 2038-01-01: each engine has its own table of the other years."""

_ODD_ZONES: Final = re.compile(r"(?i)local|antarctica/troll|etc/.*")
_ZONE: Final = re.compile(r"[A-Z][A-Za-z_]*(?:/[A-Z][A-Za-z_-]*){1,2}", re.ASCII)
_DATE: Final = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_CLOCK: Final = r"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_RFC3339: Final = re.compile(
    rf"{_DATE}T{_CLOCK}(?:\.([0-9]{{1,9}}))?(?:Z|([+-])([0-9]{{2}}):([0-9]{{2}}))", re.ASCII
)
_FORMS: Final = (
    *(re.compile(form, re.ASCII) for form in (_DATE, rf"{_DATE} {_CLOCK}", rf"{_DATE}T{_CLOCK}")),
    *(_RFC3339, _RFC3339),
)
_READ: Final = dict(zip(READ_LAYOUTS, _FORMS, strict=True))
_HOURS: Final = 24
_MINUTES: Final = 60
_MONTHS: Final = 12


def _instant(value: object) -> tuple[int, str]:
    """Return (ns, zone) of a number, or of `[number]` or `[number, zone]`."""
    parts = value if isinstance(value, list) else [value]
    if len(parts) not in (1, 2) or type(parts[0]) is not int or not -_INT64 <= parts[0] < _INT64:
        raise RefusedError("a time is whole nanoseconds, or those and a zone")
    zone = parts[1] if len(parts) > 1 else ""
    if not isinstance(zone, str):
        raise TypeError("a zone is a text")
    return parts[0], zone


def _zoned(name: str, value: object) -> Any:  # noqa: ANN401 - whatever it answers
    """Ask the engine's own function about a time in a zone by its name in IANA's tables."""
    given = value[:2] if isinstance(value, list) else value
    ns, zone = _instant(given)
    known = _ZONE.fullmatch(zone) is not None and _ODD_ZONES.fullmatch(zone) is None
    if zone not in _UTC and not (known and _ZONES_FROM <= ns < _ZONES_UNTIL):
        raise RefusedError("engines differ on that zone, or on it in that year")
    return ask_native(name, value)


def clock(value: object) -> list[int]:
    """Return [hour, minute, second]."""
    ns, zone = _instant(value)
    if zone in _UTC:
        seconds = ns // _SECOND % 86_400
        return [seconds // 3_600, seconds // 60 % 60, seconds % 60]
    found: list[int] = _zoned("time.clock", value)
    return found


def day(value: object) -> list[int]:
    """Return [year, month, day]."""
    ns, zone = _instant(value)
    if zone in _UTC:
        found = date.fromordinal(_EPOCH + ns // _DAY)
        return [found.year, found.month, found.day]
    asked: list[int] = _zoned("time.date", value)
    return asked


def weekday(value: object) -> str:
    """Return the day of the week in English."""
    found: str = _zoned("time.weekday", value)
    return found


def diff(one: object, other: object) -> list[int]:
    """Return [years, months, days, hours, minutes, seconds] between two times, both in UTC."""
    if _instant(one)[1] not in _UTC or _instant(other)[1] not in _UTC:
        raise RefusedError("times are compared in UTC")
    found: list[int] = ask_native("time.diff", one, other)
    return found


def add_date(value: object, years: object, months: object, days: object) -> int:
    """Return a time in UTC moved by years, months and days; 31 April is 1 May."""
    ns, zone = _instant(value)
    moved = [each for each in (years, months, days) if type(each) is int]
    if zone not in _UTC or len(moved) != 3 or max(map(abs, moved)) > 1_000_000:  # noqa: PLR2004
        raise RefusedError("a time in UTC is moved by whole years, months and days")
    begun = date.fromordinal(_EPOCH + ns // _DAY)
    month = begun.month - 1 + moved[1]
    year = begun.year + moved[0] + month // _MONTHS
    if not 1 <= year <= 9_999:  # noqa: PLR2004 - what a calendar here holds
        raise RefusedError("a time is beyond 64 bits")
    first = date(year, month % _MONTHS + 1, 1).toordinal()
    return _in_range((first + begun.day - 1 + moved[2] - _EPOCH) * _DAY + ns % _DAY)


def _in_range(ns: int) -> int:
    if not -_INT64 <= ns < _INT64:
        raise RefusedError("a time is beyond 64 bits")
    return ns


def format_time(value: object) -> str:
    """Return a time as RFC 3339, or in one of a few layouts."""
    layout = value[2] if isinstance(value, list) and len(value) == 3 else "RFC3339"  # noqa: PLR2004
    if layout not in WRITTEN_LAYOUTS:
        raise RefusedError(f"a layout is one of {', '.join(WRITTEN_LAYOUTS)}")
    found: str = _zoned("time.format", value)
    return found


def parse_rfc3339_ns(text: object) -> int:
    """Return the time that RFC 3339 writes: capital `T` and `Z`, seconds to 59."""
    return _parse(_RFC3339, text)


def parse_ns(layout: object, text: object) -> int:
    """Return the time that a text writes in one of a few layouts."""
    if not isinstance(layout, str) or layout not in _READ:
        raise RefusedError(f"a layout is one of {', '.join(_READ)}")
    return _parse(_READ[layout], text)


def _parse(form: re.Pattern[str], text: object) -> int:
    found = form.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise RefusedError("a text is no time in that layout")
    given = [*found.groups(), *[None] * 10][:10]
    year, month, day_, hour, minute, second = (int(each or 0) for each in given[:6])
    east = int(given[8] or 0), int(given[9] or 0)
    if east[0] >= _HOURS or east[1] >= _MINUTES:
        raise RefusedError("a zone is a day or more away")
    ahead = timedelta(hours=east[0], minutes=east[1]) * (-1 if given[7] == "-" else 1)
    try:
        when = datetime(year, month, day_, hour, minute, second, tzinfo=timezone(ahead))
    except ValueError:
        raise RefusedError("a text is no time in that layout") from None
    since = when - datetime(1970, 1, 1, tzinfo=UTC)
    nanos = int((given[6] or "").ljust(9, "0") or 0)
    return _in_range((since.days * 86_400 + since.seconds) * _SECOND + nanos)


SHIMS: Final[dict[str, tuple[int, Any]]] = {
    "time.add_date": (4, add_date),
    "time.clock": (1, clock),
    "time.date": (1, day),
    "time.diff": (2, diff),
    "time.format": (1, format_time),
    "time.parse_ns": (2, parse_ns),
    "time.parse_rfc3339_ns": (1, parse_rfc3339_ns),
    "time.weekday": (1, weekday),
}
