"""JSON Pointers (RFC 6901) into arguments and results."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

EACH: Final = "*"
"""A part that leads to each of a list or object, where a pointer may have one."""

_INDEX_MAX_CHARS: Final = 9
"""No list is so long that an index into it has more digits."""


class _Missing:
    """Marks that a pointer leads nowhere; not equal to any JSON value."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@lru_cache(maxsize=4096)
def split(pointer: str) -> tuple[str, ...]:
    """`/a/b~1c` → (`a`, `b/c`). Raises `ValueError` when it does not start with `/`."""
    if pointer == "":
        return ()
    if not pointer.startswith("/"):
        raise ValueError(f"`{pointer}` is no JSON Pointer; start it with `/`")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def resolve(document: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON has any type
    """Return what `pointer` leads to, or `MISSING`."""
    return walk(document, split(pointer))


def walk(document: Any, parts: tuple[str, ...]) -> Any:  # noqa: ANN401 - JSON has any type
    """Return what a pointer, split into `parts`, leads to, or `MISSING`."""
    value = document
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and is_index(part):
            value = _item(value, part)
        else:
            return MISSING
    return value


def is_index(part: str) -> bool:
    """Whether a part may lead into a list."""
    return part.isascii() and part.isdigit()


def _item(items: list[Any], index: str) -> Any:  # noqa: ANN401 - any JSON
    at = int(index) if len(index) <= _INDEX_MAX_CHARS else len(items)
    return items[at] if at < len(items) else MISSING


def reach(document: Any, parts: tuple[str, ...]) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    """Yield all that a pointer leads to in what strangers wrote; `*` is each of a list or object.

    Where the shape is another one than it supposes, that is the last value on the way: a tool may
    take a text for an object. A member that an object lacks, and what is in null, is not there.
    """
    if not parts:
        yield document
        return
    name, rest = parts[0], parts[1:]
    if isinstance(document, dict | list) and name == EACH:
        for each in document.values() if isinstance(document, dict) else document:
            yield from reach(each, rest)
    elif isinstance(document, dict) and (name in document or not is_index(name)):
        if name in document:
            yield from reach(document[name], rest)
    elif isinstance(document, list) and is_index(name):
        if (item := _item(document, name)) is not MISSING:
            yield from reach(item, rest)
    elif document is not None:
        yield document
