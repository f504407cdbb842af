"""What a bundle compares with: the numbers and strings in its rules and data, to search around.

An author's mistakes lie at the values that the author wrote down: one above a limit, another
spelling of a name, another type where a number was meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import regorus
from msgspec import Struct

from gateway.adapters.policy import policy_ast
from gateway.adapters.policy.policy_ast import Fault
from gateway.adapters.policy.policy_bundle import Bundle

_STRINGS_MAX: Final = 400
_NUMBERS_MAX: Final = 400
_LENGTH_MAX: Final = 200
_TOLD: Final = frozenset({"code", "message", "type", "ttl", "title"})
"""Members of answers: words that policies say, and compare with nothing."""

_ARGS: Final = ("context", "args")


class Constants(Struct, frozen=True):
    """In order and each once. `arguments`: paths below `input.context.args` that rules name."""

    numbers: tuple[int | float, ...] = ()
    strings: tuple[str, ...] = ()
    arguments: tuple[tuple[str, ...], ...] = ()


def find_constants(bundle: Bundle) -> Constants:
    """Return what the packages and the data of a bundle name; bounded."""
    numbers: dict[int | float, None] = {}
    strings: dict[str, None] = {}
    arguments: dict[tuple[str, ...], None] = {}
    for path, content in bundle.files:
        if path.startswith("policies/"):
            source = content.decode()
            _take(_literals(path, source), numbers, strings)
            arguments |= dict.fromkeys(_arguments(path, source))
    data = json.loads(bundle.data)
    for name in ("authority", "applies_to"):
        data.pop(name, None)
    _take(_leaves(data), numbers, strings)
    return Constants(
        tuple(numbers)[:_NUMBERS_MAX], tuple(strings)[:_STRINGS_MAX], tuple(sorted(arguments))
    )


def _take(
    values: Iterator[object], numbers: dict[int | float, None], strings: dict[str, None]
) -> None:
    for value in values:
        if isinstance(value, str):
            if 0 < len(value) <= _LENGTH_MAX:
                strings[value] = None
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[value] = None


def _literals(path: str, source: str) -> Iterator[object]:
    engine = regorus.Engine()
    engine.add_policy(path, source)
    yield from _walk(json.loads(engine.get_ast_as_json())[0]["ast"]["rules"])


def _walk(node: object) -> Iterator[object]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind in {"String", "RawString", "Number"}:
                yield body["value"]
            elif kind == "Object":
                yield from _walk_object(body["fields"])
            else:
                yield from _walk(body)


def _walk_object(fields: list[Any]) -> Iterator[object]:
    for _, key, value in fields:
        if key.get("String", {}).get("value") not in _TOLD:
            yield from _walk(key)
            yield from _walk(value)


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _arguments(path: str, source: str) -> Iterator[tuple[str, ...]]:
    module = policy_ast.parse_module(path, source)
    if isinstance(module, Fault):
        return
    for use in module.refs:
        static = use.path[1:]
        if use.path[0] == "input" and static[:2] == _ARGS:
            named = static[2:]
            found = named[: named.index("")] if "" in named else named
            if found:
                yield found
