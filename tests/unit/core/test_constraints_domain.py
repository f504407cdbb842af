"""To which host a text leads: only where every reader finds the same."""

from __future__ import annotations

from collections.abc import Callable
from email.headerregistry import Address
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import Url
from yarl import URL

from gateway.core.tokens.constraints import is_satisfied
from gateway.core.tokens.domain import build_host_test, find_host, is_covered, is_pattern
from gateway.core.tokens.token import Constraint
from tests.effort import share

pytestmark = pytest.mark.req("TOK-03")

LONG: Final = ".".join(["a" * 63] * 3)  # 191 characters


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("acme.example", "acme.example"),
        ("ACME.Example", "acme.example"),
        ("intranet", "intranet"),
        ("a1-b--2.x", "a1-b--2.x"),
        ("9.acme.example", "9.acme.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        (f"{LONG}.{'b' * 61}", f"{LONG}.{'b' * 61}"),
        ("ann@acme.example", "acme.example"),
        ("o'ne.t+w_o-3@Acme.example", "acme.example"),
        ("a" * 64 + "@acme.example", "acme.example"),
        ("http://acme.example", "acme.example"),
        ("https://acme.example/", "acme.example"),
        ("https://acme.example:8443", "acme.example"),
        ("https://acme.example:65535/a%2F?b=c&d=[e]#f@evil.example", "acme.example"),
        ("https://acme.example/@ann", "acme.example"),
        ("https://acme.example//evil.example", "acme.example"),
        ("https://acme.example/" + "a" * 8171, "acme.example"),
    ],
)
def test_a_plain_text_leads_to_its_host(text: str, host: str) -> None:
    assert find_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        # nothing, and no host
        "",
        " ",
        "@",
        "://",
        "https://",
        "https:///acme.example",
        "https:acme.example",
        "https:/acme.example",
        "//acme.example",
        "ann@",
        "@acme.example",
        # user information, and what some take for it
        "https://acme.example@evil.example/",
        "https://ann:pw@acme.example/",
        "https://@acme.example/",
        "https://acme.example#@evil.example/",
        "https://acme.example?@evil.example/",
        "https://acme.example;@evil.example/",
        "https://acme.example:80@evil.example/",
        "https://acme.example\\@evil.example/",
        "https://acme.example/\\@evil.example/",
        "https://evil.example\\.acme.example/",
        # schemes
        "HTTPS://acme.example/",
        "ftp://acme.example/",
        "javascript://acme.example/%0aalert(1)",
        "mailto:ann@acme.example",
        "xhttps://acme.example/",
        # ports
        "https://acme.example:/",
        "https://acme.example:0/",
        "https://acme.example:080/",
        "https://acme.example:65536/",
        "https://acme.example:100000/",
        "acme.example:443",
        # characters that readers treat differently
        "https://acme.example/\t",
        "https://acme.ex\tample/",
        "acme.example\n",
        "ann@acme.example\r\nBcc: eve@evil.example",
        " acme.example",
        "https://acme.example/a b",
        "https://acme.example/é",
        "https://acme.example/\x00",
        "acme.example\x00.evil.example",
        "https://acme%2eexample/",
        "https://acme.example%2f.evil.example/",
        "https://acme.example\uff0fevil.example",
        "https://acme.exampleª.evil.example/",
        # host names that are none, or not for everybody
        "acme.example.",
        "https://acme.example./",
        "acme..example",
        ".acme.example",
        "-acme.example",
        "acme-.example",
        "acme.-example",
        "acme.example-",
        "acme_x.example",
        "*.acme.example",
        "bücher.example",
        "acme。example",
        "\u212aelvin.example",
        "a" * 64 + ".example",
        "acme." + "e" * 64,
        f"{LONG}.{'b' * 62}",
        # addresses of machines, in every notation
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "acme.0x7f",
        "acme.1a",
        "https://[::1]/",
        "ann@[127.0.0.1]",
        # e-mail addresses with a second meaning
        "ann@acme.example@evil.example",
        "ann@evil.example,bob@acme.example",
        "Ann <ann@acme.example>",
        "<ann@acme.example>",
        '"ann@evil.example"@acme.example',
        '"ann"@acme.example',
        "ann(x@evil.example)@acme.example",
        "ann@acme.example(evil.example)",
        "ann%evil.example@acme.example",
        "evil.example!ann@acme.example",
        "@evil.example:ann@acme.example",
        "=?utf-8?q?ann=40evil.example=3e?=@acme.example",
        "&AEA-@acme.example",
        "änn@acme.example",
        ".ann@acme.example",
        "ann.@acme.example",
        "a..b@acme.example",
        "a" * 65 + "@acme.example",
        "ann @acme.example",
        "ann\\@acme.example",
        # too long to look at
        "https://acme.example/" + "a" * 8172,
    ],
)
def test_a_text_with_a_second_meaning_leads_nowhere(text: str) -> None:
    assert find_host(text) is None
    assert not is_satisfied(Constraint(domain=("acme.example", "*.acme.example")), text)


HOSTS: Final = ["acme.example", "evil.example", "xn--a", "443", "127.1", "0x7f", "[::1]", "a@"]
CODED: Final = ["%40", "%2e", "%2F", "\u3002", "\uff0f", "\u2100", "\u00aa", "\u00df", "\u212a"]
BREAKS: Final = ["https://", "http://", "https://acme.example", *'@:/\\#?.,;+*"()<>=&!-_~ \t\n\r\0']
PIECES: Final = st.sampled_from(HOSTS) | st.sampled_from(CODED) | st.sampled_from(BREAKS)
TRICKY: Final = st.lists(PIECES, max_size=7).map("".join)
READERS: Final[dict[str, Callable[[str], str | None]]] = {
    "RFC 3986": lambda text: urlsplit(text).hostname,
    "WHATWG": lambda text: Url(text).host,
    "httpx": lambda text: httpx.URL(text).host,
    "yarl": lambda text: URL(text).host,
}


@settings(max_examples=share(300))
@given(tail=TRICKY, scheme=st.sampled_from(["https://", "https://acme.example", ""]))
def test_where_a_url_has_a_host_every_reader_finds_it(tail: str, scheme: str) -> None:
    text = scheme + tail
    host = find_host(text)
    if host is None or "://" not in text:
        return
    for name, read in READERS.items():
        if name == "RFC 3986" or "xn--" not in host:  # they decode, and refuse what is no A-label
            assert read(text) == host, name


@settings(max_examples=share(300))
@given(head=TRICKY, tail=TRICKY)
def test_where_an_address_has_a_host_the_mail_parser_finds_it(head: str, tail: str) -> None:
    for text in (f"{head}@acme.example{tail}", f"ann{head}@{tail}acme.example"):
        host = find_host(text)
        if host is not None and "://" not in text:
            assert Address(addr_spec=text).domain.lower() == host


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("acme.example", "acme.example", True),
        ("acme.example", "x.acme.example", False),
        ("acme.example", "xacme.example", False),
        ("acme.example", "example", False),
        ("*.acme.example", "x.acme.example", True),
        ("*.acme.example", "y.x.acme.example", True),
        ("*.acme.example", "a--b.acme.example", True),
        ("*.acme.example", "acme.example", False),
        ("*.acme.example", "xacme.example", False),
        ("*.acme.example", "acme.example.evil.example", False),
        ("*.acme.example", "xn--a.acme.example", False),
        ("*.acme.example", "x.xn--a.acme.example", False),
        ("*.acme.example", "xn--a.x.acme.example", False),
        ("*.xn--a.example", "x.xn--a.example", True),
        ("xn--a.acme.example", "xn--a.acme.example", True),
        ("ACME.example", "acme.example", False),
        ("*.ACME.example", "x.acme.example", False),
        ("*", "acme.example", False),
        ("*.*.example", "a.b.example", False),
    ],
)
def test_a_pattern_stands_for_a_host_or_for_those_below_it(
    pattern: str, host: str, *, fits: bool
) -> None:
    assert find_host(host) == host
    assert build_host_test((pattern,))(host) is fits
    assert build_host_test(("other.example", pattern, "*.other.example"))(host) is fits


def test_two_wildcards_are_asked_one_after_the_other() -> None:
    fits = build_host_test(("*.example", "*.xn--a.example"))
    assert fits("x.xn--a.example")
    assert not fits("x.xn--b.example")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "*.",
        "*.*.a",
        "a.*",
        "x*.a",
        "A.b",
        "a.",
        ".a",
        "a b",
        "1.2",
        "é.a",
        "a/b",
        "a:1",
        "u@a.b",
        "https://a.b",
        "**.a",
        f"{LONG}.{'b' * 62}",
        "a" * 64,
        f"*.{LONG}.{'b' * 62}",
    ],
)
def test_what_is_no_host_name_is_no_pattern(pattern: str) -> None:
    assert not is_pattern(pattern)
    assert is_covered((), pattern)  # it fits nothing


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        (("a.b",), "a.b", True),
        (("a.b",), "x.a.b", False),
        (("*.b",), "a.b", True),
        (("*.b",), "b", False),
        (("*.b",), "*.a.b", True),
        (("*.b",), "*.b", True),
        (("*.a.b",), "*.b", False),
        (("a.b",), "*.b", False),
        (("b",), "*.b", False),
        (("a.b", "*.a.b"), "*.a.b", True),
        (("a.b", "*.c"), "d.c", True),
        (("*.b",), "*.xn--a.b", False),
        (("*.b",), "xn--a.b", False),
        (("*.xn--a.b",), "*.xn--a.b", True),
        (("*.xn--a.b",), "*.x.xn--a.b", True),
        (("*.xb",), "*.a.b", False),
        (("*.b",), "*.ab", False),
        ((), "a.b", False),
        (("*.B",), "*.a.b", False),
    ],
)
def test_whether_a_pattern_is_covered_is_decided(
    wide: tuple[str, ...], narrow: str, *, covered: bool
) -> None:
    assert is_covered(wide, narrow) is covered


LABELS = st.sampled_from(["a", "b", "c", "xn--a"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = NAMES | NAMES.map("*.{}".format)


@settings(max_examples=share(200))
@given(wide=st.lists(PATTERNS, max_size=3), narrow=PATTERNS, host=NAMES)
def test_what_fits_a_covered_pattern_fits_the_wider_ones(
    wide: list[str], narrow: str, host: str
) -> None:
    covered = is_covered(wide, narrow)
    for name in (host, narrow.removeprefix("*."), narrow.replace("*", "x"), f"x.{host}"):
        if build_host_test((narrow,))(name) and not build_host_test(wide)(name):
            assert not covered
    if not covered:  # decided exactly: one of the names below a pattern tells them apart
        name = narrow.replace("*", "q")
        assert build_host_test((narrow,))(name)
        assert not build_host_test(wide)(name)


@pytest.mark.parametrize(
    "text",
    [
        "a." * 4000,
        "a" * 8000 + "-",
        "a--a." * 1600,
        "-" * 8000,
        "a@" + "a-" * 4000,
        "a@" + "a." * 4000,
        "a.@" * 2000,
        "+.+" * 2000 + "@",
        "https://" + "a-." * 2000,
        "https://" + "a-a." * 2000 + ":1",
        "https://a:1" + "/:1" * 2000 + " ",
    ],
)
def test_no_text_takes_long_to_look_at(text: str) -> None:
    # A reader that tried every way to cut these would not come back in years.
    assert find_host(text) is None
