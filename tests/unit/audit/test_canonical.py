from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.canonical import canonicalize, digest, digest_of, encode_record

KEYS = st.text(st.characters(max_codepoint=127), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.req("GW-13")
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_a_record_is_written_in_the_form_of_rfc_8785(record: dict[str, Any]) -> None:
    assert encode_record(record) == rfc8785.dumps(record)


def test_the_shared_vectors_come_out_byte_for_byte(
    vectors: Callable[[str], list[dict[str, Any]]],
) -> None:
    for case in vectors("rfc8785_jcs.jsonl"):
        expected = bytes.fromhex(case["canonical_hex"])
        assert canonicalize(json.loads(case["input"])) == expected, case["case"]


@pytest.mark.parametrize(
    "value",
    [1.5, float("nan"), 2**53, -(2**53), "\ud800", {"ä": 1}, {"a": [{"ü": 1}]}, {1: 2}, b"", {1}],
)
def test_a_value_outside_the_profile_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="record"):
        encode_record({"x": value})


@pytest.mark.parametrize("value", [float("nan"), 2**53, "\ud800", {1: 2}])
def test_what_json_cannot_say_exactly_has_no_canonical_form(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonicalize(value)


def test_a_digest_names_its_algorithm_and_is_of_the_canonical_form() -> None:
    assert digest_of({"b": 1, "a": 1.0}) == digest(b'{"a":1,"b":1}')
    assert digest(b"").startswith("sha256:e3b0c442")


def test_text_beyond_ascii_is_fine_where_it_is_no_key() -> None:
    assert encode_record({"x": ["ä", {"y": "😀"}]}) == '{"x":["ä",{"y":"😀"}]}'.encode()
