from __future__ import annotations

import sys
import unicodedata

from gateway.core.seen import is_seen


def test_what_has_a_mark_is_seen_in_whichever_script() -> None:
    assert all(map(is_seen, 'aZ0{}"\\ é\u0301 п 東 א 한 ✓ 😀'))


def test_no_control_no_format_and_no_blank_but_the_space_is_seen() -> None:
    unseen = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
    found = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(char) in unseen and char != " " and is_seen(char)
    ]
    assert found == []


def test_no_character_is_seen_whose_name_says_that_it_shows_nothing() -> None:
    words = (
        "VARIATION SELECTOR",
        "GRAPHEME JOINER",
        "VOWEL INHERENT",
        "PATTERN BLANK",
        "NULL NOTE",
    )
    fillers = ("HANGUL FILLER", "SEONG FILLER", "SCRIPT FILLER")
    named = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if any(word in unicodedata.name(char, "") for word in (*words, *fillers)) and is_seen(char)
    ]
    assert named == []
