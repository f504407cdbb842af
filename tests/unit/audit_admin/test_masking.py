from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.calls.masking import (
    MASKED,
    mask_arguments,
    mask_input,
    mask_output,
    read_sensitive,
    read_sensitive_out,
)
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
        (b'{"a":[{"b":1,"c":2}]}', ["/a/*/b"], {"a": [{"b": MASKED, "c": 2}]}),
        (b'{"a":{"x":{"b":1,"c":2}}}', ["/a/*/b"], {"a": {"x": {"b": MASKED, "c": 2}}}),
        (b'{"a":{"x":1}}', ["/a/0"], {"a": MASKED}),
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


def test_pointers_into_answers_are_read_from_an_input_that_names_them() -> None:
    named = b'{"resource":{"sensitive":["/a"],"sensitive_out":["/rows/*/iban"]}}'
    assert (read_sensitive(named), read_sensitive_out(named)) == (("/a",), ("/rows/*/iban",))
    for silent in (None, b"{", b'{"resource":{"sensitive":["/a"]}}', b'{"resource":{}}'):
        assert read_sensitive_out(silent) is None


@pytest.mark.parametrize(
    ("result", "pointers", "shown"),
    [
        (
            b'{"structuredContent":{"rows":[{"iban":"DE1","n":1},{"iban":"DE2"}]}}',
            ["/rows/*/iban"],
            {
                "content": [],
                "structuredContent": {"rows": [{"iban": MASKED, "n": 1}, {"iban": MASKED}]},
            },
        ),
        (
            b'{"content":[{"type":"text","text":"{\\"iban\\":\\"DE1\\",\\"n\\":1}"}]}',
            ["/iban"],
            {"content": [{"type": "text", "text": f'{{"iban":"{MASKED}","n":1}}'}]},
        ),
        (
            b'{"content":[{"type":"text","text":"it is DE1"}],"structuredContent":{"iban":"DE1"}}',
            ["/iban"],
            {
                "content": [{"type": "text", "text": "[redacted]"}],
                "structuredContent": {"iban": MASKED},
            },
        ),
        (b'{"content":[],"isError":true}', ["/iban"], {"content": [], "isError": True}),
        (b'{"structuredContent":{"iban":"DE1"}}', None, MASKED),
        (b'{"structuredContent":{"iban":"DE1"}}', ["iban"], MASKED),
        (b'{"structuredContent":{"iban":"DE1"}}', ["/other", "iban"], MASKED),
        (b'{"code":-32000,"message":"no account DE1"}', ["/iban"], MASKED),
        (b'["DE1"]', ["/iban"], MASKED),
        (b"DE1", ["/iban"], MASKED),
    ],
)
def test_a_result_is_shown_without_what_pointers_lead_to_and_without_what_could_repeat_it(
    result: bytes, pointers: list[str] | None, shown: object
) -> None:
    assert json.loads(mask_output(result, pointers)) == shown


@pytest.mark.parametrize("result", [b'{"content":[ ]}', b'{"code":1}', b"no json"])
def test_a_result_in_which_reviewers_call_nothing_sensitive_is_shown_as_it_came(
    result: bytes,
) -> None:
    assert mask_output(result, []) == result


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
    pointers = ["/" + "/".join(path)]
    _assert_masked(json.loads(mask_arguments(json.dumps(tree).encode(), pointers)), path)
    result = json.dumps({"structuredContent": tree}).encode()
    shown = json.loads(mask_output(result, pointers))
    _assert_masked(shown["structuredContent"], path)


def _assert_masked(found: object, path: list[str]) -> None:
    """Nothing but the mask stands where a path leads."""
    for name in path:
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            break
    else:
        assert found == MASKED
