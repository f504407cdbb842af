from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.calls.masking import MASKED, mask_arguments, mask_input, read_sensitive
from tests.effort import share

pytestmark = pytest.mark.req("AUD-06")


@pytest.mark.parametrize(
    ("value", "pointers", "shown"),
    [
        (b'{"a":{"b":1,"c":2}}', ["/a/b"], {"a": {"b": MASKED, "c": 2}}),
        (b'{"a":[1,2,3]}', ["/a/1"], {"a": [1, MASKED, 3]}),
        (b'{"a":[1,2,3]}', ["/a/-"], {"a": MASKED}),
        (b'{"a":[{"b":1}]}', ["/a/b"], {"a": MASKED}),
        (b'{"a":1}', ["/a/b"], {"a": MASKED}),
        (b'{"a":null}', ["/a"], {"a": MASKED}),
        (b'{"a/b":1}', ["/a~1b"], {"a/b": MASKED}),
        (b'{"a":1}', ["/b"], {"a": 1}),
        (b'{"a":1}', [""], MASKED),
        (b'{"a":1}', ["a"], MASKED),
        (b'{"a":1}', [], {"a": 1}),
        (b'{"a":1}', None, MASKED),
        (b"not json", ["/a"], MASKED),
        (b'{"a":1,"a":2}', ["/a"], {"a": MASKED}),
    ],
)
def test_what_a_pointer_leads_to_is_masked_whatever_the_shape(
    value: bytes, pointers: list[str] | None, shown: object
) -> None:
    assert json.loads(mask_arguments(value, pointers)) == shown


def test_a_policy_input_shows_no_masked_argument_and_no_result() -> None:
    value = b'{"phase":"result","context":{"args":{"a":1,"b":2},"result":{"text":"x"},"now_ns":3}}'
    shown = json.loads(mask_input(value, ["/a"]))
    assert shown["context"] == {"args": {"a": MASKED, "b": 2}, "result": MASKED, "now_ns": 3}
    assert json.loads(mask_input(value, None))["context"]["args"] == MASKED
    issue = b'{"phase":"issue","context":{"now_ns":1800000000000000000}}'
    assert json.loads(mask_input(issue, None)) == json.loads(issue)
    for broken in (b"[]", b"{}", b"{"):
        assert json.loads(mask_input(broken, [])) == MASKED


def test_sensitive_pointers_are_read_from_an_input_that_names_them() -> None:
    assert read_sensitive(b'{"resource":{"sensitive":["/a"]}}') == ("/a",)
    for silent in (None, b"", b"[]", b'{"resource":{}}', b'{"resource":{"sensitive":1}}'):
        assert read_sensitive(silent) is None


LEAVES = st.text("xyz", max_size=3) | st.integers(0, 9) | st.none()
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc01"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=share(150), deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), TREES),
    st.lists(st.sampled_from("abc01"), min_size=1, max_size=3),
)
def test_no_masked_value_is_left_where_a_pointer_leads(
    tree: dict[str, object], path: list[str]
) -> None:
    shown = json.loads(mask_arguments(json.dumps(tree).encode(), ["/" + "/".join(path)]))
    found: object = shown
    for name in path:
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            break
    else:
        assert found == MASKED
