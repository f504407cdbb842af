"""Compares an argument with what a system of record kept of it, each in its own spelling. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from typing import Any, Final, Literal

import orjson
from msgspec import Struct

from gateway.core import pointer

ValueType = Literal["string", "integer", "number", "boolean", "decimal_minor"]

_EXACT: Final = Context(prec=200, traps=[Inexact, InvalidOperation, Overflow])
_DIGITS_MAX: Final = 150
_BOOLEANS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Field(Struct, frozen=True):
    """An argument and the column that keeps it.

    `at` is the column's place in `Effect.values`. `decimal_minor`: the argument counts the unit of
    which 10^`digits` make one of the column's (1250 cents, `12.50`). `default` is what the tool
    writes where the argument is not given.
    """

    pointer: str
    at: int
    type: ValueType = "string"
    digits: int = 2
    default: str | None = None


def differences(
    fields: Iterable[Field], values: Sequence[str | None], arguments: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the pointers of the arguments that are not what the columns hold; never a value."""
    return tuple(
        field.pointer
        for field in fields
        if not _is_same(field, values[field.at], pointer.resolve(arguments, field.pointer))
    )


def _is_same(field: Field, column: str | None, argument: object) -> bool:
    """An export in CSV cannot tell an empty text from none, so both are none here."""
    if argument is pointer.MISSING or argument is None:
        argument = field.default or ""
    if not column or argument == "":
        return not column and argument == ""
    if field.type == "string":
        return column == (argument if isinstance(argument, str) else _json(argument))
    if field.type == "boolean":
        return _boolean(argument) is _boolean(column) is not None
    try:
        return _is_same_number(field, _number(column), _number(argument))
    except (DecimalException, ValueError):
        return False


def _is_same_number(field: Field, column: Decimal, argument: Decimal) -> bool:
    if field.type == "decimal_minor":
        column = _EXACT.scaleb(column, field.digits)
    if field.type == "integer" and column != column.to_integral_value():
        return False
    return column == argument


def _number(value: object) -> Decimal:
    """Raise `ValueError` or `DecimalException` for what is no number in plain digits."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _DIGITS_MAX or not text.isascii() or "_" in text:
        raise ValueError("no number in plain digits")
    found = _EXACT.create_decimal(text.strip())
    if not found.is_finite():
        raise ValueError("no finite number")
    return found


def _boolean(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return _BOOLEANS.get(value.lower()) if isinstance(value, str) else None


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
