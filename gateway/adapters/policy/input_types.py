"""What the published schema of the input promises: which of its values have a type of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

SCHEMA_PATH: Final = "schemas/input.v1.json"
_SCALARS: Final = frozenset({"string", "number", "integer", "boolean"})
_DEPTH_MAX: Final = 16


class InputTypes:
    """Types by path below `input`. A part of a path is a name, or `""` for any member."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._known: dict[tuple[str, ...], bool] = {}

    def is_typed(self, path: tuple[str, ...]) -> bool:
        """Whether what stands there, and below, always is of one type that the gateway gives.

        What agents and tools say (arguments, results, claims) never is.
        """
        if path not in self._known:
            self._known[path] = self._is_typed(self._find(path), 0)
        return self._known[path]

    def _find(self, path: tuple[str, ...]) -> Mapping[str, Any] | None:
        node: object = self._schema
        for part in path:
            node = self._resolve(node)
            if not isinstance(node, Mapping):
                return None
            members = node.get("properties", {})
            if part in members:
                node = members[part]
            elif "items" in node:
                node = node["items"]
            else:
                node = node.get("additionalProperties")
        return self._resolve(node)

    def _resolve(self, node: object) -> Mapping[str, Any] | None:
        if isinstance(node, Mapping) and "$ref" in node:
            found: object = self._schema
            for part in str(node["$ref"]).removeprefix("#/").split("/"):
                found = found.get(part) if isinstance(found, Mapping) else None
            node = found
        return node if isinstance(node, Mapping) else None

    def _is_typed(self, node: Mapping[str, Any] | None, depth: int) -> bool:
        if node is None or depth > _DEPTH_MAX:
            return False
        if "const" in node:
            return True
        if "enum" in node:
            return len({type(value) for value in node["enum"]}) == 1
        kind = node.get("type")
        if not isinstance(kind, str):
            return False  # several types, or none
        if kind in _SCALARS:
            return True
        if kind == "array":
            return self._is_typed(self._resolve(node.get("items")), depth + 1)
        members = [*node.get("properties", {}).values(), node.get("additionalProperties")]
        if kind == "object" and members[-1] is False:
            members.pop()
        return kind == "object" and all(
            self._is_typed(self._resolve(member), depth + 1) for member in members
        )


@cache
def published(schema: str) -> InputTypes:
    """Return the types of a schema, given as JSON. The shipped one is always the same."""
    return InputTypes(json.loads(schema))
