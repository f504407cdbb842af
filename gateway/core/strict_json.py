"""Strict reading of JSON from strangers (RFC 8259, narrowed).

A parser that keeps the first of two equal keys and one that keeps the last see two different
calls in the same bytes. Policy would judge the one and the tool execute the other, so whatever
two parsers may read differently is refused here: duplicate keys, NaN and infinities, lone
surrogates, integers beyond 2^53 and nesting beyond a limit.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final, NoReturn

import orjson

from gateway.core.errors import RequestError

_SAFE_INTEGER: Final = 2**53
_INTEGER_MAX_CHARS: Final = 17
_ALL_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_UNNESTED: Final = bytes(set(range(256)) - set(b'[]{}"'))

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("an object has the same key twice; send each key once")
    return found


def _integer(text: str) -> int:
    if len(text) > _INTEGER_MAX_CHARS or not -_SAFE_INTEGER < (value := int(text)) < _SAFE_INTEGER:
        raise RequestError("an integer is beyond 2^53; send it as a string")
    return value


def _number(text: str) -> float:
    """Read a number that a double can hold; rounded, it would be two numbers to two readers.

    `500.00000000000000000001` is 500 to a policy with doubles and more to a tool with decimals.
    """
    value = float(text)
    if value in (float("inf"), float("-inf")) or Decimal(text) != Decimal(repr(value)):
        raise RequestError("a number is beyond the range of a double or its digits; send a string")
    return value


def _constant(name: str) -> NoReturn:
    raise RequestError(f"`{name}` is not JSON; send a number or null")


_decode: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_number, parse_constant=_constant
).decode


def _check_depth(raw: bytes, limit: int) -> None:
    """Refuse deep nesting. `raw` is valid JSON: what stands outside of its texts is in balance."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Texts without brackets are two quotes now, and no quote moves to the other side of a bracket.
    marks = raw.translate(_ALL_SQUARE, _UNNESTED).replace(b'""', b"")
    nested = b"".join(marks.split(b'"')[::2])
    depth = 0
    while nested:
        depth += 1
        if depth > limit:
            raise RequestError(f"JSON is nested more than {limit} deep; flatten it")
        nested = nested.replace(b"[]", b"")  # what holds nothing any more: one level


def _unambiguous(raw: bytes) -> Any:  # noqa: ANN401 - JSON has any type
    """Return the value of compact JSON at a third of the price, or None for anything else.

    What a value is written as, byte for byte, was written from that value: a repeated key, a NaN,
    an infinity, a lone surrogate or an integer beyond 2^53 would not come back as it was.
    """
    try:
        value = orjson.loads(raw)
        return value if orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER) == raw else None
    except (ValueError, TypeError):  # orjson's errors of reading, and of writing
        return None


def parse(raw: bytes, *, max_depth: int) -> Any:  # noqa: ANN401 - JSON has any type
    """Return the one value that `raw` can mean.

    Raises `RequestError` for anything that is not JSON or that two parsers may read differently.
    `max_depth` counts containers: `1` has depth 0, `[1]` has depth 1.
    """
    try:
        value = _unambiguous(raw)
        if value is None:
            value = _decode(raw.decode("utf-8"))
            if b"\\u" in raw:
                orjson.loads(raw)  # refuses lone surrogates, which the other lets through
    except RecursionError:
        raise RequestError(f"JSON is nested more than {max_depth} deep; flatten it") from None
    except UnicodeDecodeError:
        raise RequestError("the body is not valid UTF-8; encode it as UTF-8") from None
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None
    if raw.count(b"[") + raw.count(b"{") > max_depth:
        _check_depth(raw, max_depth)
    return value
