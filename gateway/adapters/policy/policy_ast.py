"""What a Rego module says, read from the engine's own syntax tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import regorus
from msgspec import Struct

from gateway.adapters.policy.policy_depth import find_unparsable

Path = tuple[str, ...]
_ERROR: Final = re.compile(
    r"--> .*?:(\d+):(\d+)\s.*?\nerror: (.*?)\s*(?:\n\n|\nStack backtrace|\Z)", re.DOTALL
)
_REFERENCES: Final = ("Var", "RefDot", "RefBrack")
_CLOSURES: Final = ("ArrayCompr", "SetCompr", "ObjectCompr")
_DYNAMIC: Final = ""
"""Stands in a path for an index that is known only when the policy runs."""


class Fault(Struct, frozen=True):
    """A mistake at a line (from 1) and column of a module."""

    line: int
    column: int
    text: str


class Rule(Struct, frozen=True):
    """One rule as written. `kind`: `set` (`contains`), `value`, `object`, `function`, `default`.

    `name` is the first part of the head, `plain` whether that is all of it, `certain` whether it
    has a value whatever the input is, `start` where it begins in the module, in bytes.
    """

    name: str
    kind: str
    line: int
    plain: bool = True
    certain: bool = False
    start: int = 0


class Use(Struct, frozen=True):
    """A reference (or a call) of `path` at a line. Only its static front is given, then `""`."""

    path: Path
    line: int
    start: int = 0


class Module(Struct, frozen=True):
    """The facts of one module. Imports are resolved: no path begins with an alias."""

    package: Path
    package_line: int
    rules: tuple[Rule, ...]
    refs: tuple[Use, ...]
    calls: tuple[Use, ...]
    negated: tuple[Use, ...]
    """What stands below a `not` where the engines differ if it is undefined: OPA drops the whole
    rule body then, the embedded engine takes the `not` for true."""
    fallible: tuple[Use, ...]
    """What the value of a rule with `else` is made of: where it is undefined, OPA takes the
    `else`, the embedded engine takes the rule for undefined."""
    imports: dict[str, Path]
    """What each imported name stands for."""
    tree: list[dict[str, Any]]
    """The rules as the engine's parser gives them (`policy_syntax` walks them)."""


def parse_module(path: str, source: str) -> Module | Fault:
    """Return the facts of a module, or where it cannot be parsed."""
    if (why := find_unparsable(source)) is not None:
        return Fault(1, 1, why)
    engine = regorus.Engine()
    try:
        engine.add_policy(path, source)
        tree = json.loads(engine.get_ast_as_json())[0]["ast"]
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
        return _fault(str(error))
    aliases = dict(_alias(item, source.encode()) for item in tree["imports"])
    uses = [_resolve(use, aliases) for use in _refs(tree["rules"])]
    calls = [_resolve(use, aliases) for use in _refs(tree["rules"], calls=True)]
    imported = [
        Use(_path(item["refr"])[0], item["span"]["line"], item["span"]["start"])
        for item in tree["imports"]
    ]
    return Module(
        package=_path(tree["package"]["refr"])[0],
        package_line=tree["package"]["span"]["line"],
        rules=tuple(_rule(rule) for rule in tree["rules"]),
        refs=tuple(uses + imported),
        calls=tuple(calls),
        negated=tuple(_resolve(use, aliases) for use in _negated(tree["rules"])),
        fallible=tuple(_resolve(use, aliases) for use in _fallible(tree["rules"])),
        imports=aliases,
        tree=tree["rules"],
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
    return use if target is None else Use(target + use.path[1:], use.line, use.start)


def _rule(rule: dict[str, Any]) -> Rule:
    if "Default" in rule:
        body = rule["Default"]
        path, _ = _path(body["refr"])
        return Rule(
            path[0],
            "default",
            body["span"]["line"],
            plain=len(path) == 1,
            certain=True,
            start=body["span"]["start"],
        )
    kind, head = next(iter(rule["Spec"]["head"].items()))
    path, _ = _path(head["refr"])
    name = {"Set": "set", "Func": "function"}.get(kind, "value")
    if name == "value" and len(path) > 1:
        name = "object"
    return Rule(
        path[0],
        name,
        head["span"]["line"],
        plain=len(path) == 1,
        certain=kind == "Set" or (not rule["Spec"]["bodies"] and not any(_refs(head["assign"]))),
        start=head["span"]["start"],
    )


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


def _fallible(rules: list[dict[str, Any]]) -> Iterator[Use]:
    for rule in rules:
        spec = rule.get("Spec", {"bodies": []})
        bodies = spec["bodies"]
        if any(body["is_else"] for body in bodies):
            head = next(iter(spec["head"].values()))
            yield from _refs([head["assign"], *(body["assign"] for body in bodies)], closures=False)


def _negated(node: object) -> Iterator[Use]:
    if isinstance(node, list):
        for item in node:
            yield from _negated(item)
    elif isinstance(node, dict):
        for key, item in node.items():
            if key == "NotExpr":
                yield from _at_risk(item["expr"])
            elif key != "span":
                yield from _negated(item)


def _at_risk(expression: dict[str, Any]) -> Iterator[Use]:
    """Yield the references that are evaluated before the negated expression itself.

    A plain reference and `==` between references are one expression; nothing comes before them.
    """
    kind, body = next(iter(expression.items()))
    if kind in _REFERENCES:
        for index in _path(expression)[1]:
            yield from _refs(index)
    elif kind == "BoolExpr" and body["op"] == "Eq":
        for side in (body["lhs"], body["rhs"]):
            yield from _at_risk(side)
    else:
        yield from _refs(expression, closures=False)


def find_references(node: object) -> Iterator[Path]:
    """Yield what a node refers to outside of comprehensions. Imports are not resolved."""
    for use in _refs(node, closures=False):
        yield use.path


def _refs(node: object, *, calls: bool = False, closures: bool = True) -> Iterator[Use]:
    """Yield every reference below a node, or with `calls` every called function.

    Without `closures`, what stands in comprehensions is left out.
    """
    if isinstance(node, list):
        for item in node:
            yield from _refs(item, calls=calls, closures=closures)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind != "span" and (closures or kind not in _CLOSURES):
                yield from _refs_of(kind, body, calls=calls, closures=closures)


def _refs_of(kind: str, body: Any, *, calls: bool, closures: bool) -> Iterator[Use]:  # noqa: ANN401
    below: object = body
    if kind in _REFERENCES:
        path, below = _path({kind: body})
        if path and not calls:
            yield Use(path, body["span"]["line"], body["span"]["start"])
    elif kind == "Call":
        if calls:
            yield Use(_path(body["fcn"])[0], body["span"]["line"], body["span"]["start"])
        below = body["params"]
    yield from _refs(below, calls=calls, closures=closures)
