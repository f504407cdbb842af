"""Argument schemas, closed where they are silent (DESIGN §1; JSON Schema 2020-12).

A schema that names `amount` and does not say what else may come lets an agent pass arguments that
no reviewer has seen. So objects that name their properties and are silent about others are closed
here, with `unevaluatedProperties: false`. Closing only ever refuses more: the upstream's own
schema must accept the arguments, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs
from msgspec import Struct

Schema = dict[str, Any]

_CLOSED: Final = "unevaluatedProperties"
_SAYS: Final = frozenset({"additionalProperties", _CLOSED})
_NAMES: Final = ("properties", "patternProperties")
_SAME_PLACE: Final = ("allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas")
"""Keywords whose schemas speak of the same object; closing inside would refuse its siblings."""
_CHILD: Final = (
    "items",
    "prefixItems",
    "additionalItems",
    "additionalProperties",
    _CLOSED,
    "unevaluatedItems",
)
_NAMED_CHILDREN: Final = ("properties", "patternProperties")
_DEFINITIONS: Final = ("$defs", "definitions")
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_NAMED: Final = frozenset({*_NAMED_CHILDREN, *_DEFINITIONS, "dependentSchemas"})
"""Keywords whose value maps names, which are no keywords, to schemas."""
_OLD: Final = frozenset({"$schema", "id", "$id", "dependencies", "additionalItems"})
_BOUNDS: Final = frozenset({"exclusiveMinimum", "exclusiveMaximum"})
_DATA: Final = frozenset({"default", "examples", "const", "enum"})
_LEFT_ALONE: Final = _DATA | {"not", "if", "contains"}
_UNKNOWN: Final[Schema] = {"properties": {}}
"""Stands for what a reference leads to that cannot be found here: closed, it only refuses more."""
_BACKTRACKS_MAX: Final = 10_000
"""Steps that one pattern may take: a schema must not be able to stall the gateway (ReDoS)."""

_WHERE_MAX: Final = 200
_TOLD_MAX: Final = 3

_DIALECTS: Final[dict[str, Any]] = {
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
}
_CLOSABLE: Final = (jsonschema_rs.Draft202012Validator, jsonschema_rs.Draft201909Validator)


class CompiledSchema(Struct, frozen=True):
    """Implements `catalog.SchemaCheck`. Every validator must accept the arguments."""

    validators: tuple[Any, ...]

    def failure(self, arguments: Mapping[str, Any]) -> str | None:
        """Return where and which rules `arguments` break (never their values), or None."""
        for validator in self.validators:
            if not validator.is_valid(arguments):
                return _explain(validator, arguments)
        return None


def _explain(validator: Any, arguments: Mapping[str, Any]) -> str:  # noqa: ANN401 - five classes
    return "; ".join(_tell(error) for error in islice(validator.iter_errors(arguments), _TOLD_MAX))


def _tell(error: jsonschema_rs.ValidationError) -> str:
    """Return what an agent needs to mend its call: which argument, and what the schema says."""
    kind: Any = error.kind  # a class for each keyword, with members of its own
    path, rule = [*error.instance_path], kind.name
    if rule == "required":
        path.append(kind.property)
    elif rule in _SAYS:
        path.append(kind.unexpected[0])
        rule = "not in the schema"
    elif rule == "falseSchema":
        rule = "not allowed"
    elif rule == "type":
        rule = f"type {' or '.join(sorted(kind.types))}"
    where = "".join(f"/{part}" for part in path)[:_WHERE_MAX]
    return f"{where or 'the arguments'}: {rule}"


def compile_schema(schema: object, reviewed: Mapping[str, Any] | None = None) -> CompiledSchema:
    """Compile an input schema, and the narrower one that a reviewer may have added.

    Raises `ValueError` saying why a schema cannot be used.
    """
    validators = _compile(schema)
    if reviewed is not None:
        if reviewed.get("type") != "object":
            raise ValueError("`in` of its manifest is not of type `object`; add `type: object`")
        validators += _compile(dict(reviewed))
    return CompiledSchema(validators)


def _compile(schema: object) -> tuple[Any, ...]:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError("its inputSchema is missing or is not of type `object`")
    for reference in _references(schema):
        # 1. Nothing is fetched: a schema must not make the gateway ask other hosts (SSRF), and what
        #    it means must not change after its digest was approved.
        if not reference.startswith("#"):
            raise ValueError(f"it refers to `{reference[:100]}`; only `#…` is followed")
    declared = str(schema.get("$schema", "https://json-schema.org/draft/2020-12/schema"))
    dialect = _DIALECTS.get(declared.removesuffix("#"))
    if dialect is None:
        raise ValueError(f"it is written in an unknown dialect, `{declared[:100]}`")
    if dialect in _CLOSABLE:
        own, closed = _build(dialect, schema), close(schema)
        return (own,) if closed == schema else (own, _build(dialect, closed))
    # 2. Older dialects cannot say `unevaluatedProperties`, and a validator would ignore it: the
    #    closed schema is translated, so that silence is not taken for leave.
    modern = close(_modernise(schema))
    return (_build(dialect, schema), _build(jsonschema_rs.Draft202012Validator, modern))


def _build(dialect: Any, schema: Schema) -> Any:  # noqa: ANN401 - five classes
    try:
        return dialect(
            schema,
            offline=True,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS_MAX),
        )
    except (ValueError, jsonschema_rs.ReferencingError):
        raise ValueError("its inputSchema is not a valid JSON Schema") from None


def _references(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for keyword, value in node.items():
            if keyword in _NAMED and isinstance(value, dict):
                yield from _references(list(value.values()))
            elif keyword in _REFERENCES:
                yield value if isinstance(value, str) else ""
            elif keyword not in _DATA:
                yield from _references(value)


def close(schema: Schema) -> Schema:
    """Return `schema` closed: itself, and every object in it that names its properties."""
    return {**_close_children(schema, schema), **_closing(schema, schema, top=True)}


def _closing(schema: Schema, root: Schema, *, top: bool = False) -> Schema:
    silent = not _SAYS & schema.keys()
    return {_CLOSED: False} if silent and (top or _declares(schema, root, set())) else {}


def _declares(schema: object, root: Schema, seen: set[tuple[int, str]]) -> bool:
    """Whether a schema names properties, itself or by what speaks of the same object."""
    if not isinstance(schema, dict):
        return False
    if any(keyword in schema for keyword in _NAMES):
        return True
    root = _base(schema, root)
    for keyword in _REFERENCES & schema.keys():
        reference = (id(root), str(schema[keyword]))
        if reference not in seen:
            seen.add(reference)
            if _declares(*_resolve(root, reference[1]), seen):
                return True
    return any(
        _declares(part, root, seen) for keyword in _SAME_PLACE for part in _parts(schema, keyword)
    )


def _parts(schema: Schema, keyword: str) -> list[Any]:
    found = schema.get(keyword)
    if keyword == "dependentSchemas" and isinstance(found, dict):
        return list(found.values())
    return found if isinstance(found, list) else [found]


def _base(schema: Schema, root: Schema) -> Schema:
    """Return what the references in `schema` count from: itself, where it has an id of its own."""
    return schema if isinstance(schema.get("$id"), str) else root


def _resolve(root: Schema, reference: str) -> tuple[object, Schema]:
    """Return what a reference leads to, and what the references in there count from."""
    node: Any = root
    pointer = unquote(reference.removeprefix("#"))
    if pointer and not pointer.startswith("/"):
        return _UNKNOWN, root  # an anchor
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return _UNKNOWN, root
        root = _base(node, root) if isinstance(node, dict) else root
    return node, root


def _close_here(schema: object, root: Schema) -> Any:  # noqa: ANN401 - a schema may be a boolean
    """Close a schema that speaks of a value of its own, or each of a list of such."""
    if isinstance(schema, list):
        return [_close_here(item, root) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {**_close_children(schema, root), **_closing(schema, root)}


def _close_children(schema: object, root: Schema) -> Any:  # noqa: ANN401 - as above
    """Close what is inside, and leave the object itself as it is.

    `not`, `if` and `contains` are left alone: to narrow them could let more through. Where no
    keyword is known, as in `components`, schemas may stand all the same, for references.
    """
    if isinstance(schema, list):
        return [_close_children(item, root) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed, root = dict(schema), _base(schema, root)
    for keyword, value in schema.items():
        if keyword in _CHILD:
            closed[keyword] = _close_here(value, root)
        elif keyword in _NAMED_CHILDREN and isinstance(value, dict):
            closed[keyword] = {name: _close_here(item, root) for name, item in value.items()}
        elif keyword in (*_DEFINITIONS, "dependentSchemas") and isinstance(value, dict):
            closed[keyword] = {name: _close_children(item, root) for name, item in value.items()}
        elif keyword not in _LEFT_ALONE:
            closed[keyword] = _close_children(value, root)
    return closed


def _modernise(node: Any) -> Any:  # noqa: ANN401 - JSON has any type
    """Return a schema of draft 4, 6 or 7 in the words of 2020-12, with what has no words left out.

    The validator of the schema's own dialect judges the arguments as well.
    """
    if isinstance(node, list):
        return [_modernise(item) for item in node]
    if not isinstance(node, dict):
        return node
    out: Schema = {}
    for keyword, value in node.items():
        if keyword in _NAMED and isinstance(value, dict):
            out[keyword] = {name: _modernise(item) for name, item in value.items()}
        elif keyword in _DATA:
            out[keyword] = value
        elif keyword not in _OLD and not (keyword in _BOUNDS and isinstance(value, bool)):
            out[keyword] = _modernise(value)
    if isinstance(out.get("items"), list):
        out["prefixItems"] = out.pop("items")
    return out
