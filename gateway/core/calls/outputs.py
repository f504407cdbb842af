"""What one output of a tool says: every value in it, by a number that leads back to no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from msgspec import Struct

from gateway.core.calls.readings import Form, build_forms, decode_all, number_text, split_leaves
from gateway.core.calls.spellings import (
    VALUE_MAX_CHARS,
    WORD,
    addr_spec,
    canonical,
    loose,
    parted_numbers,
    pieces,
    plain_signs,
    site_of,
    tokens,
)
from gateway.core.pointer import split

READ_MAX_BYTES: Final = 131_072
"""An output that is larger is not looked through."""

_SET_MAX: Final = 8_192
_NO_TEXTS: Final = frozenset({"type", "data", "blob"})
"""Members of a block that hold no text: what it is, pictures, sounds and coded files."""


class Vouched(Struct, frozen=True):
    """A value that a trusted output held: the ways to read it, and the domain that it leads to."""

    forms: tuple[Form, ...]
    site: str = ""


class Output(Struct, frozen=True):
    """What one output says, by the numbers of values. `whole`: all of it was looked through."""

    trusted: Mapping[int, Vouched]
    untrusted: frozenset[int]
    whole: bool = True
    fresh: frozenset[int] | None = None
    """Of the trusted, what the family has not said itself (`Sightings.sift`); None: to be found."""
    sites: frozenset[int] = frozenset()
    """The domains that these lead to."""


def read_output(
    body: bytes, *, untrusted: bool, trusted_at: Sequence[str] = (), structured_only: bool = False
) -> Output:
    """Return what a CallToolResult (JSON) says.

    `untrusted`: strangers write to where it comes from, but for what `trusted_at` leads to: JSON
    Pointers into the structured content, `*` for each of a list. Without structured content, they
    lead into its one text, if that is JSON and the tool promises no other (`structured_only`).
    """
    if len(body) > READ_MAX_BYTES:
        return Output({}, frozenset(), whole=False)
    try:
        document = orjson.loads(body)
    except ValueError:
        return Output({}, frozenset(), whole=False)
    if not untrusted:
        return Output(_strict(document), frozenset())
    seen, whole = _seen(document)
    return Output(_trusted_in(document, trusted_at, structured_only=structured_only), seen, whole)


def find_texts(body: Mapping[str, Any], *, is_error: bool) -> list[str]:
    """Return the texts of a CallToolResult, or of a JSON-RPC error, that an agent gets to read.

    Of a text block its text; of any other (a resource, a link to one) every text in it.
    """
    if is_error:
        return split_leaves([body.get("message"), body.get("data")])[0]
    blocks = body.get("content")
    found: list[str] = []
    for block in blocks if isinstance(blocks, list) else ():
        text = block.get("text") if isinstance(block, dict) else None
        found += [text] if isinstance(text, str) else _readable(block)
    return found


def _readable(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _readable(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in _NO_TEXTS:
                yield from _readable(each)


def _trusted_in(
    document: Any,  # noqa: ANN401 - any JSON
    pointers: Sequence[str],
    *,
    structured_only: bool,
) -> dict[int, Vouched]:
    """Return what stands at a manifest's `trusted` pointers: each value as one, whatever it says.

    Strangers choose the texts that stand beside each other in an answer, so there is one place to
    look: the structured content, or the only text of a tool that has none.
    """
    if not pointers or not isinstance(document, dict):
        return {}
    body = document.get("structuredContent")
    if body is None and not structured_only:
        blocks = document.get("content")
        only = blocks[0] if isinstance(blocks, list) and len(blocks) == 1 else None
        text = only.get("text") if isinstance(only, dict) else None
        body = _as_json(text) if isinstance(text, str) else None
    found: set[str] = set()
    for part in (part for pointer in pointers for part in parts_at(body, split(pointer))):
        for value in _short(split_leaves(part)[0]):
            found.add(canonical(value))
            if (address := addr_spec(value)) is not None:
                found.add(canonical(address))
    return _vouch(found)


def _strict(document: Any) -> dict[int, Vouched]:  # noqa: ANN401 - any JSON
    """What an output may vouch for: values, and addresses and the like within texts."""
    found: set[str] = set()
    for text in _texts(document):
        if len(text) <= VALUE_MAX_CHARS:
            found.add(canonical(text))
        if (inner := _as_json(text)) is not None:
            found.update(map(canonical, _short(_texts(inner))))
        for piece, _ in pieces(text):
            found.update(tokens(piece))
    return _vouch(found)


def _vouch(values: Iterable[str]) -> dict[int, Vouched]:
    return {hash(value): Vouched(build_forms(value), site_of(value)) for value in values}


def _seen(document: Any) -> tuple[frozenset[int], bool]:  # noqa: ANN401 - any JSON
    """Everything that can be made out in a document, in small letters; and whether that is all."""
    found: set[str] = set()
    whole = True
    for text in _texts(document):
        if len(text) <= VALUE_MAX_CHARS:
            found.add(whole_text := loose(canonical(text)).casefold())
            found.update(WORD.findall(whole_text))
        for piece, ends in pieces(text):
            whole = whole and ends
            found.update(WORD.findall(piece.casefold()))
            for token in tokens(piece):
                found.add(loose(token).casefold())
                found.update(WORD.findall(loose(token).casefold()))
            found.update(parted_numbers(piece))
            plain = plain_signs(piece)
            for reading in (*decode_all(piece)[0], *([plain] if plain != piece else ())):
                found.update(WORD.findall(reading.casefold()))
                found.update(loose(token).casefold() for token in tokens(reading))
        if (inner := _as_json(text)) is not None:
            for each in _short(_texts(inner)):
                found.add(loose(canonical(each)).casefold())
                found.update(WORD.findall(loose(canonical(each)).casefold()))
        if len(found) > _SET_MAX:
            return frozenset(map(hash, found)), False
    return frozenset(map(hash, found)), whole


def _short(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in texts if len(text) <= VALUE_MAX_CHARS)


def _as_json(text: str) -> Any:  # noqa: ANN401 - any JSON
    if text[:1] not in "{[" or not text:
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _texts(document: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Yield each string and number of a document, and the names of its members."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield number_text(value)


def parts_at(value: Any, path: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    """Yield what a path leads to; `*` leads to each of a list."""
    if not path:
        if value is not None:
            yield value
        return
    name, rest = path[0], path[1:]
    if isinstance(value, dict):
        if name in value:
            yield from parts_at(value[name], rest)
    elif isinstance(value, list):
        if name == "*":
            for each in value:
                yield from parts_at(each, rest)
        elif name.isascii() and name.isdigit() and int(name[:9]) < len(value):
            yield from parts_at(value[int(name[:9])], rest)
