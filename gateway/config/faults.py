"""Telling pydantic's errors as mistakes of a file, and looking past them for further ones."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.config.checks import suggest
from gateway.config.file import Key, KeyPath
from gateway.config.models import ConfigShape

_KEY: Final = "[key]"
"""How pydantic marks that not a value but its key in a mapping is wrong."""

_SHAPE: Final = "should be a mapping of keys to values"
_TOLD: Final = {
    "dict_type": _SHAPE,
    "int_type": "should be a whole number",
    "literal_error": "is not of the right form",
    "model_attributes_type": _SHAPE,
    "model_type": _SHAPE,
    "path_type": "should be a path",
    "string_pattern_mismatch": "is not of the right form",
    "string_type": "should be a text",
    "tuple_type": "should be a list",
}
"""What is said of a type of fault; of others pydantic's own words are taken."""

_UNIONS: Final = (Union, types.UnionType)


def explain(faults: Sequence[ErrorDetails], data: Any) -> Iterator[tuple[KeyPath, str, str]]:  # noqa: ANN401 - YAML
    """Yield path, message and hint, once for each place. Values are in none of them."""
    told: set[KeyPath] = set()
    for fault in faults:
        path = _path_of(fault, data)
        if path not in told:
            told.add(path)
            yield path, *_explain(fault, path, _value_at(data, path))


def find_texts(faults: Sequence[ErrorDetails], data: Any) -> list[KeyPath]:  # noqa: ANN401 - YAML
    """Return the places at which a text is expected, and something else stands."""
    return [_path_of(fault, data) for fault in faults if fault["type"] == "string_type"]


class Pruned:
    """What was cut out of the data so that the rest could be read."""

    def __init__(self) -> None:
        self.paths: set[KeyPath] = set()

    def remove(self, data: Any, faults: Sequence[ErrorDetails]) -> None:  # noqa: ANN401 - YAML
        """Cut the place of each fault out of `data`.

        INVARIANT: this cuts something, because no key at the top is required; so cutting until
        the rest is valid comes to an end.
        """
        blamed = {_blame(fault, data) for fault in faults}
        inner = {p for p in blamed if not any(p[:n] in blamed for n in range(1, len(p)))}
        self.paths |= {self.original(path) for path in inner}
        for path in sorted(inner, key=_from_the_back, reverse=True):
            holder = data
            for key in path[:-1]:
                holder = holder[key]
            del holder[path[-1]]

    def original(self, path: KeyPath) -> KeyPath:
        """Return where `path` of the pruned data stands in the data as written."""
        found: KeyPath = ()
        for key in path:
            if isinstance(key, int):
                gone = {p[-1] for p in self.paths if p[:-1] == found}
                kept = (n for n in range(key + len(gone) + 1) if n not in gone)
                key = next(n for rank, n in enumerate(kept) if rank == key)  # noqa: PLW2901
            found = (*found, key)
        return found


def _explain(fault: ErrorDetails, path: KeyPath, value: Any) -> tuple[str, str]:  # noqa: ANN401 - YAML
    kind, loc = fault["type"], fault["loc"]
    key = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return f"unknown key `{key}`", suggest(key, _fields_at(loc[:-1]))
    if loc[-1] == _KEY:
        return f"`{key}` cannot be a name", "use lower-case letters, digits and `-`"
    described = _description(loc)
    hint = f"expected {described}" if described else "see `countersign config schema`"
    if kind == "missing":
        return f"`{key}` is missing", f"add it: {described}" if described else hint
    if kind == "union_tag_not_found":
        discriminator = fault["ctx"]["discriminator"].strip("'")
        return "nothing says what this is", f"add `{discriminator}`"
    if value is None:
        return "has no value", f"{hint}; or leave the key out"
    if kind == "bool_type":
        return "should be `true` or `false`", "write one of the two"
    if kind == "string_type" and isinstance(value, int | float):
        return "should be a text", f"write it in quotes; {hint}"
    if kind in _TOLD:
        return _TOLD[kind], hint
    message = (
        fault["msg"]
        .replace("Input ", "")
        .replace("String ", "")
        .replace("Tuple ", "")
        .replace("'", "`")
    )
    return message[:1].lower() + message[1:], hint


def _path_of(fault: ErrorDetails, data: Any) -> KeyPath:  # noqa: ANN401 - YAML has any type
    """Return the place in the file: pydantic's own, without the names of its union members."""
    loc = fault["loc"]
    path: KeyPath = ()
    for number, key in enumerate(loc):
        if get_origin(_walk(loc[:number])[0]) in _UNIONS:
            continue
        held = isinstance(data, dict) and key in data
        if held or (isinstance(data, list) and isinstance(key, int)):
            path, data = (*path, key), data[key]
    return (*path, loc[-1]) if fault["type"] == "missing" else path


def _value_at(data: Any, path: KeyPath) -> Any:  # noqa: ANN401 - YAML has any type
    """Return what stands at a path, or its own end where nothing does."""
    for key in path:
        if isinstance(data, dict) and key not in data:
            return key
        data = data[key]
    return data


def _blame(fault: ErrorDetails, data: Any) -> KeyPath:  # noqa: ANN401 - YAML has any type
    path = _path_of(fault, data)
    return path[:-1] if fault["type"] == "missing" else path


def _from_the_back(path: KeyPath) -> tuple[tuple[int, str], ...]:
    """Sort items of one list by their number, so that cutting one does not move the next."""
    return tuple((key, "") if isinstance(key, int) else (-1, key) for key in path)


def _fields_at(loc: tuple[Key, ...]) -> tuple[str, ...]:
    annotation, _ = _walk(loc)
    return tuple(annotation.model_fields) if _is_model(annotation) else ()


def _description(loc: tuple[Key, ...]) -> str | None:
    _, info = _walk(loc)
    return None if info is None else info.description


def _walk(loc: tuple[Key, ...]) -> tuple[Any, FieldInfo | None]:
    """Return the annotation at `loc`, and the innermost field on the way there."""
    annotation: Any = ConfigShape
    info: FieldInfo | None = None
    for key in loc:
        annotation = _bare(annotation)
        if _is_model(annotation):
            info = annotation.model_fields.get(key, info)
            annotation = info.annotation if key in annotation.model_fields and info else None
        elif get_origin(annotation) in _UNIONS:
            annotation = _member_of(annotation, key)
        else:
            inner = [one for one in get_args(annotation) if one is not Ellipsis]
            annotation = inner[-1] if inner else None  # of a tuple its items, of a dict its values
    return _bare(annotation), info


def _bare(annotation: Any) -> Any:  # noqa: ANN401 - an annotation can be anything
    """Return an annotation without its metadata, and an optional one without its None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in _UNIONS:
        some = [one for one in get_args(annotation) if one is not type(None)]
        return _bare(some[0]) if len(some) == 1 else annotation
    return annotation


def _member_of(annotation: Any, tag: Key) -> Any:  # noqa: ANN401 - an annotation can be anything
    for member in get_args(annotation):
        fields = member.model_fields.values() if _is_model(member) else ()
        if any(tag in get_args(field.annotation) for field in fields):
            return member
    return None


def _is_model(annotation: Any) -> bool:  # noqa: ANN401 - an annotation can be anything
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
