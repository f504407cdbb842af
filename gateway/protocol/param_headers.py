"""`Mcp-Param-*` headers: arguments that a 2026-07-28 server wants repeated outside the body.

A tool's input schema marks them with `x-mcp-header` (MCP 2026-07-28, Transports, Custom Headers).
A server refuses a call whose headers differ from its body, and clients must not offer a tool that
is marked wrongly. The gateway is both: it checks what agents send and makes what upstreams get.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.protocol.headers import decode_value

MARK: Final = "x-mcp-header"
PREFIX: Final = "Mcp-Param-"

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL: Final = re.compile(r"=\?base64\?.*\?=")
_NUMBER: Final = re.compile(r"-?[0-9]{1,16}(?:\.[0-9]{1,16})?")
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
        text = _text(_value_at(arguments, path))
        if text is not None:
            headers[name] = _encode(text)
    return headers


def find_param_mismatch(
    wanted: ParamHeaders,
    given: Mapping[bytes, bytes],
    arguments: Mapping[str, Any],
    *,
    required: bool,
) -> str | None:
    """Return the first header that does not repeat its argument, or None.

    `given`: header values by lower-case name. `required`: whether one may be left out whose
    argument is there. One whose argument is not there says something that the body does not.
    """
    for name, path in wanted:
        sent, value = given.get(name.lower().encode()), _value_at(arguments, path)
        text = _text(value)
        if sent is None:
            if required and text is not None:
                return name
        elif text is None or not _says(decode_value(sent), text, value):
            return name
    return None


def _says(sent: str | None, text: str, value: object) -> bool:
    """Whether a header says the same. Numbers compare as numbers: `42.0` is 42."""
    if sent is None or isinstance(value, str | bool):
        return sent == text
    return _NUMBER.fullmatch(sent) is not None and float(sent) == value


def _value_at(arguments: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: Any = arguments
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: object) -> str | None:
    """The text of a scalar as headers have it; None for what has none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _encode(text: str) -> str:
    """INVARIANT: no control character reaches a header, so no argument can add a header line."""
    if _PLAIN.fullmatch(text) and not _SENTINEL.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
