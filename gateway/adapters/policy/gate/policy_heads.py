"""What stands in the head of a rule whose body holds more than once, and may be undefined.

`deny contains {"code": "large", "who": item.to} if { some item in items; … }`: where one item has
no `to`, OPA leaves out that one. The embedded engine forgets what it found before, or fails, so
that one item more takes a deny away. Bundles of earlier versions are not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.adapters.policy.gate.policy_portable import (
    above_queries,
    below,
    mistake_at,
    written_name,
)
from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    Node,
    alternatives,
    head_of,
    is_literal,
    names_in,
    parameters,
    pattern_names,
    source_of,
    unwrap,
)

_SEVERAL = frozenset({"SomeIn", "SomeVars"})


def find_head_faults(source: Source, definitions: Definitions) -> Iterator[Mistake]:
    """Yield what may be undefined in a head for one of several values that a body finds."""
    text, rules = source.text.encode(), definitions.names_in(source.module.package)
    given = {"input", "data", *rules, *source.module.imports}
    for rule in source.module.tree:
        # Functions are alike on both engines.
        if head_of(rule)[0] not in {"Set", "Compr"}:
            continue
        for each in alternatives(rule):
            parts = [*each.statements, *each.values]
            if not _holds_again(parts, given | _assigned(parts, text)):
                continue
            needed = {_written(node, text) for node in _looked_up(_strict(each.statements), given)}
            for node in _outermost(_looked_up(each.values, given)):
                shown = _written(node, text)
                if shown not in needed and not _is_total(node, source, definitions):
                    yield _mistake(source, node, shown)


def _mistake(source: Source, node: Node, shown: str) -> Mistake:
    return mistake_at(
        source,
        node,
        "undefined_in_head",
        f"`{shown}` may be undefined for one of several: then the embedded engine forgets the "
        "others, OPA that one",
        f"take it by `object.get` with a default, or bind it in the body, `x := {shown}`, which "
        "leaves that one out",
    )


def _assigned(parts: Iterable[Node], text: bytes) -> set[str]:
    """Return the names that `:=` gives one value."""
    return {
        name
        for kind, body in above_queries(list(parts))
        if kind == "AssignExpr" and body["op"] == "ColEq"
        for name, _ in pattern_names(body["lhs"], text)
    }


def _holds_again(parts: Iterable[Node], known: set[str]) -> bool:
    """Whether a rule may find several values: by `some`, `walk`, or an index that it looks for."""
    return any(
        kind in _SEVERAL
        or (kind == "Call" and written_name(body["fcn"]) == "walk")
        or (kind == "RefBrack" and bool(names_in(_index(body)) - known))
        for kind, body in above_queries(list(parts))
    )


def _index(reference: Node) -> Node:
    """Return an index that may be looked for: a name, or a list of names."""
    index: Node = reference["index"]
    return index if unwrap(index)[0] in {"Var", "Array", "Set", "Object"} else {}


def _strict(statements: Iterable[Node]) -> Iterator[Node]:
    """Yield the statements that hold only where everything in them is defined."""
    for statement in statements:
        kind, body = unwrap(statement)
        if kind in {"Expr", "SomeIn"}:
            yield body["expr" if kind == "Expr" else "collection"]


def _looked_up(nodes: Iterable[Node], given: set[str]) -> Iterator[Node]:
    """Yield what is looked up, or answered by a policy's function, by names of the body."""
    functions: set[int] = set()
    for kind, body in below(list(nodes), closures=False):
        if kind == "Call":
            functions.add(id(unwrap(body["fcn"])[1]))
        called = kind == "Call" and written_name(body["fcn"]).split(".")[0] in given
        looked_up = kind in {"RefDot", "RefBrack"} and id(body) not in functions
        if (looked_up or called) and names_in({kind: body}) - given:
            yield {kind: body}


def _outermost(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield these but for what is part of the path of another one."""
    within: set[int] = set()
    for node in nodes:
        _, body = unwrap(node)
        if id(body) not in within:
            yield node
        if "refr" in body:
            within.add(id(unwrap(body["refr"])[1]))


def _is_total(node: Node, source: Source, definitions: Definitions) -> bool:
    """Whether this calls a function that has an answer to everything: by an `else`, mostly."""
    kind, body = unwrap(node)
    if kind != "Call":
        return False
    first, *rest = written_name(body["fcn"]).split(".")
    path = (*source.module.imports.get(first, (first,)), *rest)
    if first in definitions.names_in(source.module.package):
        path = ("data", *source.module.package, first)
    name = definitions.find(path)
    return name is not None and any(
        not each.statements and is_literal(each.values[-1]) and _takes_all(rule)
        for _, rule in definitions.rules[name]
        for each in alternatives(rule)
        if each.values
    )


def _takes_all(rule: Node) -> bool:
    return all(unwrap(each)[0] == "Var" for each in parameters(rule))


def _written(node: Node, text: bytes) -> str:
    return " ".join(source_of(text, node).split())
