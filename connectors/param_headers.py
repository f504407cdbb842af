"""`Mcp-Param-*` headers: arguments that a 2026-07-28 server wants repeated outside the body.

A tool's input schema marks them with `x-mcp-header` (MCP 2026-07-28, Transports, Custom Headers).
A server refuses a call whose headers differ from its body, and clients must not offer a tool that
is marked wrongly.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MARK: Final = "x-mcp-header"
PREFIX: Final = "Mcp-Param-"

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL: Final = re.compile(r"=\?base64\?.*\?=")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_NAMED: Final = frozenset({"patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA: Final = frozenset({"default", "examples", "const", "enum"})

ParamHeaders = tuple[tuple[str, tuple[str, ...]], ...]
"""Pairs of header name and the path of the argument that it repeats."""


def read_param_headers(schema: Mapping[str, Any]) -> ParamHeaders:
    """Return which headers a call must carry. Raises `ValueError` for a mark that is not valid."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for path, marked in _marked(schema, ()):
        token = marked[MARK]
        if not path or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(f"a `{MARK}` is misplaced or names no header")
        if not any(marked.get("type") == known for known in _TYPES):
            raise ValueError(f"`{MARK}` is allowed on strings, integers and booleans only")
        if token.lower() in found:
            raise ValueError(f"two arguments name the same `{MARK}`")
        found[token.lower()] = (PREFIX + token, path)
    return tuple(found.values())


def _marked(
    node: object, path: tuple[str, ...] | None
) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every marked schema; its path is None where more than `properties` leads there."""
    if isinstance(node, list):
        for item in node:
            yield from _marked(item, None)
    if not isinstance(node, dict):
        return
    if MARK in node:
        yield path, node
    for keyword, value in node.items():
        if keyword == "properties" and isinstance(value, dict):
            for name, child in value.items():
                yield from _marked(child, None if path is None else (*path, name))
        elif keyword in _NAMED and isinstance(value, dict):
            yield from _marked(list(value.values()), None)
        elif keyword not in _DATA:
            yield from _marked(value, None)


def build_param_headers(wanted: ParamHeaders, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of one call. What is absent, null or no scalar has none."""
    headers = {}
    for name, path in wanted:
        value: Any = arguments
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            headers[name] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            headers[name] = _encode(str(value))
    return headers


def _encode(text: str) -> str:
    """INVARIANT: no control character reaches a header, so no argument can add a header line."""
    if _PLAIN.fullmatch(text) and not _SENTINEL.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
