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
    value = document
    for part in split(pointer):
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def replace(document: Any, pointer: str, value: Any) -> None:  # noqa: ANN401 - JSON has any type
    """Put `value` where `pointer` leads to, if that place exists."""
    parts = split(pointer)
    if not parts:
        return
    parent = resolve(document, "".join("/" + p.replace("~", "~0").replace("/", "~1") for p in parts[:-1]))
    last = parts[-1]
    if isinstance(parent, dict) and last in parent:
        parent[last] = value
    elif isinstance(parent, list) and last.isdigit() and int(last) < len(parent):
        parent[int(last)] = value
