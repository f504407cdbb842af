"""How a row of an export is read: where the operation id and the time stand, what is not ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from typing import Final, Literal

from msgspec import Struct

TimeFormat = Literal["epoch_s", "epoch_ms", "epoch_us", "iso"]
_US: Final = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MAX_CHARS: Final = 64
_TIME_MAX_US: Final = 2**53

Row = Mapping[str, str | None]
"""One row of an export: texts by column, None for SQL's and JSON's null."""


class TimeColumn(Struct, frozen=True):
    """Where a row's time stands. `naive_utc`: an `iso` time without a zone is in UTC."""

    column: str
    format: TimeFormat = "iso"
    naive_utc: bool = False


class Ignore(Struct, frozen=True):
    """Rows that are none of the gateway's: those with one of `values` in `column`."""

    column: str
    values: frozenset[str]
    why: str


class Layout(Struct, frozen=True, kw_only=True):
    """Which columns of an export mean what. `columns` are those that are compared."""

    operation_id: str
    time: TimeColumn | None = None
    row_id: str | None = None
    columns: tuple[str, ...] = ()
    ignore: tuple[Ignore, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return every column that a row must have."""
        found = [self.operation_id, *self.columns, *(rule.column for rule in self.ignore)]
        found += [self.time.column] if self.time is not None else []
        found += [self.row_id] if self.row_id is not None else []
        return tuple(dict.fromkeys(found))


class Effect(Struct, frozen=True, gc=False):
    """One row. `row` counts from 1; `ignored` is the place of the rule that it falls under."""

    row: int
    id: str | None
    op: str
    time_us: int | None
    values: tuple[str | None, ...]
    ignored: int | None = None


def build_effect(layout: Layout, number: int, row: Row) -> Effect:
    """Return what row `number` says. A time that cannot be read is None, never an error."""
    return Effect(
        number,
        None if layout.row_id is None else row[layout.row_id],
        (row[layout.operation_id] or "").strip(),
        None if layout.time is None else read_time(layout.time, row[layout.time.column]),
        tuple(row[name] for name in layout.columns),
        next(
            (at for at, rule in enumerate(layout.ignore) if row[rule.column] in rule.values), None
        ),
    )


def read_time(where: TimeColumn, text: str | None) -> int | None:
    """Return a time in µs since 1970-01-01 UTC, or None for what is none."""
    if not text or len(text) > _TIME_MAX_CHARS:
        return None
    try:
        if where.format == "iso":
            return parse_iso(text, naive_utc=where.naive_utc)
        found = int(Decimal(text) * _US[where.format])
    except (ValueError, ArithmeticError, DecimalException):
        return None
    return found if abs(found) < _TIME_MAX_US else None


def parse_iso(text: str, *, naive_utc: bool) -> int:
    """Return an ISO 8601 time in µs since 1970. Raises `ValueError` for none, or no zone."""
    found = datetime.fromisoformat(text.strip())
    if found.tzinfo is None:
        if not naive_utc:
            raise ValueError(f"`{text}` has no time zone; end it with `Z`")
        found = found.replace(tzinfo=UTC)
    return (found - _EPOCH) // timedelta(microseconds=1)
