"""A CallToolResult with some of its values taken out, hidden or cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from gateway.core.pointer import is_index, split

REDACTED: Final = "[redacted]"
MASKED: Final = "[masked]"
_STARS: Final = "****"
_EACH: Final = "*"
_WRAPPER: Final = "result"
"""The one member of the object in which servers put what is no object."""
_INDEX_MAX_CHARS: Final = 9
_DEEPEST: Final = 100
_LOST: Final = "[cut by the gateway: {kept} of {whole} bytes are shown]"

Change = Callable[[Any], Any]
"""What becomes of a value that a pointer leads to."""


def redact(_value: object) -> str:
    """Nothing of a value is left."""
    return REDACTED


def mask_last(keep: int) -> Change:
    """Return what hides a value but for its last `keep` characters; a short one altogether."""

    def change(value: Any) -> Any:  # noqa: ANN401 - any JSON
        text = _text_of(value)
        if text is None:
            return MASKED
        return _STARS + text[-keep:] if keep and len(text) >= 2 * keep else _STARS

    return change


def mask_tag(tag: Callable[[str], str]) -> Change:
    """Return what puts a tag in the place of a value: equal ones get the same."""

    def change(value: Any) -> Any:  # noqa: ANN401 - any JSON
        text = _text_of(value)
        return MASKED if text is None else f"tag:{tag(text)}"

    return change


def hide_at(raw: bytes, pointers: Sequence[str], change: Change) -> bytes | None:
    """Return a result changed at `pointers`, with nothing that could repeat what stood there.

    None where it cannot be done. INVARIANT: what is kept was looked into. Members and blocks of
    other kinds are left out.
    """
    body = _load(raw)
    if body is None:
        return None
    paths = [split(pointer) for pointer in pointers]
    structured, blocks = body.get("structuredContent"), body.get("content")
    known = None if structured is None else orjson.dumps(structured, option=orjson.OPT_SORT_KEYS)
    kept: dict[str, Any] = {
        "content": [
            {"type": "text", "text": _hide_text(block, paths, known, change)}
            for block in (blocks if isinstance(blocks, list) else ())
        ]
    }
    if structured is not None:
        kept["structuredContent"] = _changed(structured, paths, change)
    if "isError" in body:
        kept["isError"] = body["isError"] is not False
    return orjson.dumps(kept)


def cut(raw: bytes, max_bytes: int) -> bytes | None:
    """Return a result whose texts have `max_bytes` at most, and a note of it; None if none is read.

    One that is larger loses its structured content, the blocks that do not fit, and all that comes
    after a text that is cut.
    """
    body = _load(raw)
    if body is None or len(raw) <= max_bytes:
        return None if body is None else raw
    blocks = body.get("content")
    kept: list[dict[str, Any]] = []
    used, done = 0, False
    for block in blocks if isinstance(blocks, list) else ():
        part = None if done else _cut_block(block, max_bytes - used)
        if part is not None:
            shown, size = part
            kept.append(shown)
            used += size
            done = shown.get("type") == "text" and shown.get("text") != block.get("text")
    note = _LOST.format(kept=used, whole=len(raw))
    whole: dict[str, Any] = {"content": [*kept, {"type": "text", "text": note}]}
    if "isError" in body:
        whole["isError"] = body["isError"] is not False
    return orjson.dumps(whole)


def cut_at(raw: bytes, pointers: Sequence[str], max_bytes: int) -> bytes | None:
    """Return a result in which texts at `pointers` have `max_bytes` at most; None if none is read.

    Where a list or an object stands, each text in it is cut. So is a text block that is no JSON
    object.
    """
    body = _load(raw)
    if body is None:
        return None
    paths = [split(pointer) for pointer in pointers]

    def change(value: Any) -> Any:  # noqa: ANN401 - any JSON
        return _cut_all(value, max_bytes, _DEEPEST)

    if "structuredContent" in body:
        body["structuredContent"] = _changed(body["structuredContent"], paths, change)
    blocks = body.get("content")
    for block in blocks if isinstance(blocks, list) else ():
        text = block.get("text") if isinstance(block, dict) else None
        if isinstance(text, str):
            document = _load(text)
            block["text"] = (
                _cut_text(text, max_bytes)
                if document is None
                else orjson.dumps(_changed(document, paths, change)).decode()
            )
    return orjson.dumps(body)


def _cut_block(block: Any, left: int) -> tuple[dict[str, Any], int] | None:  # noqa: ANN401 - any JSON
    """Return what fits of a block, and how many bytes that is."""
    if not isinstance(block, dict):
        return None
    text = block.get("text")
    if block.get("type") == "text" and isinstance(text, str):
        shown = _cut_text(text, left)
        return {"type": "text", "text": shown}, len(shown.encode())
    size = len(orjson.dumps(block))
    return (block, size) if size <= left else None


def _cut_text(text: str, max_bytes: int) -> str:
    """Return the start of a text, cut between two characters."""
    data = text.encode()
    return text if len(data) <= max_bytes else data[:max_bytes].decode(errors="ignore")


def _cut_all(value: Any, max_bytes: int, levels: int) -> Any:  # noqa: ANN401 - any JSON
    """Return `value` with each text in it cut; nothing of what is nested deeper than `levels`."""
    if isinstance(value, str):
        return _cut_text(value, max_bytes)
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return None
    if isinstance(value, list):
        return [_cut_all(item, max_bytes, levels - 1) for item in value]
    return {name: _cut_all(item, max_bytes, levels - 1) for name, item in value.items()}


def _hide_text(
    block: object, paths: Sequence[tuple[str, ...]], known: bytes | None, change: Change
) -> str:
    """Return what may be seen of a block: JSON that repeats or replaces the structured content.

    Any other text could say what is hidden, at a place of its own.
    """
    text = block.get("text") if isinstance(block, dict) else None
    document = _load(text) if isinstance(text, str) else None
    if document is None:
        return REDACTED
    if known is not None and orjson.dumps(document, option=orjson.OPT_SORT_KEYS) != known:
        return REDACTED
    return orjson.dumps(_changed(document, paths, change)).decode()


def _changed(document: Any, paths: Sequence[tuple[str, ...]], change: Change) -> Any:  # noqa: ANN401
    for path in paths:
        wrapped = isinstance(document, dict) and document.keys() == {_WRAPPER}
        if wrapped and path and path[0] != _WRAPPER:
            document = {_WRAPPER: change_at(document[_WRAPPER], path, change)}
            if is_index(path[0]):
                continue
        document = change_at(document, path, change)
    return document


def change_at(value: Any, path: tuple[str, ...], change: Change) -> Any:  # noqa: ANN401 - any JSON
    """Return `value` with what `path` leads to changed; `*` leads to each of a list or object.

    Where the shape is not the one that the path supposes, the last value on the way is changed.
    A member that an object does not have is no such case, unless it is an index.
    """
    if not path:
        return change(value)
    name, rest = path[0], path[1:]
    if value is None:
        return None
    if isinstance(value, dict):
        return _change_member(value, name, rest, change)
    if isinstance(value, list) and name == _EACH:
        return [change_at(item, rest, change) for item in value]
    if isinstance(value, list) and is_index(name):
        index = int(name[:_INDEX_MAX_CHARS])
        return [
            change_at(item, rest, change) if at == index else item for at, item in enumerate(value)
        ]
    return change(value)


def _change_member(value: dict[str, Any], name: str, rest: tuple[str, ...], change: Change) -> Any:  # noqa: ANN401
    if name == _EACH:
        return {key: change_at(item, rest, change) for key, item in value.items()}
    if name in value:
        return {**value, name: change_at(value[name], rest, change)}
    return change(value) if is_index(name) else value


def _text_of(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _load(raw: bytes | str) -> dict[str, Any] | None:
    try:
        document = orjson.loads(raw)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
