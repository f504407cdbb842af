from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.oauth.dpop import is_same_url, normalise_url

pytestmark = pytest.mark.req("TOK-05")

SEGMENTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5)
PATHS = SEGMENTS.map(
    lambda parts: "/" + "/".join(quote(part, safe="!$&'()*+,;=:@") for part in parts)
)
UNRESERVED = "ABCxyz019-._~"


@pytest.mark.parametrize(
    "other",
    [
        "https://gw.example/mcp/shop",
        "HTTPS://GW.Example/mcp/shop",
        "https://gw.example:443/mcp/shop",
        "https://gw.example/%6dcp/sh%6Fp",
        "https://gw.example/./mcp/x/../shop",
        "https://gw.example/%2e/mcp/shop",
        "https://gw.example/mcp/shop?query=1",
        "https://gw.example/mcp/shop#fragment",
    ],
)
def test_one_url_has_many_spellings(other: str) -> None:
    assert is_same_url(other, "https://gw.example/mcp/shop")


@pytest.mark.parametrize(
    "other",
    [
        "https://gw.example/mcp/shop/",
        "https://gw.example/MCP/shop",
        "https://gw.example/mcp%2Fshop",
        "https://gw.example//mcp/shop",
        "https://gw.example:8443/mcp/shop",
        "https://gw.example.evil.example/mcp/shop",
        "https://gw.example@evil.example/mcp/shop",
        "https://evil.example/https://gw.example/mcp/shop",
        "http://gw.example/mcp/shop",
        "ftp://gw.example/mcp/shop",
        "https:///mcp/shop",
        "//gw.example/mcp/shop",
        "https://gw.example\\mcp/shop",
        "https://gw.example/mcp/shop ",
        "https://gw.example/mcp/\tshop",
        "https://gw.example/mcp/shop%",
        "https://gw.example/mcp/shop%4",
        "https://gw.example/mcp/shop%zz",
        "https://gw.example:port/mcp/shop",
        "https://gw.example:99999/mcp/shop",
        "https://[gw.example/mcp/shop",
        "https://gw.example/mcp/shöp",
        "https://gw.example/mcp/shop" + "?" + "x" * 3_000,
        "",
    ],
)
def test_another_url_is_another(other: str) -> None:
    assert not is_same_url(other, "https://gw.example/mcp/shop")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://gw.example", "https://gw.example/"),
        ("http://[::1]:80/a", "http://[::1]/a"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("https://h/a/b/../..", "https://h/"),
        ("https://h/../../a/.", "https://h/a/"),
        ("https://h/%e2%82%ac", "https://h/%E2%82%AC"),
        ("https://h/a%2fb", "https://h/a%2Fb"),
    ],
)
def test_a_url_has_one_normal_form(text: str, normal: str) -> None:
    assert normalise_url(text) == normal


@given(PATHS)
def test_a_normal_form_is_its_own(path: str) -> None:
    normal = normalise_url("https://gw.example" + path)
    assert normal is not None
    assert normalise_url(normal) == normal


@given(PATHS, st.data())
def test_escaping_what_need_not_be_escaped_changes_nothing(path: str, data: st.DataObject) -> None:
    escaped = "".join(
        f"%{ord(char):02X}" if char in UNRESERVED and data.draw(st.booleans()) else char
        for char in path.replace("%", "")
    )
    assert is_same_url("https://gw.example" + escaped, "https://gw.example" + path.replace("%", ""))


@given(PATHS, PATHS)
def test_paths_without_dots_and_escapes_are_equal_only_to_themselves(one: str, two: str) -> None:
    plain = [path.replace("%", "").replace(".", "") for path in (one, two)]
    same = is_same_url("https://gw.example" + plain[0], "https://gw.example" + plain[1])
    assert same == (plain[0] == plain[1])


@given(st.text(max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    assert normalise_url(text) is None or normalise_url(text) == normalise_url(
        str(normalise_url(text))
    )
