"""`regex.*` and `glob.*` as OPA 1.22 answers them: searched by the embedded engine, read as by Go.

INVARIANT: what these return, OPA returns for the same arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from gateway.adapters.policy.policy_patterns import Pattern, translate
from gateway.adapters.regorus.shim_natives import RefusedError, ask_native, text_of, whole_of

_INSERTED: Final = re.compile(
    r"\$(?:\$|(?:0|[1-9][0-9]{0,2}|[A-Za-z_][0-9A-Za-z_]*)(?![0-9A-Za-z_]|[^\x00-\x7f])"
    r"|\{(?:0|[1-9][0-9]{0,2}|[A-Za-z_][0-9A-Za-z_]*)\})"
)
_DOT: Final = (".",)


def match(pattern: object, text: object) -> bool:
    """Whether a pattern is found in a text."""
    asked = text_of(pattern)
    quick = _quick(asked)
    if quick is not None:
        return quick(text_of(text)) is not None
    found: bool = ask_native("regex.match", _read(asked).text, text_of(text))
    return found


_PLAIN: Final = re.compile(
    r"\^(?:[A-Za-z0-9_:/@,;=#%~ -]|\\[^A-Za-z0-9\x80-\U0010ffff]|\\[dw]|\[[A-Za-z0-9_:/@.,+ -]+\]"
    r"|\((?!\?)|\)(?![*+?{])|\||\.|[*+?]|\{[0-9]{1,2}(?:,[0-9]{1,2})?\})*\$?"
)
"""Patterns that mean the same to Python, but for `$`."""

_VARIABLE: Final = re.compile(r"\\.|\[[^\]]*\]|([*+])|(\?|\{[0-9]+,)")
_ALTERNATIVES: Final = re.compile(r"\\.|\[[^\]]*\]|\([^()|]*\)")
_CHOICES_MAX: Final = 3


@lru_cache(maxsize=512)
def _quick(pattern: str) -> Callable[[str], object] | None:
    """Return a search by Python, which costs a tenth, for patterns that it never searches long.

    It goes back where a search fails, so a pattern begins with `^`, repeats single characters
    only, at most one of them without an end and three with one, and has `|` in groups only.
    """
    _read(pattern)
    if _PLAIN.fullmatch(pattern) is None or "--" in pattern:
        return None
    found = _VARIABLE.findall(pattern)
    endless = sum(1 for sign, _ in found if sign)
    if endless > 1 or sum(1 for _, sign in found if sign) > _CHOICES_MAX:
        return None
    outside = pattern
    while outside != (outside := _ALTERNATIVES.sub("", outside)):
        pass
    if "|" in outside:
        return None
    ended = pattern.endswith("$") and not pattern.endswith("\\$")
    return re.compile(pattern[:-1] + r"\Z" if ended else pattern, re.ASCII).match


def is_valid(pattern: object) -> bool:
    """Whether a pattern can be read. Where only one engine can, it is an error."""
    if isinstance(pattern, str):
        ask_native("regex.match", _read(pattern).text, "")
        return True
    return False


def find_n(pattern: object, text: object, number: object) -> list[str]:
    """Return what a pattern finds."""
    found: list[str] = ask_native(
        "regex.find_n", _read(pattern).text, text_of(text), whole_of(number)
    )
    return found


def find_all_string_submatch_n(pattern: object, text: object, number: object) -> list[list[str]]:
    """Return what a pattern and its groups find."""
    found: list[list[str]] = ask_native(
        "regex.find_all_string_submatch_n", _read(pattern).text, text_of(text), whole_of(number)
    )
    return found


def replace(text: object, pattern: object, value: object) -> str:
    """Return a text with what a pattern finds replaced; `$1` and `${name}` stand for groups."""
    inserted = text_of(value)
    if "$" in _INSERTED.sub("", inserted):
        raise RefusedError("`$` in a replacement is followed by what engines read differently")
    found: str = ask_native("regex.replace", text_of(text), _read(pattern).text, inserted)
    return found


def split(pattern: object, text: object) -> list[str]:
    """Return what stands between what a pattern finds."""
    read = _read(pattern)
    if read.empty:
        raise RefusedError("engines split differently by a pattern that may be empty")
    found: list[str] = ask_native("regex.split", read.text, text_of(text))
    return found


def glob_match(pattern: object, delimiters: object, text: object) -> bool:
    """Whether a glob matches all of a text (github.com/gobwas/glob v1.0.0)."""
    if delimiters is None:
        parted: tuple[object, ...] = ()
    elif isinstance(delimiters, list):
        parted = tuple(delimiters) or _DOT
    else:
        raise RefusedError("delimiters are a list, or null")
    found: bool = ask_native("regex.match", _read_glob(text_of(pattern), parted), text_of(text))
    return found


def quote_meta(text: object) -> str:
    """Return a text as a glob that matches it."""
    return re.sub(r"[*?\\\[\]{}]", lambda found: "\\" + found[0], text_of(text))


def _read(pattern: object) -> Pattern:
    return translate(text_of(pattern))


@lru_cache(maxsize=512)
def _read_glob(pattern: str, delimiters: tuple[object, ...]) -> str:
    """Return a glob as a pattern of the embedded engine."""
    signs = [each for each in delimiters if isinstance(each, str) and len(each) == 1]
    if len(signs) < len(delimiters):
        raise RefusedError("a delimiter is one character")
    other = f"[^{''.join(map(_quote, signs))}]" if signs else "(?s:.)"
    return f"^(?:{''.join(_glob_parts(pattern, other))})$"


_GLOB_TERM: Final = re.compile(r"\*\*|\\.|[^\\]", re.DOTALL)


def _glob_parts(pattern: str, other: str) -> Iterator[str]:
    at = depth = 0
    while at < len(pattern):
        term = _GLOB_TERM.match(pattern, at)
        if term is None:
            raise RefusedError("a glob ends with `\\`")
        at, sign = term.end(), term[0]
        known = {"**": "(?s:.*)", "*": f"{other}*", "?": other, "{": "(?:"}
        inside = {"}": ")", ",": "|"} if depth else {}
        if sign == "[":
            text, at = _glob_class(pattern, at)
            yield text
        else:
            yield (known | inside).get(sign, _quote(sign[-1]))
        depth += (sign == "{") - (sign == "}" and depth > 0)
    if depth:
        raise RefusedError("a glob has a `{` without its `}`")


_GLOB_CLASS: Final = re.compile(r"(!?)(?:([^!\\\]\-])-([^\\\]\-])|([^!\\\[\]\-]+))\]", re.DOTALL)
"""What stands in a class: a range or some characters. What is odder is not read."""


def _glob_class(pattern: str, at: int) -> tuple[str, int]:
    found = _GLOB_CLASS.match(pattern, at)
    if found is None:
        raise RefusedError("a glob has a class other than `[abc]`, `[a-c]` or `[!a]`")
    negated, low, high, several = found.groups()
    inner = f"{_quote(low)}-{_quote(high)}" if low else "".join(map(_quote, several))
    if low and high < low:
        raise RefusedError("a range in a glob ends before it begins")
    return f"[{'^' if negated else ''}{inner}]", found.end()


def _quote(sign: str) -> str:
    return f"\\x{{{ord(sign):X}}}"


SHIMS: Final[dict[str, tuple[int, Any]]] = {
    "glob.match": (3, glob_match),
    "glob.quote_meta": (1, quote_meta),
    "regex.find_all_string_submatch_n": (3, find_all_string_submatch_n),
    "regex.find_n": (3, find_n),
    "regex.is_valid": (1, is_valid),
    "regex.match": (2, match),
    "regex.replace": (3, replace),
    "regex.split": (2, split),
}
