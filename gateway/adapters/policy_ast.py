"""What a Rego module says, read from the engine's own syntax tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import regorus
from msgspec import Struct

Path = tuple[str, ...]
_ERROR: Final = re.compile(
    r"--> .*?:(\d+):(\d+)\s.*?\nerror: (.*?)\s*(?:\n\n|\nStack backtrace|\Z)", re.DOTALL
)
_DYNAMIC: Final = ""
"""Stands in a path for an index that is known only when the policy runs."""


class Fault(Struct, frozen=True):
    """A mistake at a line (from 1) and column of a module."""

    line: int
    column: int
    text: str


class Rule(Struct, frozen=True):
    """One rule as written. `kind`: `set` (`contains`), `value`, `object`, `function`, `default`.

    `name` is the first part of the head, `plain` whether that is all of it.
    """

    name: str
    kind: str
    line: int
    plain: bool = True


class Use(Struct, frozen=True):
    """A reference (or a call) of `path` at a line. Only its static front is given, then `""`."""

    path: Path
    line: int


class Module(Struct, frozen=True):
    """The facts of one module. Imports are resolved: no path begins with an alias."""

    package: Path
    package_line: int
    rules: tuple[Rule, ...]
    refs: tuple[Use, ...]
    calls: tuple[Use, ...]


def parse_module(path: str, source: str) -> Module | Fault:
    """Return the facts of a module, or where it cannot be parsed."""
    engine = regorus.Engine()
    try:
        engine.add_policy(path, source)
        tree = json.loads(engine.get_ast_as_json())[0]["ast"]
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
        return _fault(str(error))
    aliases = dict(_alias(item, source.encode()) for item in tree["imports"])
    uses = [_resolve(use, aliases) for use in _refs(tree["rules"], calls=False)]
    calls = [_resolve(use, aliases) for use in _refs(tree["rules"], calls=True)]
    imported = [Use(path, 0) for path in aliases.values()]
    return Module(
        package=_path(tree["package"]["refr"])[0],
        package_line=tree["package"]["span"]["line"],
        rules=tuple(_rule(rule) for rule in tree["rules"]),
        refs=tuple(uses + imported),
        calls=tuple(calls),
    )


def _fault(text: str) -> Fault:
    found = _ERROR.search(text)
    if found is None:
        return Fault(1, 1, text.partition("Stack backtrace")[0].strip() or "cannot be parsed")
    return Fault(int(found[1]), int(found[2]), " ".join(found[3].split()))


def _alias(item: dict[str, Any], source: bytes) -> tuple[str, Path]:
    path, span = _path(item["refr"])[0], item.get("as")
    return source[span["start"] : span["end"]].decode() if span else path[-1], path


def _resolve(use: Use, aliases: dict[str, Path]) -> Use:
    target = aliases.get(use.path[0])
    return use if target is None else Use(target + use.path[1:], use.line)


def _rule(rule: dict[str, Any]) -> Rule:
    if "Default" in rule:
        body = rule["Default"]
        path, _ = _path(body["refr"])
        return Rule(path[0], "default", body["span"]["line"], plain=len(path) == 1)
    kind, head = next(iter(rule["Spec"]["head"].items()))
    path, _ = _path(head["refr"])
    name = {"Set": "set", "Func": "function"}.get(kind, "value")
    if name == "value" and len(path) > 1:
        name = "object"
    return Rule(path[0], name, head["span"]["line"], plain=len(path) == 1)


def _path(node: dict[str, Any]) -> tuple[Path, list[Any]]:
    """Return the static front of a reference and the index expressions in it; () if it is none."""
    kind, body = next(iter(node.items()))
    if kind == "Var":
        return (body["value"],), []
    if kind == "RefDot":
        path, rest = _path(body["refr"])
        return _extend(path, body["field"][1]), rest
    if kind == "RefBrack":
        path, rest = _path(body["refr"])
        index = body["index"]
        if "String" in index:
            return _extend(path, index["String"]["value"]), rest
        return _extend(path, _DYNAMIC), [*rest, index]
    return (), [node]


def _extend(path: Path, part: str) -> Path:
    return path if not path or path[-1] == _DYNAMIC else (*path, part)


def _refs(node: object, *, calls: bool) -> Iterator[Use]:
    """Yield every reference below a node (called functions apart: those with `calls`)."""
    if isinstance(node, list):
        for item in node:
            yield from _refs(item, calls=calls)
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from _refs_of(key, item, calls=calls)


def _refs_of(kind: str, body: Any, *, calls: bool) -> Iterator[Use]:  # noqa: ANN401 - JSON
    if kind in {"Var", "RefDot", "RefBrack"}:
        path, inner = _path({kind: body})
        if path and not calls:
            yield Use(path, body["span"]["line"])
        for item in inner:
            yield from _refs(item, calls=calls)
    elif kind == "Call":
        path, _ = _path(body["fcn"])
        if calls:
            yield Use(path, body["span"]["line"])
        yield from _refs(body["params"], calls=calls)
    else:
        yield from _refs(body, calls=calls)
