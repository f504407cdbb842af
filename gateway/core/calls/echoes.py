"""What a run has said to its tools, in the forms in which it may come back.

A tool that repeats what it was asked for vouches for nothing, whether it does so at once, on the
next page or through another tool, in the same words or decoded, cut into parts or put together. So
each family remembers what it has said: whole words, and runs of five letters and digits with
nothing between them. Both are numbers from which no text can be had back. Of each argument, the
last four letters are kept as they are, to go before what it says next.

INVARIANT: what does not fit is taken for said. The runs of letters share a table of fixed size, so
that one that is full says yes to everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.core.calls.readings import Form, decode_all, split_leaves, split_words

_GRAM: Final = 5
_TABLE_BYTES: Final = 8_192
_TABLE_BITS: Final = 8 * _TABLE_BYTES
_WORDS_MAX: Final = 8_192
_ENDS_MAX: Final = 256
_CHARS_MAX: Final = 16_384
"""So much is taken in of one call. Where it says more, everything may be its own."""

_LONG: Final = 8
"""Words from this length on are known by their parts, too: numbers with a prefix, for one."""


class Echoes:
    """What one family has said."""

    __slots__ = ("_ends", "_table", "_words", "whole")

    def __init__(self) -> None:
        self._table = bytearray()
        self._words: set[int] = set()
        self._ends: dict[str, str] = {}
        self.whole = True
        """Whether all that was said is known."""

    @property
    def size(self) -> int:
        """How many values are remembered; the table counts as what it takes."""
        return len(self._words) + len(self._ends) + len(self._table) // 64

    def add(self, arguments: Mapping[str, Any]) -> None:
        """Remember what is said."""
        parts = [(name, *split_leaves(value)) for name, value in arguments.items()]
        said = sum(len(name) + sum(map(len, values + names)) for name, values, names in parts)
        if said > _CHARS_MAX:
            self.whole = False
            return
        end = ""
        for argument, values, names in parts:
            # A tool may put together what stands in several arguments, or came in several calls.
            joined = "".join([self._hear(value) for value in values])
            before = self._ends.get(argument, "")
            self._take_in(end + joined)
            self._take_in(before + joined[: _GRAM - 1])
            end = (end + joined)[1 - _GRAM :]
            self._ends[argument] = (before + joined)[1 - _GRAM :]
            for name in (argument, *names):
                if hash(name) not in self._words:
                    self._take_in(self._hear(name))
        if len(self._words) > _WORDS_MAX or len(self._ends) > _ENDS_MAX:
            self.whole = False

    def holds(self, forms: Iterable[Form], known: dict[str, bool]) -> bool:
        """Whether a value may be what was said. `known`: what was found of words, for a while."""
        if not self.whole:
            return True
        return any(self._holds(words, joined, known) for words, joined in forms)

    def has_site(self, site: str, known: dict[str, bool]) -> bool:
        """Whether a domain may stand in what was said."""
        key = f"@{site}"  # is no word
        found = known.get(key)
        if found is None:
            words, joined = split_words(site)
            in_parts = len(joined) < _GRAM and all(self._has_word(word) for word in words)
            found = known[key] = not self.whole or in_parts or self._has_piece(joined)
        return found

    def _hear(self, text: str) -> str:
        """Take in the words of a text and all other ways to read it; return the text joined."""
        readings, whole = decode_all(text)
        self.whole = self.whole and whole
        for reading in readings:
            words, joined = split_words(reading)
            self._words.update(map(hash, words))
            self._take_in(joined)
        words, joined = split_words(text)
        self._words.update(map(hash, words))
        self._words.add(hash(joined))
        return joined

    def _take_in(self, joined: str) -> None:
        if len(joined) < _GRAM:
            return
        table = self._table = self._table or bytearray(_TABLE_BYTES)
        for at in range(len(joined) - _GRAM + 1):
            slot = hash(joined[at : at + _GRAM]) % _TABLE_BITS
            table[slot >> 3] |= 1 << (slot & 7)

    def _has(self, text: str, at: int) -> bool:
        slot = hash(text[at : at + _GRAM]) % _TABLE_BITS
        return bool(self._table[slot >> 3] >> (slot & 7) & 1)

    def _holds(self, words: tuple[str, ...], joined: str, known: dict[str, bool]) -> bool:
        for word in words:
            found = known.get(word)
            if found is None:
                found = known[word] = self._has_word(word)
            if not found:
                # In one piece, then, whatever stood between its parts?
                return len(word) < _LONG and self._has_piece(joined)
        return True

    def _has_piece(self, joined: str) -> bool:
        ends = len(joined) - _GRAM
        if ends < 0 or not self._table:
            return hash(joined) in self._words
        return self._has(joined, ends) and all(self._has(joined, at) for at in range(0, ends, 2))

    def _has_word(self, word: str) -> bool:
        """Whether a word was said, or most of one whose end was."""
        if hash(word) in self._words:
            return True
        ends = len(word) - _GRAM
        if len(word) < _LONG or not self._table or not self._has(word, ends):
            return False
        begin, covered = 0, 0
        for at in range(ends + 1):
            if self._has(word, at):
                covered += at + _GRAM - max(begin, at)
                begin = at + _GRAM
        return 4 * covered >= 3 * len(word)
