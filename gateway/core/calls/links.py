"""Links in texts that a call sends: each is a place where data may go, and where readers are led.

A manifest names the arguments that people or programs will read (`texts`). What leads out of such a
text is looked up like a value at a sink; the words around it are nobody's business. Nobody knows
which program will show the text, so what any may take for a link is one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from gateway.core.calls.spellings import VALUE_MAX_CHARS, host_of
from gateway.core.pointer import reach, split

TEXT_MAX_CHARS: Final = 65_536
"""So much at a pointer is searched; calls wait for it. What is longer holds an unknown link."""

UNKNOWN: Final = "\0"
"""Stands for links that were not looked for: a value that nobody has seen."""

_LINKS_MAX: Final = 300
"""So many at one pointer are unknown together (`Sightings.classify`), whatever others follow."""

_STARTS_MAX: Final = 1_024
"""So many places at one pointer are looked at; any further are unknown links."""

_LINK_MAX_CHARS: Final = 2_000
_SCHEME_MAX_CHARS: Final = 16

_START: Final = re.compile(
    r":(?:/{2,}+|(?<=[pPsS]:)/?)"
    r"|/(?<![A-Za-z0-9:/]/)/++"
    r"|\.(?<=[wW]{3}\.)(?<![A-Za-z0-9][wW]{3}\.)(?<!//[wW]{3}\.)"
)
"""`scheme://`, `https:`, `//` and `www.`, by the first sign that not every word has."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_WEB: Final = re.compile(r"(?:https?|wss?|ftp)\Z", re.IGNORECASE)
_SLASHES: Final = 2
_NAMES_HOST: Final = re.compile(
    r"[^\s/?#\"<>]{256}|[^\s/?#\"<>]{1,255}(?:[.\u3002\uff0e\uff61]|%2e)[^\s/?#\"<>.]"
    r"|\d{6,10}(?!\w)|\[",
    re.IGNORECASE,
)
"""A host after fewer signs than a link has: one with a dot, by number, or after a long name."""

_LINK: Final = re.compile(r"[^\s\"'<>|`]{1,2000}+")
_AUTHORITY: Final = re.compile(r"[^\s/?#]{0,2000}+")
_HOST: Final = re.compile(r"[^\s\"'<>|`\\^{}/?#]{0,300}+")
_TAIL: Final = ".,;:!?)]*_}{^\\"
"""What ends a sentence or a mark-up rather than a link."""

_CODED: Final = re.compile(r"[&\\]|=\s*+[\"']")
_ZEROS: Final = re.compile(r"(&#x?)0++", re.IGNORECASE)
_IGNORED: Final = re.compile(
    r"&(?:#(?:9|10|13)(?!\d);?|#x[9ad](?![0-9a-f]);?|tab;|newline;|#\d{8,}+;?)", re.IGNORECASE
)
"""Breaks, which browsers drop within a URL, and numbers of no letter."""

_ATTRIBUTE: Final = re.compile(r"=\s*+(?:\"([^\"]*+)\"|'([^']*+)')")
_CONTROLS: Final = str.maketrans("", "", "\t\r\n")


def find_links(arguments: Mapping[str, Any], pointers: Iterable[str]) -> dict[str, list[str]]:
    """Return the links in the texts at each pointer that has any, as values to look up."""
    found = {}
    for pointer in pointers:
        texts = (text for part in reach(arguments, split(pointer)) for text in _texts(part))
        links = list(islice(_links_in(texts), _LINKS_MAX))
        if links:
            found[pointer] = links
    return found


def _links_in(texts: Iterable[str]) -> Iterator[str]:
    left, room = iter(range(_STARTS_MAX)), TEXT_MAX_CHARS
    for text in texts:
        if len(text) > room:
            yield UNKNOWN
        yield from _links(text[:room], left)
        room = max(0, room - len(text))


def _links(text: str, left: Iterator[int]) -> Iterator[str]:
    """Yield the links of a text as it stands, and those that lead elsewhere in another reading."""
    known: set[str] = set()
    for reading in _readings(text):
        hosts: set[str] = set()
        for link in _search(reading, left):
            if (host := host_of(link) or link) not in known:
                hosts.add(host)
                yield link
        known |= hosts


def _readings(text: str) -> Iterator[str]:
    """Yield a text, and what HTML and Markdown make of it where that is something else."""
    yield text
    if _CODED.search(text) is None:
        return
    plain = html.unescape(_IGNORED.sub("", _ZEROS.sub(r"\1", text))) if "&" in text else text
    # Browsers take `\` for `/`, and Markdown takes it away.
    readings = {plain.replace("\\", "/"), plain.replace("\\", "")}
    if plain.translate(_CONTROLS) != plain:
        values = (found[1] or found[2] or "" for found in _ATTRIBUTE.finditer(plain))
        readings.add(" ".join(values).translate(_CONTROLS).replace("\\", "/"))
    yield from sorted(readings - {text})


def _search(text: str, left: Iterator[int]) -> Iterator[str]:
    for start in _START.finditer(text):
        if next(left, None) is None:
            yield UNKNOWN
            return
        if start[0] == ".":
            yield from _without_scheme(text, start.start() - len("www"))
        elif scheme := _scheme_of(text, start):
            yield from _values(scheme, text, start.end())


def _scheme_of(text: str, start: re.Match[str]) -> str:
    """Return the scheme of what may be a link, `http` for none; nothing where it is no link."""
    signs, colon = start[0], start.start()
    before = text[max(0, colon - _SCHEME_MAX_CHARS) : colon] if signs[0] == ":" else ""
    if len(signs) <= _SLASHES and not (
        (signs[0] == "/" or _WEB.search(before)) and _NAMES_HOST.match(text, start.end())
    ):
        return ""
    # What stands before is no reason not to read on: `-https://`, `5https://`.
    scheme = _SCHEME.search(before)
    if scheme is None:
        return "http"
    return scheme[0] if len(scheme[0]) > 1 else ""


def _values(scheme: str, text: str, begin: int) -> Iterator[str]:
    """Yield a link as it is looked up: one that is very long by its host too."""
    found = _LINK.match(text, begin)
    link = f"{scheme}://{found[0].rstrip(_TAIL)}" if found else ""
    if link:
        yield link
    # 1. A user's name before the host, in signs that no link has, or longer than anybody reads.
    authority = _AUTHORITY.match(text, begin)
    name, at, rest = authority[0].rpartition("@") if authority else ("", "", "")
    if len(name) + len(rest) >= _LINK_MAX_CHARS - 1:
        yield UNKNOWN
    host = _HOST.match(rest)
    leads = f"{scheme}://{host[0].rstrip(_TAIL)}" if host else ""
    if len(link) > VALUE_MAX_CHARS or (at and host_of(leads) != host_of(link)):
        yield leads


def _without_scheme(text: str, begin: int) -> Iterator[str]:
    """Yield `www.` and what follows by its host: strangers write it with and without."""
    found = _HOST.match(text, begin)
    host = found[0].partition(":")[0].rstrip(_TAIL) if found else ""
    yield from (host, f"http://{host[len('www.') :]}")
    authority = _AUTHORITY.match(text, begin)
    if authority and "@" in authority[0]:
        yield from _values("http", text, begin)


def _texts(part: object) -> Iterator[str]:
    """Yield every text in a value, names of members too."""
    waiting = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend((*value, *value.values()))
