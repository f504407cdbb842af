"""Walks the syntax tree that the engine gives for a module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

Node = dict[str, Any]
REFERENCES: Final = ("Var", "RefDot", "RefBrack")
CLOSURES: Final = ("ArrayCompr", "SetCompr", "ObjectCompr")
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|`[^`]*`|#[^\n]*')
HEADS: Final = ("Set", "Func", "Compr", "Default")
_DECLARING: Final = frozenset({"AssignExpr", "Every", "Func", "SomeIn", "SomeVars"})
_LITERALS: Final = ("String", "RawString", "Number", "Bool", "Null", "True", "False")


class Alternative(Struct, frozen=True):
    """One way in which a rule has a value: `values` (what stands in its head) if `statements`."""

    node: Node
    values: tuple[Node, ...]
    statements: tuple[Node, ...]
    default: bool = False
    whole: tuple[Node, ...] = ()
    """The statements with their `with`, for those who want their text."""


def unwrap(node: Node) -> tuple[str, Any]:
    """Return (kind, body) of a tagged node."""
    return next(iter(node.items()))


def is_literal(node: Node) -> bool:
    """Whether an expression is written out: a text, number, boolean or null."""
    return unwrap(node)[0] in _LITERALS


def literal_value(kind: str, body: Node) -> object:
    """Return what is written out; 0 stands for any number."""
    if kind in {"Null", "Number"}:
        return None if kind == "Null" else 0
    return body["value"]


def bound_to_nothing(value: Node) -> Node:
    """Return the statement `[] := value`."""
    nothing: Node = {"Array": {"items": []}}
    bound = {"op": "ColEq", "lhs": nothing, "rhs": value}
    return {"literal": {"Expr": {"expr": {"AssignExpr": bound}}}}


def place(text: bytes, span: Node) -> tuple[int, int]:
    """Return (row, column) of a span, both from 1; a column counts bytes, as OPA counts."""
    start = span["start"]
    return span["line"], start - text.rfind(b"\n", 0, start)


def written(text: bytes, span: Node) -> str:
    """Return what the author wrote there: a name, or what has no quotes or braces at its ends."""
    return text[span["start"] : span["end"]].decode()


def source_of(text: bytes, node: Node) -> str:
    """Return what the author wrote of a node, whole.

    The parser's own spans leave out the quotes of texts, and begin objects at some key.
    """
    starts, ends = zip(*_spans(node), strict=True)
    start, end = _balanced(text, min(starts), max(ends))
    return text[start:end].decode()


def whole_span(node: Node) -> Node:
    """Return a node's span with the quote or brace at which it begins."""
    return {**node["span"], "start": min(start for start, _ in _spans(node))}


def _spans(node: object) -> Iterator[tuple[int, int]]:
    if isinstance(node, list):
        for item in node:
            yield from _spans(item)
    elif isinstance(node, dict):
        if "start" in node:
            yield node["start"], node["end"]
        for kind, body in node.items():
            if kind in {"String", "RawString"}:
                yield body["span"]["start"] - 1, body["span"]["end"] + 1
            else:
                yield from _spans(body)


def _balanced(text: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the range, made longer until every bracket in it has its other half."""
    opened, closed = [], 0
    position = start
    while position < end:
        skipped = _QUOTED.match(text, position)
        if skipped is not None:
            position = skipped.end()
            continue
        sign = text[position : position + 1]
        if sign in b"([{":
            opened.append(sign)
        elif sign in b")]}":
            closed += 0 if opened and opened.pop() else 1
        position += 1
    for _ in range(closed):
        start = max(text.rfind(sign, 0, start) for sign in (b"(", b"[", b"{"))
    for _ in opened:
        end = min(at for sign in (b")", b"]", b"}") if (at := text.find(sign, end)) >= 0) + 1
    return start, end


def start_of(node: Node) -> Node:
    """Return the span at which an expression begins: that of its leftmost operand."""
    kind, body = unwrap(node)
    if kind in {"BoolExpr", "ArithExpr", "BinExpr", "AssignExpr"}:
        return start_of(body["lhs"])
    if kind == "Membership":
        return start_of(body["key"] or body["value"])
    return start_of(body["refr"]) if kind in {"RefDot", "RefBrack"} else body["span"]


def head_of(rule: Node) -> tuple[str, Node]:
    """Return (kind, head): `Default`, `Set`, `Func` or `Compr`."""
    if "Default" in rule:
        return "Default", rule["Default"]
    return unwrap(rule["Spec"]["head"])


def alternatives(rule: Node) -> Iterator[Alternative]:
    """Yield each body of a rule (every `else` is one) with the values that it gives."""
    kind, head = head_of(rule)
    if kind == "Default":
        yield Alternative(rule, (head["value"],), (), default=True)
        return
    shared = [head["key"]] if kind == "Set" else list(indices(head["refr"]))
    bodies = rule["Spec"]["bodies"]
    if not bodies:
        yield Alternative(rule, (*shared, *_assigned(head)), ())
    for body in bodies:
        values = _assigned(body) if body["is_else"] else (*_assigned(body), *_assigned(head))[:1]
        statements = body["query"]["stmts"]
        literals = tuple(item["literal"] for item in statements)
        yield Alternative(rule, (*shared, *values), literals, whole=tuple(statements))


def _assigned(node: Node) -> tuple[Node, ...]:
    assign = node.get("assign")
    return (assign["value"],) if assign else ()


def indices(reference: Node) -> Iterator[Node]:
    """Yield the index expressions of a reference, from left to right."""
    kind, body = unwrap(reference)
    if kind in {"RefDot", "RefBrack"}:
        yield from indices(body["refr"])
    if kind == "RefBrack":
        yield body["index"]


def can_stand_alone(node: Node) -> bool:
    """Whether a check of the same words is about the same value."""
    kind, body = unwrap(node)
    if kind not in REFERENCES:
        return False
    wild = any(unwrap(index)[1].get("value") == "_" for index in indices(node))
    return not wild and (kind == "Var" or can_stand_alone(body["refr"]))


def parameters(rule: Node) -> list[Node]:
    """Return the patterns that a function takes; none for other rules."""
    kind, head = head_of(rule)
    return head["args"] if kind in {"Func", "Default"} else []


def path_asked(given: list[Node]) -> tuple[str, ...]:
    """Return where `object.get` looks, if that is written out."""
    kind, body = unwrap(given[1]) if len(given) > 1 else ("", {})
    parts_of = body["items"] if kind == "Array" else [given[1]] if kind else []
    found = [unwrap(each) for each in parts_of]
    if not all(kind in {"String", "RawString"} for kind, _ in found):
        return ()
    return tuple(each["value"] for _, each in found)


def pattern_names(pattern: object, text: bytes) -> Iterator[tuple[str, Node]]:
    """Yield (name, span) of each variable in a pattern, which is a node or a bare span."""
    if not isinstance(pattern, dict):
        return
    if "start" in pattern:
        yield written(text, pattern), pattern
        return
    kind, body = unwrap(pattern)
    if kind == "Var":
        yield body["value"], body["span"]
    elif kind in {"Array", "Set"}:
        for item in body["items"]:
            yield from pattern_names(item, text)
    elif kind == "Object":
        for field in body["fields"]:
            yield from pattern_names(field[-1], text)


def names_in(node: object) -> set[str]:
    """Return the variables below a node, but for the names of functions that it calls."""
    if isinstance(node, list):
        return set().union(*map(names_in, node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*(names_in(body) for kind, body in node.items() if kind != "fcn"))
    return found | {node["Var"]["value"]} if "Var" in node else found


def declared(node: object, text: bytes) -> list[tuple[str, Node]]:
    """Return (name, span) of every variable that a node declares: `:=`, `some`, `every`, arguments.

    What only `=` binds is not among them.
    """
    found: list[tuple[str, Node]] = []
    _collect_declared(node, text, found)
    return found


def _collect_declared(node: object, text: bytes, found: list[tuple[str, Node]]) -> None:
    if isinstance(node, dict):
        for kind, body in node.items():
            if kind in _DECLARING:
                for pattern in _declaring(kind, body):
                    found += pattern_names(pattern, text)
            if kind != "span" and isinstance(body, (dict, list)):
                _collect_declared(body, text, found)
    elif isinstance(node, list):
        for item in node:
            if isinstance(item, (dict, list)):
                _collect_declared(item, text, found)


def _declaring(kind: str, body: Any) -> Iterator[object]:  # noqa: ANN401
    if kind == "SomeVars":
        yield from body["vars"]
    elif kind in {"SomeIn", "Every"}:
        yield from (body["key"], body["value"])
    elif kind == "AssignExpr" and body["op"] == "ColEq":
        yield body["lhs"]
    elif kind == "Func":
        yield from body["args"]
