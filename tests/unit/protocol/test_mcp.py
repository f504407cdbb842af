"""Reading MCP: the body decides, headers must agree, and the arguments keep their bytes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limits import Limits
from gateway.core.refusal import Refusal
from gateway.protocol import mcp
from gateway.protocol.headers import Headers, read_headers
from gateway.protocol.mcp import Notification, Rejected, Request, ToolCall
from tests.unit.core.test_strict_json import JSON, TEXT
from tests.unit.path.world import build_modern, modern_headers

LIMITS = Limits()


def headers_of(**given_headers: str) -> Headers:
    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in given_headers.items()]
    headers = read_headers(pairs)
    assert isinstance(headers, Headers)
    return headers


def modern(method: str = "tools/call", name: str | None = "x", /, **changes: Any) -> Headers:  # noqa: ANN401 - text or None
    given_headers = {k.replace("-", "_"): v for k, v in modern_headers(method, name).items()}
    found = {**given_headers, **changes}
    return headers_of(**{key: value for key, value in found.items() if value is not None})


def read(body: bytes, headers: Headers | None = None) -> Request | Notification | Rejected:
    return mcp.read_message(body, headers or headers_of(), LIMITS)


def rejection(body: bytes, headers: Headers | None = None) -> Rejected:
    message = read(body, headers)
    assert isinstance(message, Rejected)
    return message


def tool_call(body: bytes, headers: Headers | None = None) -> ToolCall:
    message = read(body, headers)
    assert isinstance(message, Request)
    call = mcp.read_tool_call(message, b"{}")
    assert isinstance(call, ToolCall)
    return call


def legacy(params: str, method: str = "tools/call") -> bytes:
    return f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'.encode()


@pytest.mark.req("GW-06")
@given(
    st.dictionaries(TEXT, JSON, max_size=4),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.booleans(),
)
def test_the_arguments_keep_their_bytes_and_mean_what_was_judged(
    arguments: dict[str, Any],
    indent: int | str | None,
    escaped: bool,  # noqa: FBT001 - drawn
    blank: bool,  # noqa: FBT001 - drawn
) -> None:
    raw = json.dumps(arguments, indent=indent, ensure_ascii=escaped)
    space = " \n" if blank else ""
    name = r'"\u0061rguments"' if escaped else '"arguments"'
    call = tool_call(legacy(f'{{"name":"x",{name}:{space}{raw}{space}}}'))
    assert call.arguments.raw.strip() == raw.encode()
    assert call.arguments.value == arguments == orjson.loads(call.arguments.raw)


@pytest.mark.req("GW-06")
def test_absent_arguments_are_an_empty_object() -> None:
    call = tool_call(legacy('{"name":"x"}'))
    assert (call.arguments.raw, call.arguments.value) == (b"{}", {})


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_invalid"),
        (b"\xff", "body_invalid"),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', "body_invalid"),
        (legacy('{"name":"x","name":"y"}'), "body_invalid"),
        (legacy('{"name":"x","arguments":{"a":NaN}}'), "body_invalid"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/call"}]', "request_invalid"),
        (b"[]", "request_invalid"),
        (b'"tools/call"', "request_invalid"),
        (b"{}", "request_invalid"),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":1}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', "request_invalid"),
        (b'{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}', "body_invalid"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', "params_invalid"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}', "params_invalid"),
    ],
)
def test_what_is_no_request_is_rejected(body: bytes, code: str) -> None:
    assert rejection(body).refusal.code == code


@pytest.mark.parametrize("known", [b"0", b'""', b'"a"', b"-1"])
def test_a_rejection_answers_to_the_id_where_there_is_one(known: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id":%b,"method":5}' % known
    assert rejection(body).id == orjson.loads(known)
    assert rejection(b'{"jsonrpc":"2.0","id":[],"method":5}').id is None


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    "params",
    [
        "{}",
        '{"name":null}',
        '{"name":["x"]}',
        '{"name":"x","arguments":null}',
        '{"name":"x","arguments":[]}',
        '{"name":"x","arguments":"{}"}',
        '{"name":"x","_meta":null}',
        '{"name":"x","_meta":[]}',
    ],
)
def test_params_of_a_call_that_have_no_clear_meaning_are_refused(params: str) -> None:
    message = read(legacy(params))
    assert isinstance(message, Request)
    refusal = mcp.read_tool_call(message, b"{}")
    assert isinstance(refusal, Refusal)
    assert refusal.code == "params_invalid"


@pytest.mark.req("GW-06")
def test_a_call_without_an_id_is_a_notification_and_not_a_call() -> None:
    body = b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x","arguments":{}}}'
    assert isinstance(read(body), Notification)
    assert read(b'{"jsonrpc":"2.0","method":"a","params":[]}') == Notification("a", {})


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    "changes",
    [
        {"mcp_method": None},
        {"mcp_method": "tools/list"},
        {"mcp_method": "Tools/Call"},
        {"mcp_name": None},
        {"mcp_name": "y"},
        {"mcp_name": "X"},
        {"mcp_name": "=?base64?eQ==?="},
        {"mcp_name": "=?base64?eA?="},
        {"mcp_protocol_version": None},
        {"mcp_protocol_version": "2025-11-25"},
        {"mcp_protocol_version": "1999-01-01"},
    ],
)
def test_headers_that_name_something_else_than_the_body_are_refused(
    changes: dict[str, str | None],
) -> None:
    rejected = rejection(build_modern("tools/call", "x", b"{}"), modern(**changes))
    assert (rejected.refusal.code, rejected.id) == ("header_mismatch", 1)


@pytest.mark.req("GW-06")
@pytest.mark.parametrize("spelling", ["=?base64?eA==?=", " x "])
def test_headers_that_spell_the_same_name_are_taken(spelling: str) -> None:
    message = read(build_modern("tools/call", "x", b"{}"), modern(mcp_name=spelling))
    assert isinstance(message, Request)
    assert (message.wire, message.version) == ("modern", mcp.MODERN)


@pytest.mark.req("GW-06")
@pytest.mark.parametrize("given_headers", [{"mcp_name": "y"}, {"mcp_method": "tools/list"}])
def test_on_the_other_wire_too_headers_must_not_name_another_tool(
    given_headers: dict[str, str],
) -> None:
    body = legacy('{"name":"x"}')
    assert rejection(body, headers_of(**given_headers)).refusal.code == "header_mismatch"
    agreeing = headers_of(mcp_name="x", mcp_method="tools/call")
    assert isinstance(read(body, agreeing), Request)


def test_a_name_header_says_nothing_about_a_method_without_one() -> None:
    message = read(build_modern("ping", None, b"{}"), modern("ping", "whatever"))
    assert isinstance(message, Request)


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ("{}", "params_invalid"),
        ('{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}', "params_invalid"),
        (f'{{"{mcp.META_VERSION}":"2026-07-28","{mcp.META_CAPABILITIES}":[]}}', "params_invalid"),
        (f'{{"{mcp.META_VERSION}":5,"{mcp.META_CAPABILITIES}":{{}}}}', "header_mismatch"),
    ],
)
def test_the_stateless_wire_needs_its_meta(meta: str, code: str) -> None:
    assert rejection(legacy(f'{{"name":"x","_meta":{meta}}}'), modern()).refusal.code == code


@pytest.mark.req("GW-06")
def test_an_unknown_version_is_told_which_ones_there_are() -> None:
    body = legacy("{}", "ping")
    rejected = rejection(body, headers_of(mcp_protocol_version="2030-01-01"))
    assert rejected.refusal.code == "version_unsupported"
    assert rejected.data == {
        "supported": [mcp.MODERN, *mcp.LEGACY],
        "requested": "2030-01-01",
    }
    future = build_modern("ping", None, b"{}").replace(b"2026-07-28", b"2030-01-01")
    rejected = rejection(future, modern("ping", None, mcp_protocol_version="2030-01-01"))
    assert rejected.refusal.code == "version_unsupported"


@pytest.mark.req("GW-06")
def test_what_surrounds_a_call_is_read_and_what_has_the_wrong_type_is_left_out() -> None:
    meta = (
        b',"progressToken":"p","traceparent":"00-1","countersign/claimed":{"confidence":0.2},'
        b'"io.modelcontextprotocol/logLevel":"info","io.modelcontextprotocol/clientInfo":{"n":1}'
    )
    meta_of = tool_call(build_modern("tools/call", "x", b"{}", meta=meta), modern()).meta
    assert (meta_of.progress_token, meta_of.traceparent, meta_of.log_level) == ("p", "00-1", "info")
    assert meta_of.claimed == {"confidence": 0.2}
    assert (meta_of.client_capabilities, meta_of.client_info) == (b"{}", b'{"n":1}')
    odd = (
        b',"progressToken":[1],"traceparent":5,"countersign/claimed":[],'
        b'"io.modelcontextprotocol/logLevel":{}'
    )
    meta_of = tool_call(build_modern("tools/call", "x", b"{}", meta=odd), modern()).meta
    assert meta_of.progress_token is None
    assert (meta_of.traceparent, meta_of.log_level, meta_of.claimed) == (None, None, {})
    assert meta_of.client_info is None


def test_a_session_lends_its_capabilities() -> None:
    message = read(legacy('{"name":"x"}'))
    assert isinstance(message, Request)
    call = mcp.read_tool_call(message, b'{"elicitation":{}}')
    assert isinstance(call, ToolCall)
    assert call.meta.client_capabilities == b'{"elicitation":{}}'
