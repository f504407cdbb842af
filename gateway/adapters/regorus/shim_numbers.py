"""Functions of numbers as OPA 1.22 answers them (v1/topdown/arithmetic.go, casts.go, bits.go).

Numbers are whole and below 2^53, or fractions that a double holds: such as the gateway lets
through. On others they raise, which denies.
INVARIANT: what these return, OPA returns for the same arguments.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from gateway.adapters.regorus.shim_natives import RefusedError, ask_native

SAFE: Final = 1 << 53
_BITS_MAX: Final = 53
_BASES: Final = {2: "b", 8: "o", 10: "d", 16: "x"}
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_DIGITS_MAX: Final = 15
"""So many digits a double keeps of any decimal number."""

_UNIT: Final = re.compile(r"[0-9]{1,12}[A-Za-z]{0,3}", re.ASCII)


def number(value: object) -> int | float:
    """Return a number on which engines agree. Raises for all else."""
    if type(value) not in (int, float):
        raise TypeError("a number is needed")
    if not -SAFE < value < SAFE:  # type: ignore[operator]
        raise RefusedError("a number is beyond 2^53")
    return value  # type: ignore[return-value]


def absolute(value: object) -> int | float:
    """Return a number without its sign."""
    return abs(number(value))


def ceil(value: object) -> int:
    """Return the next whole number. That of -0.5 is 1 to OPA 1.22."""
    given = number(value)
    return 1 if -1 < given < 0 else math.ceil(given)


def floor(value: object) -> int:
    """Return the whole number before. That of -0.5 is 0 to OPA 1.22."""
    given = number(value)
    return 0 if -1 < given < 0 else math.floor(given)


def nearest(value: object) -> int:
    """Return the nearest whole number, of two the one further from 0."""
    given = number(value)
    whole = int(given)
    if abs(given - whole) >= 0.5:  # noqa: PLR2004
        whole += 1 if given > 0 else -1
    return whole


def format_int(value: object, base: object) -> str:
    """Return a number in digits of a base, without its fraction."""
    if type(base) is not int or base not in _BASES:
        raise RefusedError("a base is 2, 8, 10 or 16")
    return format(int(number(value)), _BASES[base])


def _whole(value: object) -> int:
    given = number(value)
    if given != int(given):
        raise RefusedError("bits are those of whole numbers")
    return int(given)


def bits_and(one: object, other: object) -> int:
    """Return the bits that both numbers have."""
    return _whole(one) & _whole(other)


def bits_or(one: object, other: object) -> int:
    """Return the bits that one of two numbers has."""
    return _whole(one) | _whole(other)


def bits_xor(one: object, other: object) -> int:
    """Return the bits that only one of two numbers has."""
    return _whole(one) ^ _whole(other)


def bits_negate(value: object) -> int:
    """Return a number with every bit turned."""
    return ~_whole(value)


def shift_right(value: object, places: object) -> int:
    """Return a whole number moved down by places of two."""
    by = _whole(places)
    if by < 0:
        raise RefusedError("it moves by 0 places or more")
    return _whole(value) >> by


def shift_left(value: object, places: object) -> int:
    """Return a whole number moved by places of two."""
    given, by = _whole(value), _whole(places)
    if not 0 <= by <= _BITS_MAX:
        raise RefusedError("it moves by 0 to 53 places")
    return int(number(given << by))


def to_number(value: object) -> object:
    """Return the number that a text writes as JSON does; null and booleans count as 0 and 1."""
    if value is None or isinstance(value, bool):
        return int(value or 0)
    if not isinstance(value, str):
        return number(value)
    if _NUMBER.fullmatch(value) is None:
        raise RefusedError("a text is no number")
    if value.lstrip("-").isdigit():
        return number(int(value))
    mantissa = re.split("[eE]", value)[0].lstrip("-")
    if len(mantissa.replace(".", "").strip("0")) > _DIGITS_MAX:
        raise RefusedError("a number has more digits than both engines keep")
    return number(float(value))


def units_parse(text: object) -> object:
    """Return the number that a text with a unit writes."""
    return _ask_unit("units.parse", text)


def units_parse_bytes(text: object) -> object:
    """Return the bytes that a text with a unit writes."""
    return _ask_unit("units.parse_bytes", text)


def _ask_unit(name: str, text: object) -> object:
    if not isinstance(text, str) or _UNIT.fullmatch(text) is None:
        raise RefusedError("a size is up to twelve digits and a unit, without a fraction")
    return number(ask_native(name, text))


SHIMS: Final[dict[str, tuple[int, Any]]] = {
    "abs": (1, absolute),
    "bits.and": (2, bits_and),
    "bits.lsh": (2, shift_left),
    "bits.negate": (1, bits_negate),
    "bits.or": (2, bits_or),
    "bits.rsh": (2, shift_right),
    "bits.xor": (2, bits_xor),
    "ceil": (1, ceil),
    "floor": (1, floor),
    "format_int": (2, format_int),
    "round": (1, nearest),
    "to_number": (1, to_number),
    "units.parse": (1, units_parse),
    "units.parse_bytes": (1, units_parse_bytes),
}
