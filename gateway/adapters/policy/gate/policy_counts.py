"""What is counted: the embedded engine counts an emoji twice in a text, OPA once.

So what a policy counts must not be a text. Where it may be one, the policy says that it is a list,
an object or a set, or counts characters by `split`; whether something is empty may always be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from gateway.adapters.policy.gate.input_types import InputTypes
from gateway.adapters.policy.gate.policy_kinds import TEXTS
from gateway.adapters.policy.gate.policy_portable import below, mistake_at, written_name
from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Node,
    alternatives,
    head_of,
    unwrap,
)

_COLLECTIONS: Final = frozenset(
    {
        *("array.concat", "array.reverse", "array.slice", "graph.reachable", "indexof_n"),
        *("intersection", "io.jwt.decode", "json.filter", "json.remove", "net.cidr_expand"),
        *("numbers.range", "numbers.range_step", "object.filter", "object.keys", "object.remove"),
        *("object.union", "object.union_n", "regex.find_all_string_submatch_n", "regex.find_n"),
        *("regex.split", "sort", "split", "time.clock", "time.date", "time.diff", "union"),
        "urlquery.decode_object",
    }
)
"""Functions that answer a list, an object or a set."""

_SAID: Final = ("is_array", "is_object", "is_set")
_DEPTH_MAX: Final = 8
_HINT: Final = 'say what it is, `is_array(x)`; count characters by `count(split(x, ""))`'
Names = dict[str, list[Node]]


class _Body(Struct, frozen=True):
    """What a body binds by `:=`, and what it says is no text, as it is written."""

    source: Source
    bound: Names
    said: frozenset[str]
    definitions: Definitions
    types: InputTypes


def find_counted_texts(
    source: Source, definitions: Definitions, types: InputTypes
) -> Iterator[Mistake]:
    """Yield every `count` of what may be a text, but where only emptiness is asked for."""
    if "count(" not in source.text:
        return
    for rule in source.module.tree:
        for alternative in alternatives(rule):
            parts = [*alternative.statements, *alternative.values]
            body = _read_body(parts, source, definitions, types)
            asked = {id(call) for part in parts for call in _asked_for_emptiness(part)}
            for part in parts:
                for kind, call in below(part):
                    if kind == "Call" and _is_fault(call, body, asked):
                        message = "what is counted may be a text, of which engines count emoji "
                        yield mistake_at(
                            source, {kind: call}, "count_of_text", message + "differently", _HINT
                        )


def _is_fault(call: Node, body: _Body, asked: set[int]) -> bool:
    return (
        written_name(call["fcn"]) == "count"
        and id(call) not in asked
        and len(call["params"]) == 1
        and not _is_collection(call["params"][0], body, 0)
    )


def _asked_for_emptiness(node: object) -> Iterator[Node]:
    """Yield calls whose answer is compared so that only 0 matters: `== 0`, `> 0`, `>= 1`."""
    for kind, body in below(node):
        if kind == "BoolExpr" or (kind, body.get("op")) == ("AssignExpr", "Eq"):
            pairs = ((body["lhs"], body["rhs"]), (body["rhs"], body["lhs"]))
            for one, (shape, other) in ((one, unwrap(other)) for one, other in pairs):
                if shape == "Number" and "Call" in one and _only_zero(body, other, one):
                    yield one["Call"]


def _only_zero(comparison: Node, number: Node, call: Node) -> bool:
    value = str(number["value"])
    operation = comparison["op"]
    if value == "0":
        return True
    turned = {"Lt": "Gt", "Gt": "Lt", "Le": "Ge", "Ge": "Le"}
    if comparison["lhs"] is not call:
        operation = turned.get(operation, operation)
    return value == "1" and operation in {"Ge", "Lt"}


def _read_body(
    parts: Iterable[Node], source: Source, definitions: Definitions, types: InputTypes
) -> _Body:
    bound: Names = {}
    said = set()
    for part in parts:
        for kind, node in below(part):
            if kind == "AssignExpr" and "Var" in node["lhs"]:
                bound.setdefault(node["lhs"]["Var"]["value"], []).append(node["rhs"])
            elif kind == "Call" and written_name(node["fcn"]) in _SAID:
                said.add(_text(node["params"][0], source))
    return _Body(source, bound, frozenset(said), definitions, types)


def _text(node: Node, source: Source) -> str:
    span = unwrap(node)[1]["span"]
    return source.text.encode()[span["start"] : span["end"]].decode()


def _is_collection(node: Node, body: _Body, depth: int) -> bool:
    """Whether an expression is a list, an object or a set, whatever the input is."""
    kind, inner = unwrap(node)
    if depth > _DEPTH_MAX:
        return False
    if kind in {"Array", "Set", "Object", "BinExpr", "ArithExpr", *CLOSURES}:
        return True
    if kind == "Call":
        return written_name(inner["fcn"]) in _COLLECTIONS
    if kind not in REFERENCES:
        return False
    return _text(node, body.source) in body.said or _is_named(node, body, depth)


def _is_named(node: Node, body: _Body, depth: int) -> bool:
    path = _path(node)
    if len(path) == 1 and path[0] in body.bound:
        values = body.bound[path[0]]
        return all(_is_collection(value, body, depth + 1) for value in values)
    path = (*body.source.module.imports.get(path[0], path[:1]), *path[1:])
    if path[0] == "input":
        found = body.types.kinds(path[1:])
        return len(path) == 1 or (found is not None and not found[0] & TEXTS)
    if path[0] == "data" and path[1:2] not in {("policies",), ("countersign",)}:
        return True  # what the policy's author gives
    if path[0] != "data":
        path = ("data", *body.source.module.package, *path)
    name = body.definitions.find(path)
    return name is not None and all(
        _rule_is_collection(source, rule, path[4:], body, depth)
        for source, rule in body.definitions.rules[name]
    )


def _rule_is_collection(
    source: Source, rule: Node, below_it: tuple[str, ...], body: _Body, depth: int
) -> bool:
    kind, head = head_of(rule)
    if below_it or kind == "Func":
        return False
    if kind == "Set" or (kind == "Compr" and "RefBrack" in head["refr"]):
        return True
    return all(
        _is_collection(
            value,
            _read_body((*each.statements, *each.values), source, body.definitions, body.types),
            depth + 1,
        )
        for each in alternatives(rule)
        for value in each.values[-1:]
    )


def _path(node: Node) -> tuple[str, ...]:
    kind, body = unwrap(node)
    if kind == "Var":
        return (body["value"],)
    if kind == "RefDot":
        return (*_path(body["refr"]), body["field"][1])
    if kind != "RefBrack":
        return ("",)
    index = body["index"]
    return (*_path(body["refr"]), index["String"]["value"] if "String" in index else "")
