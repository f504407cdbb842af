"""Links in texts that a call sends: each is a place where data may go, and where readers are led.

A manifest names the arguments that people or programs will read (`texts`). What leads out of such a
text is looked up like a value at a sink; the words around it are nobody's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.core.calls.outputs import parts_at
from gateway.core.calls.spellings import VALUE_MAX_CHARS, host_of
from gateway.core.pointer import split

TEXT_MAX_CHARS: Final = 65_536
"""So much of a text is searched; calls wait for it. What is longer holds a link that is unknown."""

UNKNOWN: Final = "\0"
"""Stands for links that were not looked for: a value that nobody has seen."""

_SIGN: Final = re.compile(r"://|www\.", re.IGNORECASE)
_LINK: Final = re.compile(
    r"(?<![A-Za-z0-9+.-])(?:[A-Za-z][A-Za-z0-9+.-]{1,15}://|www\.)[^\s\"'<>|\\^`{}]{1,2000}+",
    re.IGNORECASE,
)
_HOST_END: Final = re.compile(r"[/?#:]")
_TAIL: Final = ".,;:!?)]*_"
"""What ends a sentence or a mark-up rather than a link."""


def find_links(arguments: Mapping[str, Any], pointers: Iterable[str]) -> dict[str, list[str]]:
    """Return the links in the texts at each pointer that has any, as values to look up."""
    found = {}
    for pointer in pointers:
        texts = (text for part in parts_at(arguments, split(pointer)) for text in _texts(part))
        links = [link for text in texts for link in _links(text)]
        if links:
            found[pointer] = links
    return found


def _links(text: str) -> Iterator[str]:
    if len(text) > TEXT_MAX_CHARS:
        yield UNKNOWN
        text = text[:TEXT_MAX_CHARS]
    if _SIGN.search(text) is None:
        return
    for match in _LINK.finditer(text):
        yield from _values(match[0].rstrip(_TAIL))


def _values(link: str) -> Iterator[str]:
    """Yield a link as it is looked up: one that is very long, or has no scheme, by its host."""
    scheme, sign, _ = link.partition("://")
    if not sign:
        host = _HOST_END.split(link, maxsplit=1)[0]
        yield from (host, f"http://{host[len('www.') :]}")  # strangers write it with and without
    elif len(link) > VALUE_MAX_CHARS:
        yield f"{scheme}://{host_of(link)}"
    else:
        yield link


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
