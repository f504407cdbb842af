"""Headers: each read once, so that nobody reads another copy than we do."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.refusal import Refusal
from gateway.protocol.headers import Headers, decode_value, read_headers


def headers_of(*pairs: tuple[bytes, bytes]) -> Headers:
    headers = read_headers(pairs)
    assert isinstance(headers, Headers)
    return headers


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"host",
        b"origin",
        b"mcp-method",
        b"mcp-name",
        b"mcp-session-id",
        b"mcp-protocol-version",
        b"idempotency-key",
        b"mcp-param-region",
    ],
)
@pytest.mark.parametrize("second", [b"a", b"b", b""])
def test_a_header_that_comes_twice_is_refused_even_with_one_value(
    name: bytes, second: bytes
) -> None:
    refusal = read_headers([(name, b"a"), (b"accept", b"*/*"), (name, second)])
    assert isinstance(refusal, Refusal)
    assert (refusal.stage, refusal.code) == ("read", "header_mismatch")


def test_blanks_around_values_are_none_of_the_value() -> None:
    headers = headers_of((b"mcp-name", b" \tbilling__refund\t "), (b"mcp-param-x", b" 1 "))
    assert headers.text(b"mcp-name") == "billing__refund"
    assert headers.params == {b"mcp-param-x": b"1"}
    assert headers.text(b"mcp-method") is None


def test_accept_headers_are_joined_and_others_are_left_alone() -> None:
    pairs = [(b"accept", b"a/b"), (b"accept", b"c/d"), (b"x-other", b"1"), (b"x-other", b"2")]
    assert headers_of(*pairs).accept == b",a/b,c/d"


@pytest.mark.req("GW-10")
@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"BEARER abc", b"abc"),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Basic abc", None),
        (b"", None),
        (b"Bearerabc", None),
        (b"DPoP abc", b"abc"),
    ],
)
def test_only_a_token_sent_as_bearer_or_dpop_is_taken(value: bytes, token: bytes | None) -> None:
    assert headers_of((b"authorization", value)).credential() == token
    assert headers_of().credential() is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_encoded_value_is_read_back(text: str) -> None:
    payload = base64.b64encode(text.encode())
    assert decode_value(b"=?base64?" + payload + b"?=") == text


@given(st.binary())
def test_any_value_is_text_or_nothing(value: bytes) -> None:
    assert isinstance(decode_value(value), str | None)


@pytest.mark.parametrize(
    "payload", [b"YQ", b"YQ===", b"YR==", b"Y Q==", b"_-==", b"/w==", b"YQ==\n"]
)
def test_an_encoded_value_has_one_spelling(payload: bytes) -> None:
    assert decode_value(b"=?base64?" + payload + b"?=") is None
