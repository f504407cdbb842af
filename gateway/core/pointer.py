"""JSON Pointers (RFC 6901) into arguments and results."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final


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
        elif (
            isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value)
        ):
            value = value[int(part)]
        else:
            return MISSING
    return value
