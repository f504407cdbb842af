"""The output schema of a tool as agents get it: its own, or else that of the pending result.

Clients check every structured result against it (MCP, Tools, Output Schema), a held call's too.
What the tool's own schema refers to within itself has to be found at the place it is moved to.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs
import orjson

_PENDING: Final = {
    "type": "object",
    "properties": {
        "status": {"const": "pending_approval"},
        "approval_id": {"type": "string"},
        "poll_tool": {"type": "string"},
        "retry_after_ms": {"type": "integer"},
        "expires_at": {"type": "integer"},
        "reason": {"type": "string"},
    },
    "required": ["status", "approval_id"],
}
_DIALECT: Final = "$schema"
_DEFINITIONS: Final = "$defs"
_NAME: Final = "$id"
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_NAMED: Final = frozenset(
    {
        "properties",
        "patternProperties",
        "dependentSchemas",
        "dependencies",
        "definitions",
        _DEFINITIONS,
    }
)
"""Keywords whose value maps names, which are no keywords, to schemas."""
_DATA: Final = frozenset({"default", "examples", "const", "enum"})
_BACKTRACKS_MAX: Final = 10_000
_KEPT_MAX: Final = 256


def accepts(definition: bytes, result: Mapping[str, Any]) -> bool:
    """Whether a result is one that a tool of this definition may answer with.

    Every one is where the definition has no output schema, or one that says nothing to anybody.
    """
    check = _check_of(definition)
    if check is None:
        return True
    return "structuredContent" in result and bool(check.is_valid(result["structuredContent"]))


@lru_cache(_KEPT_MAX)
def _check_of(definition: bytes) -> Any:  # noqa: ANN401 - a class for each dialect
    schema = orjson.loads(definition).get("outputSchema")
    if not isinstance(schema, dict):
        return None
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS_MAX)
    try:
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=patterns)
    except (ValueError, jsonschema_rs.ReferencingError):
        return None


def widen(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that takes what `own` takes, and the pending result."""
    root: dict[str, Any] = {"type": "object"}
    kept = dict(own)
    if _DIALECT in kept:
        root[_DIALECT] = kept.pop(_DIALECT)
    if _NAME not in kept:  # one with a name of its own is looked into from there
        kept = _moved(kept)
        if _DEFINITIONS in kept:
            root[_DEFINITIONS] = kept.pop(_DEFINITIONS)
    return {**root, "anyOf": [kept, _PENDING]}


def _moved(node: Any) -> Any:  # noqa: ANN401 - a schema may be a boolean
    """Return a schema whose references lead to where `widen` puts what they mean."""
    if isinstance(node, list):
        return [_moved(item) for item in node]
    if not isinstance(node, dict) or _NAME in node:
        return node
    moved: dict[str, Any] = {}
    for keyword, value in node.items():
        if keyword in _REFERENCES and isinstance(value, str):
            moved[keyword] = _lead(value)
        elif keyword in _NAMED and isinstance(value, dict):
            moved[keyword] = {name: _moved(schema) for name, schema in value.items()}
        else:
            moved[keyword] = value if keyword in _DATA else _moved(value)
    return moved


def _lead(reference: str) -> str:
    """`#` → `#/anyOf/0`. Definitions stay where they are, and so does what has a name."""
    pointer = reference.removeprefix("#")
    is_here = reference.startswith("#") and pointer[:1] in {"", "/"}
    if not is_here or pointer.startswith(f"/{_DEFINITIONS}/"):
        return reference
    return f"#/anyOf/0{pointer}"
