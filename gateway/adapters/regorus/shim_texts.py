"""Functions of texts as OPA 1.22 answers them (v1/topdown/strings.go, encoding.go, semver.go).

INVARIANT: what these return, OPA returns for the same arguments. Else they raise, which denies.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.adapters.regorus.shim_natives import RefusedError, text_of, whole_of

_INT64: Final = 1 << 63
_QUERY: Final = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_VERSION: Final = re.compile(
    r"v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_LEADING_ZERO: Final = re.compile(r"0[0-9]+", re.ASCII)


# --- letters ----------------------------------------------------------------------------------


def lower(text: object) -> str:
    """Return a text in small letters, each by itself (Go's `unicode.ToLower`)."""
    given = text_of(text)
    return given.lower() if given.isascii() else "".join(map(_lower_one, given))


def upper(text: object) -> str:
    """Return a text in capitals, each by itself (Go's `unicode.ToUpper`): `ß` stays."""
    given = text_of(text)
    return given.upper() if given.isascii() else "".join(map(_upper_one, given))


@lru_cache(maxsize=4096)
def _lower_one(letter: str) -> str:
    return "i" if letter == "\u0130" else letter.lower()


@lru_cache(maxsize=4096)
def _upper_one(letter: str) -> str:
    found = letter.upper()
    if len(found) == 1:
        return found
    # Letters whose capitals are several; one by one they are what a title begins with, or stay.
    title = letter.title()
    return title if len(title) == 1 else letter


# --- places -----------------------------------------------------------------------------------


def substring(text: object, offset: object, length: object) -> str:
    """Return a part of a text; a negative length means up to its end."""
    given, start, size = text_of(text), whole_of(offset), whole_of(length)
    if start < 0:
        raise RefusedError("a part of a text begins before it")
    return given[start:] if size < 0 else given[start : start + size]


def indexof(text: object, part: object) -> int:
    """Return where a text has a part, -1 if nowhere."""
    return text_of(text).find(_searched(part))


def indexof_n(text: object, part: object) -> list[int]:
    """Return every place where a text has a part."""
    given, searched = text_of(text), _searched(part)
    found, at = [], given.find(searched)
    while at >= 0:
        found.append(at)
        at = given.find(searched, at + 1)
    return found


def _searched(part: object) -> str:
    if not text_of(part):
        raise RefusedError("an empty text is everywhere")
    return text_of(part)


def count(text: object, part: object) -> int:
    """Return how often a text has a part, counted without overlaps."""
    return text_of(text).count(text_of(part))


def replace(text: object, part: object, value: object) -> str:
    """Return a text with every part replaced."""
    return text_of(text).replace(_searched(part), text_of(value))


def replace_n(changes: object, text: object) -> str:
    """Return a text with parts replaced, all at once; of two that begin alike the lesser counts."""
    if not isinstance(changes, dict) or not all(isinstance(each, str) for each in changes.values()):
        raise TypeError("an object of texts is needed")
    parts = sorted(map(_searched, changes), key=str.encode)
    if not parts:
        return text_of(text)
    return re.sub("|".join(map(re.escape, parts)), lambda found: changes[found[0]], text_of(text))


# --- encodings --------------------------------------------------------------------------------


def base64_is_valid(text: object) -> bool:
    """Whether a text is base64 with its padding. Line breaks are looked over, as by Go."""
    if not isinstance(text, str):
        return False
    given = text.replace("\r", "").replace("\n", "")
    return len(given) % 4 == 0 and re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", given) is not None


def base64_decode(text: object) -> str:
    """Return what base64 stands for."""
    given = text_of(text)
    if not base64_is_valid(given):
        raise RefusedError("a text is no base64")
    return _decoded(base64.b64decode(given))


def base64url_decode(text: object) -> str:
    """Return what base64url stands for, with its padding or without."""
    given = text_of(text)
    if re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", given) is None or (
        given.endswith("=") and len(given) % 4
    ):
        raise RefusedError("a text is no base64url")
    try:
        return _decoded(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
    except binascii.Error:
        raise RefusedError("a text is no base64url") from None


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        # OPA keeps the bytes, which then are no text to anybody else.
        raise RefusedError("what was decoded is no text") from None


def urlquery_encode(text: object) -> str:
    """Return a text as it stands in a query (Go's `url.QueryEscape`)."""
    return quote_from_bytes(text_of(text).encode(), safe=" ").replace(" ", "+")


def urlquery_decode(text: object) -> str:
    """Return what stands in a query (Go's `url.QueryUnescape`)."""
    given = text_of(text)
    if _QUERY.fullmatch(given) is None:
        raise RefusedError("`%` is followed by no two digits")
    return _decoded(unquote_to_bytes(given.replace("+", " ")))


def urlquery_encode_object(fields: object) -> str:
    """Return an object as a query, by name."""
    if not isinstance(fields, dict):
        raise TypeError("an object is needed")
    found = []
    for name in sorted(map(text_of, fields), key=str.encode):
        values = fields[name] if isinstance(fields[name], list) else [fields[name]]
        found += [f"{urlquery_encode(name)}={urlquery_encode(value)}" for value in values]
    return "&".join(found)


def urlquery_decode_object(text: object) -> dict[str, list[str]]:
    """Return the fields of a query."""
    found: dict[str, list[str]] = {}
    for part in text_of(text).split("&"):
        if ";" in part:
            raise RefusedError("a query has a `;`")
        if part:
            name, _, value = part.partition("=")
            found.setdefault(urlquery_decode(name), []).append(urlquery_decode(value))
    return found


# --- versions ---------------------------------------------------------------------------------


def semver_is_valid(text: object) -> bool:
    """Whether a text is a version; a `v` before it is looked over."""
    return isinstance(text, str) and _read_version(text) is not None


def semver_compare(one: object, other: object) -> int:
    """Return -1, 0 or 1: which of two versions comes first."""
    left, right = _read_version(text_of(one)), _read_version(text_of(other))
    if left is None or right is None:
        raise RefusedError("a text is no version")
    return (left > right) - (left < right)


def _read_version(text: str) -> tuple[list[int], list[tuple[int, int, str]]] | None:
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    numbers = [int(each) for each in found.groups()[:3]]
    marks = found[4].split(".") if found[4] else []
    if max(numbers) >= _INT64 or any(map(_LEADING_ZERO.fullmatch, marks)):
        return None
    if any(each.isdigit() and int(each) >= _INT64 for each in marks):
        raise RefusedError("a version has a number beyond 64 bits")
    # What is not marked comes after all that is; numbers come before words.
    ranks = [(0, int(each), "") if each.isdigit() else (1, 0, each) for each in marks]
    return numbers, ranks or [(2, 0, "")]


SHIMS: Final[dict[str, tuple[int, Any]]] = {
    "base64.decode": (1, base64_decode),
    "base64.is_valid": (1, base64_is_valid),
    "base64url.decode": (1, base64url_decode),
    "indexof": (2, indexof),
    "indexof_n": (2, indexof_n),
    "lower": (1, lower),
    "replace": (3, replace),
    "semver.compare": (2, semver_compare),
    "semver.is_valid": (1, semver_is_valid),
    "strings.count": (2, count),
    "strings.replace_n": (2, replace_n),
    "substring": (3, substring),
    "upper": (1, upper),
    "urlquery.decode": (1, urlquery_decode),
    "urlquery.decode_object": (1, urlquery_decode_object),
    "urlquery.encode": (1, urlquery_encode),
    "urlquery.encode_object": (1, urlquery_encode_object),
}
