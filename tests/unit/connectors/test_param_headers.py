from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value, validate_mcp_param_headers

from connectors.param_headers import build_param_headers, read_param_headers

pytestmark = pytest.mark.req("GW-09")


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
