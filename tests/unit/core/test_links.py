"""Which links a text holds, as values to look up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.calls.links import TEXT_MAX_CHARS, UNKNOWN, find_links

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
        (LONG, ["https://evil.example"]),
        ("nothing but words, a mail@a.example and 3.5", []),
        ("a://b", []),
    ],
)
def test_links_are_found_in_texts(text: str, links: list[str]) -> None:
    assert find_links({"body": text}, ["/body"]) == ({"/body": links} if links else {})


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


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(max_size=20))
def test_a_link_between_words_is_found_whatever_the_words(before: str, after: str) -> None:
    text = f"{before} https://a.example/b {after}"
    assert "https://a.example/b" in find_links({"body": text}, ["/body"])["/body"]
