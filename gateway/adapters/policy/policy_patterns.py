r"""Regular expressions of Go (RE2, what OPA runs) in the words of the embedded engine's.

Both search alike and read some patterns differently: `\d` is ten digits to OPA and those of every
alphabet here, `[[a]` is a class to OPA and a mistake here. `translate` writes a pattern so that
here it means what it means to OPA; what it does not know for certain it refuses.
Source: https://pkg.go.dev/regexp/syntax, https://docs.rs/regex/latest/regex/#syntax.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from msgspec import Struct

_LENGTH_MAX: Final = 4_096
_DEPTH_MAX: Final = 50
_REPEAT_MAX: Final = 1_000
_FOLDED_ALIKE: Final = "\u0180"
"""Below it, both engines know the same pairs of small and capital letters."""

_GROUP: Final = re.compile(r"\(\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|[imsU]*(?:-[imsU]+)?:)|\((?!\?)")
_FLAGS: Final = re.compile(r"\(\?([imsU]*(?:-[imsU]+)?)\)")
_REPEAT: Final = re.compile(r"[*+?]|\{([0-9]+)(?:,([0-9]*))?\}")
_POSIX: Final = re.compile(
    r"\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit)"
    r":\]"
)
_HEX: Final = re.compile(r"\\x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_QUOTED: Final = re.compile(r"\\Q(.*?)(?:\\E|\Z)", re.DOTALL)
_PERL: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\x0C\r "}
_CONTROLS: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_EDGES: Final = {"A": r"\A", "z": r"\z", "b": r"(?-u:\b)"}
_LAST: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


READ_LAYOUTS: Final = (
    *("2006-01-02", "2006-01-02 15:04:05", "2006-01-02T15:04:05"),
    *("2006-01-02T15:04:05Z07:00", "RFC3339"),
)
WRITTEN_LAYOUTS: Final = ("2006-01-02", "15:04:05", "15:04", "2006", "RFC3339")
"""Layouts of times that engines read, and write, alike."""

VERB: Final = re.compile(r"%(?:%|([-0]?)([1-9][0-9]{0,2})?(?:\.([0-9]{1,2}))?([sdvqxXf]))|%")
"""Verbs of `sprintf`; a `%` alone is one that engines write differently."""


class PatternError(ValueError):
    """A pattern that OPA and the embedded engine may read differently. Its text holds none of it.

    `hint` is what to write instead, empty if there is nothing to say.
    """

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Pattern(Struct, frozen=True):
    """A pattern in the embedded engine's words. `empty`: it may match an empty text."""

    text: str
    empty: bool


class _Part(Struct, frozen=True):
    """A piece of a pattern; `times`: how often repetition with counts may copy it."""

    text: str
    empty: bool
    times: int = 1
    fixed: bool = False
    """Whether nothing may repeat it: an edge, a flag, what is repeated already."""


@lru_cache(maxsize=512)
def translate(pattern: str) -> Pattern:
    """Return a pattern that finds here what `pattern` finds on OPA. Raises `PatternError`."""
    if len(pattern) > _LENGTH_MAX:
        raise PatternError(f"it has more than {_LENGTH_MAX} characters")
    reader = _Reader(pattern)
    found = reader.alternatives(0)
    if reader.at < len(pattern):
        raise PatternError("it has a `)` without its `(`")
    if reader.folds and reader.highest >= _FOLDED_ALIKE:
        raise PatternError(
            "with `(?i)`, letters beyond Latin have other capitals in each engine",
            "write both letters: `[Σσς]`",
        )
    return Pattern(found.text, found.empty)


class _Reader:
    """Reads a pattern from left to right, as Go's parser does (regexp/syntax/parse.go)."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0
        self.folds = False
        self.highest = ""

    def alternatives(self, depth: int) -> _Part:
        if depth > _DEPTH_MAX:
            raise PatternError(f"it is nested more than {_DEPTH_MAX} deep")
        found = [self._sequence(depth)]
        while self._next() == "|":
            self.at += 1
            found.append(self._sequence(depth))
        text = "|".join(part.text for part in found)
        empty = any(part.empty for part in found)
        return _Part(text, empty, max(part.times for part in found))

    def _next(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _sequence(self, depth: int) -> _Part:
        parts: list[_Part] = []
        while (sign := self._next()) and sign not in "|)":
            repeat = _REPEAT.match(self._pattern, self.at)
            if repeat is None:
                parts += self._atoms(sign, depth)
            elif not parts or parts[-1].fixed:
                raise PatternError(
                    "it repeats what is repeated already, or nothing", "put it into `(?:…)`"
                )
            else:
                parts[-1] = self._repeated(parts[-1], repeat)
        empty = all(part.empty for part in parts)
        text = "".join(part.text for part in parts)
        return _Part(text, empty, max((part.times for part in parts), default=1))

    def _repeated(self, part: _Part, repeat: re.Match[str]) -> _Part:
        self.at = repeat.end()
        sign, (least, most) = repeat[0], repeat.groups()
        if part.empty:
            raise PatternError("it repeats what may be empty", "write `(?:…)?` for what may be")
        times = 1
        if least is not None:
            if any(count and count != str(int(count)) for count in (least, most)):
                raise PatternError("a count of a repetition begins with 0")
            times = max(int(least), int(most or 0), 1)
            if part.times * times > _REPEAT_MAX or (most and int(most) < int(least)):
                raise PatternError(f"it repeats more than {_REPEAT_MAX} times")
        lazy = "?" if self._next() == "?" else ""
        self.at += len(lazy)
        empty = sign in "*?" or int(least or 1) == 0
        return _Part(part.text + sign + lazy, empty, part.times * times, fixed=True)

    def _atoms(self, sign: str, depth: int) -> list[_Part]:
        if sign == "(":
            return [self._group(depth)]
        if sign == "[":
            return [_Part(self._class(), empty=False)]
        if sign == "\\":
            return self._escape()
        if sign in "^$.":
            self.at += 1
            return [_Part(sign, empty=sign != ".", fixed=sign != ".")]
        return [_Part(_quote(self._character()), empty=False)]

    def _group(self, depth: int) -> _Part:
        flags = _FLAGS.match(self._pattern, self.at)
        opened = flags or _GROUP.match(self._pattern, self.at)
        if opened is None:
            raise PatternError("it has a group that OPA does not know", "write `(…)` or `(?:…)`")
        self.folds |= "(?" in opened[0] and "<" not in opened[0] and "i" in opened[0]
        self.at = opened.end()
        if flags is not None:
            if not flags[1]:
                raise PatternError("it has a group without flags")
            return _Part(opened[0], empty=True, fixed=True)
        inner = self.alternatives(depth + 1)
        if self._next() != ")":
            raise PatternError("it has a `(` without its `)`")
        self.at += 1
        return _Part(f"{opened[0]}{inner.text})", inner.empty, inner.times)

    def _escape(self) -> list[_Part]:
        letter = self._pattern[self.at + 1 : self.at + 2]
        if letter == "Q":
            return self._quoted()
        if letter and letter in "dwsDWS":
            self.at += 2
            return [_Part(_perl(letter), empty=False)]
        if letter in _EDGES:
            self.at += 2
            return [_Part(_EDGES[letter], empty=True, fixed=True)]
        return [_Part(_quote(self._character()), empty=False)]

    def _quoted(self) -> list[_Part]:
        found = _QUOTED.match(self._pattern, self.at)
        if found is None:  # pragma: no cover - it begins with `\Q` and may end anywhere
            raise PatternError("a quotation without an end")
        self.at = found.end()
        self.highest = max(self.highest, *found[1], "")
        return [_Part(_quote(each), empty=False) for each in found[1]]

    def _character(self) -> str:
        """Read one character, or what stands for one."""
        found = self._read_character()
        self.highest = max(self.highest, found)
        return found

    def _read_character(self) -> str:
        sign = self._next()
        if sign != "\\":
            self.at += 1
            return sign
        coded = _HEX.match(self._pattern, self.at)
        if coded is not None:
            self.at = coded.end()
            code = int(coded[1] or coded[2], 16)
            if code > _LAST or code in _SURROGATES:
                raise PatternError("it names a character that does not exist")
            return chr(code)
        letter = self._pattern[self.at + 1 : self.at + 2]
        self.at += 2
        if letter in _CONTROLS and letter:
            return _CONTROLS[letter]
        if not letter or letter.isalnum() or not letter.isascii():
            raise PatternError(*_unknown(letter))
        return letter

    def _class(self) -> str:
        self.at += 1
        text = "["
        if self._next() == "^":
            text, self.at = "[^", self.at + 1
        first = True
        while first or self._next() != "]":
            if not self._next():
                raise PatternError("it has a `[` without its `]`")
            first = False
            text += self._member()
        self.at += 1
        return text + "]"

    def _member(self) -> str:
        posix = _POSIX.match(self._pattern, self.at)
        if posix is not None:
            self.at = posix.end()
            return posix[0]
        pair = self._pattern[self.at : self.at + 2]
        if pair == "[:":
            raise PatternError("it has a class that OPA does not know", "write `[a-z]`, `[0-9]`")
        if len(pair) > 1 and pair[0] == "\\" and pair[1] in "dwsDWS":
            self.at += 2
            return _perl(pair[1])
        low = self._character()
        following = self._pattern[self.at : self.at + 2]
        if len(following) < 2 or following[0] != "-" or following[1] == "]":  # noqa: PLR2004
            return _quote(low)
        self.at += 1
        high = self._character()
        if high < low:
            raise PatternError("a range in it ends before it begins")
        return f"{_quote(low)}-{_quote(high)}"


def _perl(letter: str) -> str:
    return f"[{'^' if letter.isupper() else ''}{_PERL[letter.lower()]}]"


def _quote(sign: str) -> str:
    if sign.isalnum() or sign == "_":
        return sign
    return f"\\x{{{ord(sign):X}}}"


def _unknown(letter: str) -> tuple[str, str]:
    if letter and letter in "pP":
        return "the letters of `\\p` are others in each engine", "write `[A-Za-z]` or `[^0-9]`"
    if letter == "B":
        return "the embedded engine has no `\\B` of ASCII", "write what stands there"
    return "it has an escape that OPA does not know, or that engines read differently", ""
