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
from gateway.core.calls.spellings import find_numbers

_GRAM: Final = 5
_TABLE_BYTES: Final = (1_024, 8_192)
_PER_BYTE: Final = 0.5
"""So many runs a byte of the table, before it is doubled."""

_WORDS_MAX: Final = 8_192
_ENDS_MAX: Final = 256
_CHARS_MAX: Final = 16_384
"""So much is taken in of one call. Where it says more, everything may be its own."""

_LONG: Final = 8
"""Words from this length on are known by their parts, too: numbers with a prefix, for one. Shorter
ones have too few, and others would be taken for them."""


_CHAIN_LEAST: Final = 2
_CHAIN_TRIES: Final = 2_048
"""So many words are tried to put a value together from. Where it takes more, it may be its own."""


class Echoes:
    """What one family has said."""

    __slots__ = ("_ends", "_lengths", "_runs", "_table", "_words", "whole")

    def __init__(self) -> None:
        self._table = bytearray()
        self._runs = 0
        self._words: set[int] = set()
        self._lengths: set[int] = set()
        self._ends: dict[str, str] = {}
        self.whole = True
        """Whether all that was said is known. Where it is not, nobody should ask."""

    @property
    def size(self) -> int:
        """How many values are remembered; the table counts as what it takes."""
        return len(self._words) + len(self._ends) + len(self._table) // 64

    def add(self, arguments: Mapping[str, Any]) -> None:
        """Remember what is said."""
        parts, said = [], 0
        for argument, value in arguments.items():
            values, names = split_leaves(value)
            names.append(argument)
            said += sum(map(len, values)) + sum(map(len, names))
            parts.append((argument, values, names))
        if said > _CHARS_MAX:
            self.whole = False
            return
        end = ""
        for argument, values, names in parts:
            # A tool may put together what stands in several arguments, or came in several calls.
            joined = "".join([self._hear(value) for value in values])
            before = self._ends.get(argument, "")
            self._join(end, joined)
            self._join(before, joined)
            if len(values) > 1:
                self._take_runs(joined)
            end = (end + joined)[1 - _GRAM :]
            self._ends[argument] = (before + joined)[1 - _GRAM :]
            for name in names:
                if hash(name) not in self._words:
                    self._hear(name)
        if len(self._words) > _WORDS_MAX or len(self._ends) > _ENDS_MAX:
            self.whole = False

    def holds(self, forms: Iterable[Form], known: dict[str, bool]) -> bool:
        """Whether a value may be what was said. `known`: what was found of words, for a while."""
        return any(self._holds(words, joined, known) for words, joined in forms)

    def has_site(self, site: str, known: dict[str, bool]) -> bool:
        """Whether a domain may stand in what was said."""
        key = f"@{site}"  # is no word
        found = known.get(key)
        if found is None:
            found = self._names(*split_words(site))
            if not found and "xn--" in site:  # a name in other letters, by its other spelling
                found = any(self._names(*split_words(each)) for each in decode_all(site)[0])
            known[key] = found
        return found

    def _names(self, words: tuple[str, ...], joined: str) -> bool:
        in_parts = len(joined) < _LONG and all(self._has_word(word) for word in words)
        return in_parts or self._has_piece(joined)

    def _hear(self, text: str) -> str:
        """Take in a text and all other ways to read it; return it joined."""
        readings, whole = decode_all(text)
        self.whole = self.whole and whole
        for reading in readings:
            self._take_in(*split_words(reading))
        words, joined = split_words(text)
        self._take_in(words, joined)
        if len(joined) > _LONG:
            self._words.update(hash(number.lstrip("0")) for number in find_numbers(text))
        return joined

    def _take_in(self, words: tuple[str, ...], joined: str) -> None:
        number = hash(joined)
        is_known = number in self._words  # so are its runs, then
        self._words.update(map(hash, words))
        self._lengths.update(map(len, words))
        if not is_known:
            self._words.add(number)
            self._lengths.add(len(joined))
            self._take_runs(joined)

    def _join(self, before: str, after: str) -> None:
        if before and after:
            self._take_runs(before + after[: _GRAM - 1])

    def _take_runs(self, joined: str) -> None:
        runs = len(joined) - _GRAM + 1
        if runs <= 0:
            return
        least, most = _TABLE_BYTES
        table = self._table = self._table or bytearray(least)
        self._runs += runs
        while self._runs > _PER_BYTE * len(table) and len(table) < most:
            table = self._table = table + table  # whatever is in it is found in either half
        mask = 8 * len(table) - 1
        for at in range(runs):
            slot = hash(joined[at : at + _GRAM]) & mask
            table[slot >> 3] |= 1 << (slot & 7)

    def _has(self, text: str, at: int) -> bool:
        table = self._table
        slot = hash(text[at : at + _GRAM]) & (8 * len(table) - 1)
        return bool(table[slot >> 3] >> (slot & 7) & 1)

    def _holds(self, words: tuple[str, ...], joined: str, known: dict[str, bool]) -> bool:
        for word in words:
            found = known.get(word)
            if found is None:
                found = known[word] = self._has_word(word)
            if not found:
                # In one piece, then, whatever stood between its parts? Or put together?
                in_piece = len(word) < _LONG and self._has_piece(joined)
                key = f"+{joined}"  # is no word
                if not in_piece and key not in known:
                    known[key] = self._is_chain(joined)
                return in_piece or known[key]
        return True

    def _has_piece(self, joined: str) -> bool:
        if hash(joined) in self._words:
            return True
        # Of short words, numbers alone: others have letters in common with too much.
        if (len(joined) < _LONG and (len(joined) <= _GRAM or joined.isalpha())) or not self._table:
            return False
        ends = len(joined) - _GRAM
        return self._has(joined, ends) and all(self._has(joined, at) for at in range(ends))

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

    def _is_chain(self, joined: str) -> bool:
        """Whether letters and digits are those of words that were said, put together in any order.

        Of each word two letters at least. Zeros before a number come and go. It goes from place to
        place, and gives up where there are too many ways.
        """
        words, whole, left = self._words, len(joined), _CHAIN_TRIES
        lengths = [each for each in self._lengths if each <= whole]
        waiting, ends = [0], {0}
        while waiting:
            begin = at = waiting.pop()
            left -= len(lengths)
            if left < 0:
                return True
            while joined[at : at + 1] == "0":
                at += 1
            least = begin + _CHAIN_LEAST
            found = [at + each for each in lengths if hash(joined[at : at + each]) in words]
            for end in (*found, at):
                if end not in ends and (least <= end <= whole or end == at):
                    ends.add(end)
                    waiting.append(end)
            if whole in ends:
                return True
        return False
