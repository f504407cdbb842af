"""Strict JSON: one meaning or a refusal."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RequestError
from gateway.core.strict_json import parse

DEPTH = 64
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(JSON, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ":\t")]), st.booleans())
def test_what_is_accepted_means_the_same_to_another_parser(
    value: Any,  # noqa: ANN401 - any JSON
    separators: tuple[str, str],
    ascii_only: bool,  # noqa: FBT001 - drawn
) -> None:
    raw = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
    assert parse(raw, max_depth=DEPTH) == value == orjson.loads(raw)


@given(st.binary(max_size=40) | TEXT.map(str.encode))
def test_whatever_comes_is_read_as_another_parser_reads_it_or_refused(raw: bytes) -> None:
    try:
        value = parse(raw, max_depth=DEPTH)
    except RequestError:
        return
    assert value == orjson.loads(raw)


@pytest.mark.req("GW-06")
@given(JSON, TEXT, JSON, st.lists(st.sampled_from(["list", "dict"]), max_size=6))
def test_a_duplicate_key_is_refused_at_any_depth(
    first: Any,  # noqa: ANN401 - any JSON
    key: str,
    second: Any,  # noqa: ANN401 - any JSON
    wrapping: list[str],
) -> None:
    name, one, two = (json.dumps(part, separators=(",", ":")) for part in (key, first, second))
    raw = f'{{{name}:{one},"{key and "other"}x":0,{name}:{two}}}'
    for kind in wrapping:
        raw = f"[{raw}]" if kind == "list" else f'{{"a":{raw}}}'
    with pytest.raises(RequestError, match="same key twice"):
        parse(raw.encode(), max_depth=DEPTH)


def test_a_duplicate_key_is_refused_in_whichever_spelling() -> None:
    with pytest.raises(RequestError, match="same key twice"):
        parse(rb'{"amount":1,"\u0061mount":1000}', max_depth=DEPTH)


@given(JSON)
def test_the_depth_limit_is_exact(value: Any) -> None:  # noqa: ANN401 - any JSON
    raw, depth = json.dumps(value).encode(), depth_of(value)
    assert parse(raw, max_depth=depth) == value
    if depth:
        with pytest.raises(RequestError, match=f"more than {depth - 1} deep"):
            parse(raw, max_depth=depth - 1)


BRACKETS = st.recursive(
    st.text('"\\[]{}\nx', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[]{}', max_size=4), inner)
    ),
    max_leaves=8,
)


@given(BRACKETS)
def test_brackets_and_quotes_in_texts_are_no_nesting(value: Any) -> None:  # noqa: ANN401 - any JSON
    raw, depth = json.dumps(value).encode(), depth_of(value)
    assert parse(raw, max_depth=depth) == value
    if depth:
        with pytest.raises(RequestError, match=f"more than {depth - 1} deep"):
            parse(raw, max_depth=depth - 1)


@pytest.mark.req("GW-06", "GW-07")
@pytest.mark.parametrize("depth", [65, 2_000, 200_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_and_does_not_exhaust_the_stack(
    depth: int, left: bytes, right: bytes
) -> None:
    with pytest.raises(RequestError, match="deep"):
        parse(left * depth + b"1" + right * depth, max_depth=DEPTH)


@pytest.mark.req("GW-06", "GW-07")
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"NaN", "`NaN`"),
        (b'{"a":Infinity}', "`Infinity`"),
        (b'{"a":-Infinity}', "`-Infinity`"),
        (b"1e999", "range of a double"),
        (b"-1e999", "range of a double"),
        (b"500.00000000000000000001", "its digits"),
        (b"9007199254740993.0", "its digits"),
        (b"9007199254740992", "2^53"),
        (b"-9007199254740992", "2^53"),
        (b"1" * 5_000, "2^53"),
        (b'"\\ud800"', "valid JSON"),
        (b'{"\\udc00":1}', "valid JSON"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "valid JSON"),
        (b"", "valid JSON"),
        (b"{} {}", "valid JSON"),
        (b"{'a':1}", "valid JSON"),
        (b"[1,]", "valid JSON"),
        (b"01", "valid JSON"),
        (b"// a\n1", "valid JSON"),
        (b'"\x01"', "valid JSON"),
    ],
)
def test_what_parsers_read_differently_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(raw, max_depth=DEPTH)
    assert why in str(caught.value)
    assert caught.value.code == "body_invalid"


def test_numbers_up_to_the_limits_are_read() -> None:
    raw = b"[9007199254740991,-9007199254740991,-0,1e308,0.1,5e-324]"
    value = parse(raw, max_depth=1)
    assert value == [2**53 - 1, -(2**53) + 1, 0, 1e308, 0.1, 5e-324]
    assert all(math.isfinite(number) for number in value)


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"', max_depth=0) == "\U0001f600"
