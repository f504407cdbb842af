"""A line is judged alike with orjson and without."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import share
from tests.unit.verify.logbuilder import canonical

pytestmark = pytest.mark.req("AUD-03")

NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


def is_in_profile(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, dict):
        return all(name.isascii() and is_in_profile(item) for name, item in value.items())
    if isinstance(value, list):
        return all(is_in_profile(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int):
        return not isinstance(value, float)
    return -(2**53) < value < 2**53


@given(st.dictionaries(NAMES, VALUES, max_size=5))
@settings(max_examples=share(300))
def test_what_is_in_the_profile_is_taken_alike(module: ModuleType, value: dict[str, Any]) -> None:
    line = canonical(value)
    expected = value if is_in_profile(value) else None
    assert module.record_reader()(line) == expected
    assert module.plain_record(line) == expected


@given(st.dictionaries(NAMES, VALUES, max_size=3), st.data())
@settings(max_examples=share(200))
def test_a_changed_byte_is_judged_alike(
    module: ModuleType, value: dict[str, Any], data: st.DataObject
) -> None:
    line = bytearray(canonical(value))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.integers(0, 255))
    plain = module.plain_record(bytes(line))
    assert module.record_reader()(bytes(line)) == plain
    if plain is not None:
        assert canonical(plain) == line


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1.0}',
        b'{"a":1e16}',
        b'{"a":-1.5e-7}',
        b'{"a":[0.5]}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b"[]",
        b"1",
        b"",
        b'{"a":"' + b"x" * 16_384 + b'"}',
    ],
)
def test_what_is_not_is_refused_alike(script: ModuleType, line: bytes) -> None:
    assert script.plain_record(line) is None
    assert script.record_reader()(line) is None


def test_text_that_looks_like_numbers_is_text(script: ModuleType) -> None:
    line = canonical({"a": "1.5", "b": "x:1.5,2e3[-4.0", "c": ["-1e4", ",9.9"]})
    assert script.record_reader()(line) == json.loads(line) == script.plain_record(line)


def test_without_orjson_the_plain_way_is_used(script: ModuleType) -> None:
    script.Tools.none()
    assert script.record_reader() is script.plain_record
