from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value, validate_mcp_param_headers

from gateway.protocol.param_headers import (
    build_param_headers,
    find_param_mismatch,
    read_param_headers,
)

pytestmark = pytest.mark.req("GW-06", "GW-09")


def marked(type_: Any = "string", token: Any = "Region") -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"type": type_, "x-mcp-header": token}


def schema(**properties: Any) -> dict[str, Any]:  # noqa: ANN401 - a schema
    return {"type": "object", "properties": properties}


def test_a_schema_without_marks_wants_no_headers() -> None:
    wanted = read_param_headers(schema(a={"type": "string", "enum": [{"x-mcp-header": 1}]}))
    assert build_param_headers(wanted, {"a": "x"}) == {}


def test_marks_are_found_along_properties() -> None:
    inner = schema(region=marked(), size=marked("integer", "Size"), dry=marked("boolean", "Dry"))
    wanted = read_param_headers(schema(place=inner))
    assert build_param_headers(wanted, {"place": {"region": "eu", "size": 3, "dry": True}}) == {
        "Mcp-Param-Region": "eu",
        "Mcp-Param-Size": "3",
        "Mcp-Param-Dry": "true",
    }
    assert build_param_headers(wanted, {"place": {"dry": False, "size": None, "region": [1]}}) == {
        "Mcp-Param-Dry": "false"
    }
    assert build_param_headers(wanted, {"place": "nowhere"}) == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"x-mcp-header": "Root"},
        schema(a=marked("number")),
        schema(a=marked(["string"])),
        schema(a=marked(token=7)),
        schema(a=marked(token="")),
        schema(a=marked(token="a b")),
        schema(a=marked(), b=marked(token="REGION")),
        schema(a={"items": marked()}),
        schema(a={"anyOf": [marked()]}),
        {"$defs": {"default": marked()}},
    ],
)
def test_a_wrong_mark_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"x-mcp-header"):
        read_param_headers(bad)


@given(st.text() | st.integers(-(2**53), 2**53) | st.booleans())
def test_the_official_server_reads_back_what_was_sent(value: Any) -> None:  # noqa: ANN401 - drawn
    type_ = {str: "string", int: "integer", bool: "boolean"}[type(value)]
    declared = schema(a=marked(type_))
    try:
        headers = build_param_headers(read_param_headers(declared), {"a": value})
    except UnicodeEncodeError:
        assert isinstance(value, str)  # a lone surrogate, which no strict reader lets in
        return
    assert validate_mcp_param_headers(declared, {"a": value}, headers) is None
    sent = headers["Mcp-Param-Region"]
    assert sent.isascii()
    assert sent.isprintable()
    assert sent == sent.strip()
    if isinstance(value, str):
        assert decode_header_value(sent) == value


PLACE = read_param_headers(
    schema(
        region=marked(), place=schema(size=marked("integer", "Size"), dry=marked("boolean", "D"))
    )
)
ARGUMENTS = {"region": "münchen", "place": {"size": 42, "dry": True}}
SENT = {
    b"mcp-param-region": b"=?base64?bcO8bmNoZW4=?=",
    b"mcp-param-size": b"42",
    b"mcp-param-d": b"true",
}


def mismatch(sent: dict[bytes, bytes], arguments: Any = ARGUMENTS, *, required: bool = True) -> Any:  # noqa: ANN401 - JSON
    return find_param_mismatch(PLACE, sent, arguments, required=required)


def test_headers_that_repeat_the_arguments_fit() -> None:
    assert mismatch(SENT) is None
    assert mismatch({}, {}) is None
    assert mismatch({}, {"region": None}) is None
    assert mismatch({**SENT, b"mcp-param-else": b"1"}) is None


@pytest.mark.parametrize("same", [b"42", b"42.0", b"042"])
def test_integers_are_compared_as_numbers(same: bytes) -> None:
    assert mismatch({**SENT, b"mcp-param-size": same}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Region", b"berlin"),
        ("Region", "münchen".encode()),
        ("Region", b"=?base64?bcO8bmNoZW4?="),
        ("Region", b"=?base64?bcO8!mNoZW4=?="),
        ("Region", b""),
        ("Size", b"43"),
        ("Size", b"forty-two"),
        ("Size", b"4_2"),
        ("Size", b"nan"),
        ("D", b"True"),
        ("D", b"1"),
    ],
)
def test_a_header_that_says_something_else_is_found(name: str, value: bytes) -> None:
    sent = {**SENT, b"mcp-param-" + name.lower().encode(): value}
    assert mismatch(sent) == f"Mcp-Param-{name}"
    assert mismatch(sent, required=False) == f"Mcp-Param-{name}"


def test_a_header_left_out_is_found_where_it_is_required() -> None:
    sent = {name: value for name, value in SENT.items() if name != b"mcp-param-size"}
    assert mismatch(sent) == "Mcp-Param-Size"
    assert mismatch(sent, required=False) is None


@pytest.mark.parametrize("value", [None, [1], {}])
def test_a_header_without_its_argument_is_found(value: object) -> None:
    assert mismatch({b"mcp-param-region": b"x"}, {"region": value}) == "Mcp-Param-Region"


@given(st.text() | st.integers(-(2**53), 2**53) | st.booleans())
def test_what_the_gateway_sends_it_takes_itself(value: Any) -> None:  # noqa: ANN401 - drawn
    wanted = read_param_headers(schema(a=marked()))
    try:
        headers = build_param_headers(wanted, {"a": value})
    except UnicodeEncodeError:
        return  # a lone surrogate, which no strict reader lets in
    sent = {name.lower().encode(): text.encode() for name, text in headers.items()}
    assert find_param_mismatch(wanted, sent, {"a": value}, required=True) is None
