"""The ways to read a text: decoded, in one spelling, as its words and as its letters alone.

Two texts that are written in different ways may say the same to a tool: `eve%40bad.example` and
`eve@bad.example`, `DE89 3704` and `de89-3704`. This finds what is alike; it decides nothing.
"""

from __future__ import annotations

import binascii
import html
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

_FORMS_MAX: Final = 12
_TOKENS_MAX: Final = 256
_TOKEN_MAX_CHARS: Final = 1_024

_ALNUM: Final = re.compile(r"[^\W_]+")
_PREFIXES: Final = frozenset({"http", "https", "www", "mailto", "tel"})
"""What tools put before an address by themselves."""

_ESCAPED: Final = re.compile(r"\\u\{?([0-9a-fA-F]{4,6})\}?|\\x([0-9a-fA-F]{2})")
_QUOTED: Final = re.compile(r"=(?:([0-9A-Fa-f]{2})|\r?\n)")
_CODED_MIN: Final = 8
_CODED: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{_CODED_MIN},}}")
_CODED_PART: Final = re.compile(r"[A-Za-z0-9+/_=-]+")
_ALL_CODED: Final = re.compile(r"[A-Za-z0-9+/_=\s-]+", re.ASCII)
_ODD: Final = 3
_SIGN: Final = re.compile(r"[%&\\=]|xn--|XN--")
_PARTED: Final = re.compile(r"[^\s\"'<>]+")
_PUNY: Final = re.compile(r"xn--([a-z0-9-]{1,59})", re.IGNORECASE)
_URLSAFE: Final = str.maketrans("-_", "+/")

Form = tuple[tuple[str, ...], str]
"""One way to read a value: its words, and its letters and digits with nothing between them."""

ANYTHING: Final[Form] = ((), "")
"""Stands for the ways to read a value that were not gone through."""


def build_forms(value: str) -> tuple[Form, ...]:
    """Return the ways to read a value that an output holds."""
    decoded, whole = decode_all(value)
    forms = [split_words(reading) for reading in (value, *decoded)]
    plain = tuple(_core(*form) for form in forms)
    return plain if whole else (*plain, ANYTHING)


def decode_all(text: str) -> tuple[list[str], bool]:
    """Return what is written in a text in another way, decoded; and whether that is all of it."""
    found, whole = _decode_parted(text)
    if not _may_be_coded(text):
        return found, whole
    left = _TOKENS_MAX
    has_sign = _SIGN.search(text) is not None
    for token in _PARTED.findall(text):
        if (has_sign or len(token) >= _CODED_MIN) and _may_be_coded(token):
            if not left or len(token) > _TOKEN_MAX_CHARS:
                return found, False
            left -= 1
            readings = _decode(token)
            whole = whole and len(readings) <= _FORMS_MAX
            found += readings[1:]
    return found, whole


def _decode_parted(text: str) -> tuple[list[str], bool]:
    """Return what stands in base64 or hexadecimal with white space in it, as mail has it."""
    parts = text.split()
    if len(parts) < 2:  # noqa: PLR2004 - in parts
        return [], True
    odd = [at for at, part in enumerate(parts) if not (part.isalpha() and part[1:].islower())]
    runs = _coded_runs(parts, odd) if len(odd) > 1 else []
    # Parts may look like words: then it is all of them, if a third is none.
    if (
        odd
        and _ODD * sum([len(parts[at]) for at in odd]) >= len(text)
        and _ALL_CODED.fullmatch(text)
    ):
        runs.append("".join(parts))
    found: list[str] = []
    whole = True
    for run in runs:
        if len(run) >= _CODED_MIN:
            readings = _decode(run)
            whole = whole and len(readings) <= _FORMS_MAX
            found += readings[1:]
    return found, whole


def _coded_runs(parts: Sequence[str], odd: Iterable[int]) -> list[str]:
    """Return what may be one coded text in parts: those beside each other that are no words."""
    runs: list[list[str]] = [[]]
    last = -1
    for at in odd:
        if _CODED_PART.fullmatch(parts[at]):
            if at != last + 1:
                runs.append([])
            runs[-1].append(parts[at])
            last = at
    return ["".join(run) for run in runs if len(run) > 1]


def _may_be_coded(text: str) -> bool:
    return _SIGN.search(text) is not None or bool(_coded(text))


def _coded(text: str) -> list[str]:
    """Return what may be base64 or hexadecimal in a text: no words of small letters."""
    return [
        token for token in _CODED.findall(text) if not (token[1:].islower() and token.isalpha())
    ]


def _decode(text: str) -> list[str]:
    """Return a text, what it is when decoded, that decoded again, and so on."""
    found = [text]
    for reading in found:  # grows
        for decode in _decoders(reading):
            decoded = decode(reading)
            if decoded and decoded not in found:
                found.append(decoded)
        if len(found) > _FORMS_MAX:
            break
    return found


def split_words(text: str) -> Form:
    """Return the words of a text in one spelling, and all of its letters and digits."""
    words = _ALNUM.findall(fold(text))
    if not words:
        return (text.strip(),), text.strip()
    joined = "".join(words)
    if "0" in joined:
        words = [word.lstrip("0") or "0" for word in words]
    return tuple(words), joined


def fold(text: str) -> str:
    """Return a text in small letters, without marks and signs that cannot be seen."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(
        str(unicodedata.decimal(sign, sign))
        for sign in plain
        if unicodedata.category(sign) not in {"Mn", "Cf"}
    )


def _core(words: tuple[str, ...], joined: str) -> Form:
    if _PREFIXES.isdisjoint(words):
        return words, joined
    while words[0] in _PREFIXES and len(words) > 1:
        words, joined = words[1:], joined[len(words[0]) :]
    return tuple(word for word in words if word not in _PREFIXES) or words, joined


def _decoders(text: str) -> Iterator[Callable[[str], str]]:
    """Yield what may decode a text, by the signs in it."""
    if "%" in text:
        yield unquote
    if "&" in text:
        yield html.unescape
    if "\\" in text:
        yield _unescape
    if "=" in text:
        yield _unquote_printable
    if "xn--" in text or "XN--" in text:
        yield _read_puny
    yield _read_coded


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: _chr(int(found[1] or found[2], 16)), text)


def _chr(number: int) -> str:
    return chr(number) if number <= sys.maxunicode else ""


def _unquote_printable(text: str) -> str:
    return _QUOTED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", text)


def _read_puny(text: str) -> str:
    return _PUNY.sub(lambda found: _try(_depuny, found[1]) or found[0], text)


def _depuny(label: str) -> str:
    return label.encode("ascii").decode("punycode")


def _read_coded(text: str) -> str:
    """Return what stands in base64 or hexadecimal numbers: printable texts alone."""
    found = (_try(read, token) for token in _coded(text) for read in (_debase, _dehex))
    plain = (" ".join(each.split()) for each in found if each)
    return " ".join(each for each in plain if each.isprintable())


def _debase(token: str) -> str:
    padded = token.translate(_URLSAFE) + "=" * (-len(token) % 4)
    return binascii.a2b_base64(padded).decode()


def _dehex(token: str) -> str:
    return binascii.unhexlify(token).decode()


def _try(read: Callable[[str], str], token: str) -> str:
    """Return what a token says in a coding; nothing where it is not in that coding."""
    try:
        return read(token)
    except ValueError:  # also binascii.Error and UnicodeError
        return ""


def split_leaves(document: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401 - any JSON
    """Return the strings and numbers of a document, in order, and the names of its members."""
    values: list[str] = []
    names: list[str] = []
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            values.append(value)
        elif isinstance(value, dict):
            names.extend(value)
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif value is not None and not isinstance(value, bool):
            values.append(number_text(value))
    return values, names


def number_text(value: object) -> str:
    """Return a number as it is compared: 4711.0 is 4711. True and false are as Python has them."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) if abs(value) < 2**53 else f"{Decimal(repr(value)):f}"
    return str(value)
