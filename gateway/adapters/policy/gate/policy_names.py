"""Names in policies: those that mean nothing, those that nobody uses, those that hide another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Final

from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    HEADS,
    Node,
    declared,
    indices,
    pattern_names,
    place,
    unwrap,
)

_PLAIN: Final = frozenset(name for name in ALLOWED if "." not in name)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" for what an author may have meant, or nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"did you mean `{near[0]}`?" if near else ""


def find_unknown_names(source: Source, definitions: Definitions) -> Iterator[Mistake]:
    """Yield names that nothing binds: an engine refuses them, or takes them for undefined."""
    text = source.text.encode()
    rules = definitions.names_in(source.module.package)
    given = {"input", "data", "_", *rules, *source.module.imports}
    for rule in source.module.tree:
        own = {name for name, _ in declared(rule, text)} | set(find_bound(rule, text))
        seen: set[str] = set()
        for name, span in find_used(rule, calls=False):
            if name not in own and name not in given and name not in seen:
                seen.add(name)
                hint = suggest(name, own | rules | set(source.module.imports))
                yield Mistake(
                    source.path,
                    *place(text, span),
                    "unknown_name",
                    f"`{name}` is no rule, import or variable here",
                    hint or f"bind it: `{name} := …`, or `some {name} in …`",
                )


def find_oddities(source: Source, definitions: Definitions) -> Iterator[Mistake]:
    """Yield warnings: what is declared and never used, what hides a rule, import or built-in."""
    text = source.text.encode()
    rules = definitions.names_in(source.module.package)
    everywhere: Counter[str] = Counter()
    for rule in source.module.tree:
        used = Counter(name for name, _ in find_used(rule))
        everywhere += used
        # `some x` and `every x` declare by name alone, patterns are variables themselves.
        nodes = {span["start"] for _, span in find_used(rule)}
        patterns = Counter(name for name, span in declared(rule, text) if span["start"] in nodes)
        for name, span in dict(declared(rule, text)).items():
            at = place(text, span)
            if not name.startswith("_") and used[name] <= patterns[name]:
                message = f"`{name}` is declared and never used"
                yield _warn(source, at, "unused_variable", message, "write `_`, or remove it")
            hidden = _hidden(name, rules, source.module.imports)
            if hidden:
                message = f"`{name}` hides the {hidden} of that name"
                yield _warn(source, at, "shadowing", message, "use another name")
    for name in source.module.imports:
        if not everywhere[name]:
            at = (_import_row(source, name), 1)
            message = f"the import `{name}` is never used"
            yield _warn(source, at, "unused_import", message, "remove it")


def _warn(source: Source, at: tuple[int, int], code: str, message: str, hint: str) -> Mistake:
    return Mistake(source.path, *at, code, message, hint, "warning")


def _hidden(name: str, rules: frozenset[str], imports: Iterable[str]) -> str:
    if name in rules:
        return "rule"
    if name in imports:
        return "import"
    return "built-in function" if name in _PLAIN else ""


def _import_row(source: Source, name: str) -> int:
    lines = enumerate(source.text.splitlines(), start=1)
    rows = [row for row, line in lines if line.startswith("import ") and name in line]
    return rows[-1] if rows else source.module.package_line


def find_used(node: object, *, calls: bool = True) -> Iterator[tuple[str, Node]]:
    """Yield every variable that stands in a rule, but its own name and what it calls."""
    if isinstance(node, list):
        for item in node:
            yield from find_used(item, calls=calls)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind == "Var":
                yield body["value"], body["span"]
            elif kind == "Call":
                # Of a called function only an import or a rule is a name; the gate looks at others.
                yield from _called(body["fcn"]) if calls else ()
                yield from find_used(body["params"], calls=calls)
            elif kind in HEADS and "refr" in body:
                rest = {key: item for key, item in body.items() if key != "refr"}
                yield from find_used([rest, *indices(body["refr"])], calls=calls)
            elif kind != "span":
                yield from find_used(body, calls=calls)


def _called(function: Node) -> Iterator[tuple[str, Node]]:
    kind, body = unwrap(function)
    while kind in {"RefDot", "RefBrack"}:
        kind, body = unwrap(body["refr"])
    if kind == "Var":
        yield body["value"], body["span"]


def find_bound(node: object, text: bytes) -> Iterator[str]:
    """Yield what `=`, an index or the answer of `walk` binds without a declaration."""
    if isinstance(node, list):
        for item in node:
            yield from find_bound(item, text)
    elif isinstance(node, dict):
        for kind, body in node.items():
            for pattern in bindings(kind, body):
                yield from (name for name, _ in pattern_names(pattern, text))
            if kind != "span" and isinstance(body, (dict, list)):
                yield from find_bound(body, text)


def bindings(kind: str, body: Any) -> Iterator[object]:  # noqa: ANN401
    """Yield the patterns in which a node may bind names, but for those of `some` and `every`."""
    if kind == "AssignExpr":
        yield body["lhs"]
        yield from [body["rhs"]] if body["op"] == "Eq" else []
    elif kind == "RefBrack":
        yield body["index"]
    elif kind == "Call" and len(body["params"]) > 1:
        yield body["params"][-1]
