"""What the published schema of the input promises: which of its values have a type of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from gateway.adapters.policy.gate.policy_kinds import (
    ARRAY,
    BOOLEAN,
    NUMBER,
    OBJECT,
    OPEN,
    WORD,
    kind_of,
    only,
)

SCHEMA_PATH: Final = "schemas/input.v1.json"
_SCALARS: Final = {"string": WORD, "number": NUMBER, "integer": NUMBER, "boolean": BOOLEAN}
_KINDS: Final = {**_SCALARS, "array": ARRAY, "object": OBJECT}
Kinds = tuple[int, int]
"""The types of a value, and of its members (`policy_kinds`)."""
_DEPTH_MAX: Final = 16


class InputTypes:
    """Types by path below `input`. A part of a path is a name, or `""` for any member."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._known: dict[tuple[str, ...], Kinds | None] = {}

    def is_typed(self, path: tuple[str, ...]) -> bool:
        """Whether what stands there, and below, always is of one type that the gateway gives.

        What agents and tools say (arguments, results, claims) never is.
        """
        return self.kinds(path) is not None

    def kinds(self, path: tuple[str, ...]) -> Kinds | None:
        """Return the types of what stands there and of its members; None where it has none."""
        if path not in self._known:
            node = self._find(path)
            self._known[path] = (
                (self._kind(node), self._member_kinds(node))
                if node is not None and self._is_typed(node, 0)
                else None
            )
        return self._known[path]

    def is_collection(self, path: tuple[str, ...]) -> bool:
        """Whether what stands there always is a list or an object, whatever is in it."""
        node = self._find(path)
        return node is not None and node.get("type") in {"array", "object"}

    @staticmethod
    def _kind(node: Mapping[str, Any]) -> int:
        given = [node["const"]] if "const" in node else node.get("enum")
        if given is not None:
            return kind_of(given[0]) | kind_of(given[-1])
        return _KINDS[node["type"]]

    def _member_kinds(self, node: Mapping[str, Any]) -> int:
        found = 0
        for member in _members(node):
            below = self._resolve(member)
            found |= self._kind(below) | self._member_kinds(below) if below else OPEN
        return only(found)

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
        return kind == "object" and all(
            self._is_typed(self._resolve(member), depth + 1) for member in _members(node)
        )


def _members(node: Mapping[str, Any]) -> list[object]:
    """Return the schemas of what may stand in a list or object."""
    if node.get("type") == "array":
        return [node.get("items")]
    rest = node.get("additionalProperties")
    named = list(node.get("properties", {}).values())
    return named if rest is False or node.get("type") != "object" else [*named, rest]


@cache
def published(schema: str) -> InputTypes:
    """Return the types of a schema, given as JSON. The shipped one is always the same."""
    return InputTypes(json.loads(schema))
