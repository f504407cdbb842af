from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import mcp_wire as wire
from gateway.core.calls.call import UpstreamResult
from gateway.core.errors import UpstreamError
from tests.unit.connectors.calls import OP, build_intent, build_tool

pytestmark = pytest.mark.req("GW-09")

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=5)


@given(objects, st.sampled_from([None, 1]), st.booleans())
def test_an_object_is_split_into_what_it_was_made_of(
    value: dict[str, Any],
    indent: int | None,
    ascii_: bool,  # noqa: FBT001 - drawn
) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    try:
        parts = wire.split_object(raw)
    except ValueError:
        assert any(json.dumps(key).encode() != orjson.dumps(key) for key in value)
        return
    assert {key: json.loads(part) for key, part in parts.items()} == value


@given(objects.filter(bool), st.data(), st.sampled_from([b"", b" ", b"\n\t"]))
def test_a_key_that_is_there_twice_is_always_seen(
    value: dict[str, Any], data: st.DataObject, space: bytes
) -> None:
    members = [orjson.dumps(key) + b":" + orjson.dumps(item) for key, item in value.items()]
    key = data.draw(st.sampled_from(list(value)))
    again = orjson.dumps(key) + space + b":" + orjson.dumps(data.draw(values))
    at = data.draw(st.integers(0, len(members)))
    members.insert(at, again)
    with pytest.raises(ValueError, match=r"twice|escapes"):
        wire.split_object(b"{" + (space + b",").join(members) + b"}")


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"{", b'{"a":1}x', b'{"a":"\xff"}', b"null"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|codec"):
        wire.split_object(raw)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1,]", b"[" * 50_000 + b"]" * 50_000])
def test_what_is_no_array_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="JSON array"):
        wire.split_list(raw)


def read_long_way(raw: bytes) -> UpstreamResult:
    return wire.read_answer(wire.split_object(raw), 7)


def read_body(raw: bytes) -> UpstreamResult:
    return wire.read_body(raw, 7)


def outcome(read: Callable[[bytes], UpstreamResult], raw: bytes) -> object:
    try:
        return read(raw)
    except (UpstreamError, ValueError) as error:
        return type(error), str(error)


FRAGMENTS = [
    b'"isError":true',
    b'"isError":false',
    b'"resultType":"task"',
    b'"a":{"b":[1]}',
    b'"result":{}',
    b'"error":{"code":1}',
    b'"id":7',
    b'"x":"\xff"',
    b'"x":{',
    b"}",
    b"}{",
    b"},",
    b" ",
]


@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=5), st.sampled_from([b"", b"}", b"}}", b"}} "])
)
def test_a_body_means_what_its_members_mean(fragments: list[bytes], end: bytes) -> None:
    raw = b'{"jsonrpc":"2.0","id":7,"result":{' + b",".join(fragments) + end
    assert outcome(read_body, raw) == outcome(read_long_way, raw)


@given(objects, st.sampled_from([None, 1]), st.sampled_from(["result", "error"]))
def test_an_answer_is_returned_as_sent_however_its_message_is_written(
    value: dict[str, Any], indent: int | None, member: str
) -> None:
    message = {"jsonrpc": "2.0", "id": 7, member: value}
    compact = json.dumps(message, separators=(",", ":")).encode()
    for raw in (compact, json.dumps(message, indent=indent).encode()):
        found = outcome(read_body, raw)
        if isinstance(found, UpstreamResult):
            assert json.loads(getattr(found, member)) == value
            assert getattr(found, member) in raw
        else:  # a key of the result is written with escapes
            assert any(json.dumps(key).encode() != orjson.dumps(key) for key in value)


@pytest.mark.parametrize(
    "more",
    [
        b'"isError":false},"result":{"isError":true',
        b'"isError":false},"error":{"code":1',
        b'"isError":false},"id":{"a":1',
        b'"isError":false,"isError":true',
        b'"isError":false}}{"a":{',
    ],
)
def test_a_body_with_two_meanings_is_never_taken(more: bytes) -> None:
    with pytest.raises((UpstreamError, ValueError)):
        read_body(b'{"jsonrpc":"2.0","id":7,"result":{' + more + b"}}")


def test_a_call_without_anything_to_say_has_no_meta() -> None:
    body = wire.build_call(7, build_intent("echo", b'{ "a":1 }'), modern=False)
    assert body == (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call",'
        b'"params":{"name":"echo","arguments":{ "a":1 }}}'
    )


@pytest.mark.parametrize(
    ("review", "sent"),
    [
        ({}, False),
        ({"operation_id_at": "table.column"}, True),
        ({"idempotency": "key"}, True),
        ({"idempotency": "natural"}, False),
    ],
)
def test_the_operation_id_goes_where_the_manifest_wants_it(
    review: dict[str, Any], *, sent: bool
) -> None:
    tool = build_tool("echo", **review)
    params = orjson.loads(wire.build_call(1, build_intent(tool), modern=False))["params"]
    assert params.get("_meta") == ({wire.OPERATION_ID: OP} if sent else None)


@given(objects, st.text(max_size=8) | st.integers(-(2**31), 2**31))
def test_a_call_is_valid_json_whatever_the_agent_sent(
    arguments: dict[str, Any], token: str | int
) -> None:
    raw = json.dumps(arguments).encode()
    intent = build_intent("echo", raw, progress_token=token, traceparent='"}')
    params = json.loads(wire.build_call(1, intent, modern=True))["params"]
    assert params["arguments"] == arguments
    assert params["_meta"]["progressToken"] == OP
    assert "traceparent" not in params["_meta"]
    assert set(params) == {"name", "arguments", "_meta"}


def test_a_page_is_asked_for_by_its_cursor() -> None:
    assert orjson.loads(wire.build_params(modern=False)) == {}
    assert orjson.loads(wire.build_params(modern=False, cursor='"a')) == {"cursor": '"a'}
    assert "_meta" in orjson.loads(wire.build_params(modern=True))


def test_pages_without_end_are_refused() -> None:
    listing = wire.Listing()

    def ask_for_ever() -> None:
        for number in itertools.count():
            page = b'{"tools":[],"nextCursor":"%d"}' % number
            listing.add(UpstreamResult(result=page))

    with pytest.raises(UpstreamError, match="never ends"):
        ask_for_ever()


@given(objects)
def test_progress_keeps_what_it_says_and_gets_the_agents_token(params: dict[str, Any]) -> None:
    intent = build_intent("echo", progress_token="mine")
    raw = orjson.dumps({**params, "progressToken": OP})
    line = wire.build_relayed({"method": wire.PROGRESS, "params": raw}, intent)
    assert line is not None
    assert json.loads(line)["params"] == {**params, "progressToken": "mine"}


@pytest.mark.parametrize("params", [b"[]", b'{"progressToken":"theirs"}', b"{}"])
def test_progress_that_is_not_this_calls_is_dropped(params: bytes) -> None:
    intent = build_intent("echo", progress_token="mine")
    assert wire.build_relayed({"method": wire.PROGRESS, "params": params}, intent) is None


def test_progress_that_nobody_asked_for_is_dropped() -> None:
    params = orjson.dumps({"progressToken": OP})
    assert wire.build_relayed({"method": wire.PROGRESS, "params": params}, build_intent()) is None


@pytest.mark.parametrize(
    "page",
    [
        {"tools": [{"name": "a", "inputSchema": {"x": list(range(1_000))}}] * 140},
        {"tools": [{"name": "a"}] * 1_100},
    ],
)
def test_a_listing_that_would_hold_up_everybody_is_refused(page: dict[str, Any]) -> None:
    listing = wire.Listing()
    listing.add(UpstreamResult(result=orjson.dumps({**page, "nextCursor": "1"})))
    with pytest.raises(UpstreamError) as caught:
        listing.add(UpstreamResult(result=orjson.dumps({**page, "nextCursor": "2"})))
    assert (caught.value.code, caught.value.delivery) == ("upstream_protocol", "sent")
