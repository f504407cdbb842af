"""Arguments to try: drawn from a tool's schema, around values that somebody named.

Seeded: the same random numbers draw the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final

from gateway.adapters.authoring.search_constants import Constants
from gateway.core.pointer import split

Schema = Mapping[str, Any]

_TRIES: Final = 12
_DEPTH_MAX: Final = 6
_ITEMS_MAX: Final = 3
_TYPES: Final = ("number", "string", "null", "boolean", "array", "object")
_USUAL: Final = (0, 1, -1, 2, 10, 100)
_FAR: Final = (2**31, 2**53 - 1, 0.5, 1e-9)
_WORDS: Final = ("", "a", " ", "x@example.org", "https://example.org/x")
_SCHEMAS: Final = ("properties", "items", "anyOf", "oneOf", "allOf", "enum", "const", "$ref")


class Pool:
    """Numbers and strings to draw from: named ones, what lies beside them, and the usual."""

    def __init__(self, constants: Constants, *more: object) -> None:
        """`more`: values that a statement names, or that were recorded."""
        numbers = [*(each for each in more if _is_number(each)), *constants.numbers]
        strings = [*(each for each in more if isinstance(each, str)), *constants.strings]
        self.numbers: Final = tuple(dict.fromkeys([*_around(numbers), *_USUAL, *_FAR]))
        self.named: Final = tuple(dict.fromkeys(strings))
        self.strings: Final = tuple(dict.fromkeys([*_spelled(self.named), *_WORDS]))

    def number(self, random: Random) -> int | float:
        """Draw a number."""
        return random.choice(self.numbers)

    def string(self, random: Random) -> str:
        """Draw a string; those that somebody wrote down come as often as all their variants."""
        return random.choice(self.named if self.named and random.random() < 0.5 else self.strings)  # noqa: PLR2004


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _around(numbers: Iterable[Any]) -> Iterable[int | float]:
    """Yield each number, its neighbours, and parts of it that add up to more."""
    for number in numbers:
        yield from (number, number + 1, number - 1)
        yield from (number // 2, number // 2 + 1, number // 3 + 1, number * 2)
        if not isinstance(number, int):
            yield from (number / 2, int(number))


def _spelled(strings: Iterable[str]) -> Iterable[str]:
    """Yield each string and how it can be written to be taken for another."""
    for text in strings:
        yield from (text, text.lower(), text.upper(), text.title(), f"{text} ", f" {text}")
        if "." in text and " " not in text:
            yield from (f"x@{text}", f"x@{text}.evil.example", f"x@evil{text}")
            yield from (f"https://{text}/", f"x@{text.upper()}")


class Arguments:
    """Draws the arguments of one tool. `accepts`: whether its schema takes them."""

    def __init__(
        self,
        schemas: Sequence[Schema],
        pointers: Iterable[str],
        pool: Pool,
        accepts: Callable[[dict[str, Any]], bool],
    ) -> None:
        """`pointers`: arguments that are named where no schema does, untyped."""
        self._pool: Final = pool
        self._accepts: Final = accepts
        self.schema: Final = _merge(schemas, pointers)

    def draw(self, random: Random) -> dict[str, Any] | None:
        """Draw arguments that the schema takes; None where none were found."""
        for _ in range(_TRIES):
            found = self._draw(self.schema, random, 0)
            if isinstance(found, dict) and self._accepts(found):
                return found
        return None

    def vary(self, arguments: dict[str, Any], random: Random) -> dict[str, Any] | None:
        """Change one member of arguments, recorded or drawn; None where that was not taken."""
        for _ in range(_TRIES):
            names = [*arguments] or [*self.schema.get("properties", {})]
            if not names:
                return None
            name = random.choice(names)
            below = self.schema.get("properties", {}).get(name, {})
            found = {**arguments, name: self._draw(below, random, 1)}
            if self._accepts(found):
                return found
        return None

    def _draw(self, schema: object, random: Random, depth: int) -> Any:  # noqa: ANN401 - JSON
        if not isinstance(schema, Mapping):
            return self._draw_type("string", {}, random, depth)
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return random.choice(list(schema["enum"]))
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self._draw(
                    {**schema, word: None, **random.choice(schema[word])}, random, depth
                )
        return self._draw_type(_type_of(schema, random), schema, random, depth)

    def _resolve(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        found: Any = self.schema
        for part in split(reference[1:]):
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return found if isinstance(found, Mapping) else {}

    def _draw_type(self, kind: str, schema: Schema, random: Random, depth: int) -> Any:  # noqa: ANN401
        if kind in {"number", "integer"}:
            return self._draw_number(kind, schema, random)
        if kind == "string":
            return self._draw_string(schema, random)
        if kind == "array":
            most = min(schema.get("maxItems", _ITEMS_MAX), _ITEMS_MAX)
            count = random.randint(min(schema.get("minItems", 0), most), most)
            return [self._draw(schema.get("items", {}), random, depth + 1) for _ in range(count)]
        if kind == "object":
            return self._draw_object(schema, random, depth)
        return None if kind == "null" else random.random() < 0.5  # noqa: PLR2004

    def _draw_number(self, kind: str, schema: Schema, random: Random) -> int | float:
        bounds = [schema[name] for name in ("minimum", "maximum") if _is_number(schema.get(name))]
        if bounds and random.random() < 0.3:  # noqa: PLR2004
            found = random.choice(bounds)
        else:
            found = self._pool.number(random)
        least, most = schema.get("minimum"), schema.get("maximum")
        if _is_number(least) and found < least:
            found = least
        if _is_number(most) and found > most:
            found = most
        return int(found) if kind == "integer" else found

    def _draw_string(self, schema: Schema, random: Random) -> str:
        known = [each for each in schema.get("examples", ()) if isinstance(each, str)]
        if known and random.random() < 0.5:  # noqa: PLR2004
            return random.choice(known)
        text = self._pool.string(random)
        least = schema.get("minLength", 0)
        return (text or "a").ljust(least, "a") if len(text) < least else text

    def _draw_object(self, schema: Schema, random: Random, depth: int) -> dict[str, Any]:
        needed = set(schema.get("required", ()))
        return {
            name: self._draw(below, random, depth + 1)
            for name, below in schema.get("properties", {}).items()
            if name in needed or (depth < _DEPTH_MAX and random.random() < 0.7)  # noqa: PLR2004
        }


def _type_of(schema: Schema, random: Random) -> str:
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list) and kind:
        return str(random.choice(kind))
    if "properties" in schema:
        return "object"
    if "items" in schema:
        return "array"
    # Untyped: numbers and strings are meant most often, and the rest is what is forgotten.
    return random.choice((*("number", "string") * 4, *_TYPES))


def _merge(schemas: Sequence[Schema], pointers: Iterable[str]) -> dict[str, Any]:
    """Return one object schema to draw from. What is drawn is checked against the real ones."""
    merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for schema in schemas:
        for name in ("$defs", "definitions"):
            merged.setdefault(name, {}).update(schema.get(name) or {})
        merged["required"] += schema.get("required") or ()
        for name, below in (schema.get("properties") or {}).items():
            known = merged["properties"].get(name)
            both = isinstance(known, Mapping) and isinstance(below, Mapping)
            merged["properties"][name] = {**known, **below} if both else below
    for pointer in pointers:
        _name(merged, split(pointer))
    return merged


def _name(schema: dict[str, Any], parts: Sequence[str]) -> None:
    """Have a path of members in the schema, unless a schema names it already."""
    for part in parts:
        if part.isdigit():
            return
        below = schema.setdefault("properties", {}).setdefault(part, {})
        if not isinstance(below, dict) or any(word in below for word in ("type", *_SCHEMAS[1:])):
            return
        schema = below
