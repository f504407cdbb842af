from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.reconcile.reconcile_rows import TimeColumn, read_time
from gateway.core.reconcile.reconcile_values import Field, ValueType, differences


def is_same(kind: ValueType, column: str | None, arguments: dict[str, Any], **more: Any) -> bool:  # noqa: ANN401 - of `Field`
    return differences([Field("/a", 0, kind, **more)], [column], arguments) == ()


@pytest.mark.parametrize(
    ("kind", "column", "argument"),
    [
        ("string", "ann", "ann"),
        ("string", "", ""),
        ("string", None, None),
        ("string", "250", 250),
        ("string", "[1,2]", [1, 2]),
        ("integer", "250", 250),
        ("integer", "250.00", 250),
        ("integer", "250", "250"),
        ("integer", "-3", -3.0),
        ("number", "12.50", 12.5),
        ("number", "1e3", 1000),
        ("number", "0.1", "0.10"),
        ("decimal_minor", "12.50", 1250),
        ("decimal_minor", "-0.01", -1),
        ("boolean", "t", True),
        ("boolean", "TRUE", True),
        ("boolean", "0", False),
        ("boolean", "false", "f"),
    ],
)
def test_the_same_value_in_two_spellings_is_the_same(
    kind: ValueType, column: str | None, argument: object
) -> None:
    assert is_same(kind, column, {"a": argument})


@pytest.mark.parametrize(
    ("kind", "column", "argument"),
    [
        ("string", "ann ", "ann"),
        ("string", "Ann", "ann"),
        ("string", None, "ann"),
        ("string", "ann", None),
        ("string", "0", ""),
        ("integer", "251", 250),
        ("integer", "250.5", 250.5),
        ("integer", "many", 250),
        ("integer", "1", True),
        ("integer", "1_000", 1000),
        ("integer", "٣", 3),
        ("number", "NaN", "NaN"),
        ("number", "Infinity", 1),
        ("number", "1" * 151, 1),
        ("number", "1", [1]),
        ("decimal_minor", "12.5", 12.5),
        ("decimal_minor", "12.505", 1250),
        ("decimal_minor", "1e999999999999999999", 1),
        ("boolean", "yes", "yes"),
        ("boolean", "1", 1),
        ("boolean", "t", False),
    ],
)
def test_another_value_differs(kind: ValueType, column: str | None, argument: object) -> None:
    assert not is_same(kind, column, {"a": argument})


def test_an_argument_that_was_not_given_is_an_empty_column_or_the_default() -> None:
    assert is_same("string", None, {})
    assert not is_same("string", "EUR", {})
    assert is_same("string", "EUR", {}, default="EUR")
    assert is_same("integer", "1", {"a": None}, default="1")
    assert not is_same("integer", "2", {}, default="1")


def test_minor_units_of_other_currencies_have_other_digits() -> None:
    assert is_same("decimal_minor", "1250", {"a": 1250}, digits=0)
    assert is_same("decimal_minor", "1.250", {"a": 1250}, digits=3)


def test_only_the_pointers_that_differ_are_named() -> None:
    fields = [Field("/a", 0), Field("/b/c", 1), Field("/d/0", 1)]
    assert differences(fields, ["1", "2"], {"a": "1", "b": {"c": "3"}, "d": ["2"]}) == ("/b/c",)


@given(st.integers(-(2**53) + 1, 2**53 - 1), st.integers(0, 6))
def test_every_amount_is_itself_and_no_other(cents: int, digits: int) -> None:
    sign, number = "-" if cents < 0 else "", f"{abs(cents):0{digits + 1}d}"
    whole = number[: len(number) - digits] if digits else number
    text = f"{sign}{whole}.{number[len(number) - digits :]}" if digits else f"{sign}{whole}"
    assert is_same("decimal_minor", text, {"a": cents}, digits=digits)
    assert not is_same("decimal_minor", text, {"a": cents + 1}, digits=digits)


@pytest.mark.parametrize(
    ("where", "text", "us"),
    [
        (TimeColumn("t"), "2023-11-14T22:13:20Z", 1_700_000_000_000_000),
        (TimeColumn("t"), "2023-11-14 22:13:20.5+00", 1_700_000_000_500_000),
        (TimeColumn("t"), "2023-11-14T23:13:20+01:00", 1_700_000_000_000_000),
        (TimeColumn("t", naive_utc=True), "2023-11-14 22:13:20", 1_700_000_000_000_000),
        (TimeColumn("t"), "2023-11-14 22:13:20", None),
        (TimeColumn("t"), "yesterday", None),
        (TimeColumn("t"), "", None),
        (TimeColumn("t"), None, None),
        (TimeColumn("t", "epoch_s"), "1700000000.25", 1_700_000_000_250_000),
        (TimeColumn("t", "epoch_ms"), "1700000000250", 1_700_000_000_250_000),
        (TimeColumn("t", "epoch_us"), "1700000000250000", 1_700_000_000_250_000),
        (TimeColumn("t", "epoch_us"), "1e400", None),
        (TimeColumn("t", "epoch_s"), "soon", None),
        (TimeColumn("t", "epoch_s"), "NaN", None),
        (TimeColumn("t", "epoch_s"), "9" * 65, None),
    ],
)
def test_a_time_is_read_or_is_none(where: TimeColumn, text: str | None, us: int | None) -> None:
    assert read_time(where, text) == us
