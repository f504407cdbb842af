"""Which links a text holds, as values to look up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.calls.links import TEXT_MAX_CHARS, UNKNOWN, find_links
from gateway.core.calls.spellings import host_of
from tests.effort import share

pytestmark = pytest.mark.req("POL-02")

LONG = "https://evil.example/" + "x" * 300


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see https://a.example/b?c=1#d.", ["https://a.example/b?c=1#d"]),
        (
            "[here](https://a.example/x), and <http://b.example>",
            ["https://a.example/x", "http://b.example"],
        ),
        ("![](https://evil.example/p.png?q=secret)", ["https://evil.example/p.png?q=secret"]),
        ('<a href="HTTPS://A.example/">x</a>', ["HTTPS://A.example/"]),
        ("**https://a.example/b**", ["https://a.example/b"]),
        (
            "www.a.example/path?q=1 and WWW.b.example",
            ["www.a.example", "http://a.example", "WWW.b.example", "http://b.example"],
        ),
        ("javascript://a.example/x", ["javascript://a.example/x"]),
        (LONG, [LONG, "https://evil.example"]),
        ("nothing but words, a mail@a.example and 3.5", []),
        ("a://b", []),
    ],
)
def test_links_are_found_in_texts(text: str, links: list[str]) -> None:
    assert find_links({"body": text}, ["/body"]) == ({"/body": links} if links else {})


@pytest.mark.parametrize(
    "text",
    [
        # whatever stands before
        "-https://evil.example/x",
        "...https://evil.example/x",
        "+https://evil.example/x",
        "1.https://evil.example/x",
        "5https://evil.example/x",
        "\u00e9https://evil.example/x",
        "a" * 20 + "https://evil.example/x",
        "://evil.example/x",
        "https://good.example/?to=https://evil.example/x",
        ".www.evil.example/x",
        "-www.evil.example",
        "_WWW.evil.example",
        # as browsers take it
        "//evil.example/x",
        "see ///evil.example/x",
        "![a](//evil.example/x)",
        "<img src=//evil.example/x>",
        "https:/evil.example/x",
        "https:evil.example/x",
        "ftp:/evil.example/x",
        "https:///evil.example/x",
        "https:\\\\evil.example/x",
        "https:/\\evil.example/x",
        "/\\evil.example/x",
        "\\\\evil.example\\x",
        "https://evil.example\\@good.example/",
        '<a href="ht\ntps://evil.exa\tmple/">',
        "<a href='/\r\n/evil.example/'>",
        # in HTML, Markdown and JSON
        "https&#58;//evil.example/x",
        "https&#x3A;&#x2f;&sol;evil.example/x",
        "https&colon;//evil&period;example/x",
        "https&#000000000058;//evil.example/x",
        "ht&Tab;tps://evi&#10;l.example/x",
        "//evi&#xAl.exam&#13ple/x",
        "[a](https\\://evil.example/x)",
        "[a](https:\\/\\/evil\\.example)",
        # behind a name
        "https://good.example@evil.example/x",
        "https://good.example&#64;evil.example/x",
        "https://a@good.example@evil.example/x",
        "https://good.example\\@evil.example/x",
        "https://good.example|@evil.example/x",
        "https://good.example'@evil.example/x",
        "https://'@evil.example/x",
        '[a](https://good.example"@evil.example/x)',
        "[a](https://good.example>@evil.example/x)",
        "www.good.example@evil.example/x",
        "https://" + "a" * 500 + "@evil.example/x",
        "https:" + "a" * 500 + "@evil.example/x",
    ],
)
def test_what_any_program_follows_is_a_link(text: str) -> None:
    found = find_links({"body": f"words {text} and words"}, ["/body"])["/body"]
    assert "evil.example" in {host_of(link) for link in found}


@pytest.mark.parametrize(
    "text",
    [
        "a // b, // TODO: c, and/or, 10:30, http: see below, https://",
        "x = a//b.c; C:\\dir\\notes.txt and C:\\\\dir\\\\notes.txt",
        "//comment and \\\\server\\share, a :/ b",
        "R&amp;D, AT&T, 5 &lt; 6 &#38; \\n \\d",
        "awww.cute, wwww.b",
        'x="a\nb" y=\'c\' z="',
        "std::vector, a::b, ratio 3:4, p:/x",
        "&#" + "9" * 5_000 + ";",
    ],
)
def test_what_leads_nowhere_is_no_link(text: str) -> None:
    assert find_links({"body": text}, ["/body"]) == {}


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("https://a.example/?b=1&copy=2", ["https://a.example/?b=1&copy=2"]),
        ('{"a":"https://a.example/b"}', ["https://a.example/b"]),
        (r"\url{https://a.example/b}.", ["https://a.example/b"]),
        ("<https://a.example/b|text>", ["https://a.example/b"]),
        ('<a href="https://a.example/b">A\nB</a>', ["https://a.example/b"]),
        (r"https://a.example/b\?q=1", [r"https://a.example/b\?q=1"]),
        ("https://a.example/b{1}c", ["https://a.example/b{1}c"]),
        ("a" * 20 + "://b.example", ["a" * 16 + "://b.example"]),
    ],
)
def test_a_link_is_looked_up_as_it_was_written(text: str, links: list[str]) -> None:
    assert find_links({"body": text}, ["/body"]) == {"/body": links}


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "a" * 3_000 + "@evil.example/",
        "http:," * 5_000,
        "x:// " * 2_000,
        "https://a.example/b " * 2_000,
        "www." * 5_000,
    ],
)
def test_more_than_anybody_reads_is_unknown(text: str) -> None:
    """`Sightings.classify` takes more than 256 values for unknown."""
    found = find_links({"body": [text, text]}, ["/body"])["/body"]
    assert UNKNOWN in found or len(found) == 300


@pytest.mark.parametrize(
    "blocks", ["https://a.example", ["https://a.example"], {"b": {"text": "https://a.example"}}]
)
def test_links_are_found_in_whatever_shape_a_text_is_sent(blocks: object) -> None:
    found = find_links({"blocks": blocks}, ["/blocks/*/text"])
    assert found == {"/blocks/*/text": ["https://a.example"]}


def test_each_pointer_has_its_own_links() -> None:
    arguments = {
        "body": "https://a.example",
        "blocks": [{"text": "https://b.example"}, {"text": 5}, {"text": ["https://c.example"]}],
        "names": {"https://d.example": None},
        "other": "https://e.example",
    }
    pointers = ["/body", "/blocks/*/text", "/names", "/gone"]
    assert find_links(arguments, pointers) == {
        "/body": ["https://a.example"],
        "/blocks/*/text": ["https://b.example", "https://c.example"],
        "/names": ["https://d.example"],
    }


def test_what_is_not_searched_is_no_text_without_links() -> None:
    text = "https://a.example " + " " * TEXT_MAX_CHARS + "https://b.example"
    assert find_links({"body": text}, ["/body"]) == {"/body": [UNKNOWN, "https://a.example"]}
    texts = ["https://a.example", "w" * (TEXT_MAX_CHARS - 20), "https://b.example", "", "more"]
    assert find_links({"body": texts}, ["/body"])["/body"].count(UNKNOWN) == 2


@settings(max_examples=share(60), deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_a_stranger_s_host_is_found_whatever_stands_around_it(before: str, after: str) -> None:
    text = f"{before}https://evil.example/{after}"
    found = find_links({"body": text}, ["/body"])["/body"]
    assert "evil.example" in {host_of(link) for link in found}


@settings(max_examples=share(60), deadline=None)
@given(st.text(max_size=200), st.text(max_size=20))
def test_a_link_between_words_is_found_whatever_the_words(before: str, after: str) -> None:
    text = f"{before} https://a.example/b {after}"
    assert "https://a.example/b" in find_links({"body": text}, ["/body"])["/body"]
