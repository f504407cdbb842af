"""How policies bind names where the embedded engine and OPA differ, and both in silence.

The embedded engine takes an object as a pattern for part of what it is held against, OPA for all of
it; it binds anew, with `=`, what is bound around an `every`; it takes a name given twice for its
last value; by `some` it declares nothing anew that is bound around; and below `not` it waits for no
index to be bound. The cases are in docs/opa.md. Bundles of earlier versions are not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from gateway.adapters.policy.gate.policy_names import bindings
from gateway.adapters.policy.gate.policy_portable import (
    above_queries,
    below,
    mistake_at,
    written_name,
)
from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_package import Source
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    Node,
    alternatives,
    declared,
    names_in,
    parameters,
    pattern_names,
    place,
    unwrap,
    whole_span,
)

Fault = tuple[str, str, str]
"""The code, the message and what to write instead."""
_GIVEN: Final = ("input", "data")
_LANGUAGE: Final = ("future", "rego")
_REGO_V1: Final = frozenset(
    {("rego", "v1"), *(("future", "keywords", word) for word in ("contains", "every", "if", "in"))}
)
"""Imports that say what holds anyway. All others give OPA another `not`, or words of their own."""
_PATTERN: Final = (
    "object_pattern",
    "an object as a pattern holds for all of an object on OPA, for part of it here",
    "name members one by one, `n := input.context.args.amount`; compare with `==`, assign by `:=`",
)
_EVERY: Final = (
    "unify_in_every",
    "in `every` this may bind anew what is bound around it, and then always holds",
    "compare with `==`, bind with `:=`, or put it into a rule or function of its own",
)
_TWICE: Final = (
    "name_twice",
    "OPA takes both for one value, the embedded engine for two",
    "use two names and compare them with `==`",
)
_WALK: Final = (
    "walk_answer",
    "`walk` with one argument is undefined in the embedded engine",
    "write `walk(x, [path, value])`",
)
_ANSWER: Final = (
    "answer_argument",
    "a function takes its answer as a last argument only on some engines",
    "bind it: `x := f(…)`",
)
_SHADOWED: Final = (
    "name_shadowed",
    "is bound around this `some` already: the embedded engine takes that one or fails, OPA another",
    "use another name",
)
_LATER: Final = (
    "bound_below_not",
    "is an index below `not` and bound only below it: there the embedded engine takes every index",
    "bind it above the `not`",
)
_ONE: Final = (
    "abs", "array.reverse", "base64.decode", "base64.encode", "base64.is_valid",
    "base64url.decode", "base64url.encode", "base64url.encode_no_pad", "bits.negate", "ceil",
    "count", "crypto.md5", "crypto.sha1", "crypto.sha256", "floor", "glob.quote_meta",
    "hex.decode", "hex.encode", "intersection", "io.jwt.decode", "is_array", "is_boolean",
    "is_null", "is_number", "is_object", "is_set", "is_string", "json.is_valid",
    "json.marshal", "json.unmarshal", "lower", "max", "min", "net.cidr_expand",
    "net.cidr_is_valid", "object.keys", "object.union_n", "product", "regex.is_valid", "round",
    "semver.is_valid", "sort", "strings.reverse", "sum", "time.clock", "time.date",
    "time.format", "time.parse_duration_ns", "time.parse_rfc3339_ns", "time.weekday",
    "to_number", "trim_space", "type_name", "union", "units.parse", "units.parse_bytes",
    "upper", "urlquery.decode", "urlquery.decode_object", "urlquery.encode",
    "urlquery.encode_object",
)  # fmt: skip
_THREE: Final = (
    "array.slice", "glob.match", "numbers.range_step", "object.get",
    "regex.find_all_string_submatch_n", "regex.find_n", "regex.replace", "replace",
    "substring",
)  # fmt: skip
TAKES: Final = {
    **dict.fromkeys(ALLOWED, 2), **dict.fromkeys(_ONE, 1), **dict.fromkeys(_THREE, 3),
    "time.add_date": 4, "walk": 2,
}  # fmt: skip
"""How many arguments built-in functions take; `walk` takes its answer among them."""


def find_binding_faults(source: Source, definitions: Definitions) -> Iterable[Mistake]:
    """Return what binds names otherwise in the embedded engine than on a stock OPA."""
    # What stands in an `every` in an `every` is found twice.
    return dict.fromkeys(_find(source, definitions))


def _find(source: Source, definitions: Definitions) -> Iterator[Mistake]:
    yield from _imports(source, definitions)
    text = source.text.encode()
    for rule in source.module.tree:
        for name, span in _declared(rule, text):
            if name in _GIVEN:
                message = f"`{name}` is given, and cannot be the name of anything else"
                at = place(text, span)
                yield Mistake(source.path, *at, "name_reserved", message, "use another name")
        arguments = parameters(rule)
        yield from _repeated(source, arguments)
        yield from _shadowed(source, rule, definitions)
        yield from _refuse_objects(source, arguments)
        # The head's own name and index are no patterns.
        for kind, body in below(rule):
            yield from _faults(source, kind, body, definitions)
        for kind, body in below(rule.get("Spec", {}).get("bodies", [])):
            if kind == "RefBrack" and any(pattern_names(body["index"], text)):
                yield from _refuse_objects(source, body["index"])


def _faults(source: Source, kind: str, body: Any, definitions: Definitions) -> Iterator[Mistake]:  # noqa: ANN401
    yield from _refuse_objects(source, _patterns(kind, body))
    if kind == "SomeIn" and body["key"]:
        yield from _repeated(source, [body["key"], body["value"]])
    elif kind == "Call":
        name = written_name(body["fcn"])
        takes = _arity(source, name, definitions)
        if name == "walk" and len(body["params"]) == 1:
            yield mistake_at(source, {kind: body}, *_WALK)
        elif takes is not None and len(body["params"]) > takes:
            yield mistake_at(source, {kind: body}, *_ANSWER)
    elif kind == "Every":
        for found in _unifying(body["query"]):
            yield mistake_at(source, found, *_EVERY)


def _patterns(kind: str, body: Any) -> list[Node]:  # noqa: ANN401
    """Return what a statement takes apart."""
    if kind == "AssignExpr":
        return [body["lhs"]] if body["op"] == "ColEq" else [body["lhs"], body["rhs"]]
    if kind == "SomeIn":
        return [each for each in (body["key"], body["value"]) if each]
    walks = kind == "Call" and written_name(body["fcn"]) == "walk"
    return list(body["params"][1:]) if walks else []


def _refuse_objects(source: Source, patterns: object) -> Iterator[Mistake]:
    text = source.text.encode()
    for found in _objects(patterns):
        # The parser's span begins at the brace, or at some key.
        start = text.rfind(b"{", 0, whole_span(unwrap(found)[1])["start"] + 1)
        at = place(text, {"line": text.count(b"\n", 0, start) + 1, "start": start})
        yield Mistake(source.path, *at, *_PATTERN)


def _objects(node: object) -> Iterator[Node]:
    """Yield the objects in a pattern, the outermost of each."""
    if isinstance(node, list):
        for item in node:
            yield from _objects(item)
    elif isinstance(node, dict):
        kind, body = unwrap(node)
        if kind == "Object":
            yield node
        elif kind in {"Array", "Set"}:
            yield from _objects(body["items"])


def _unifying(query: Node) -> Iterator[Node]:
    """Yield what may bind names: `=`, `walk`, and lists of names as an index."""
    for kind, body in below(query):
        if (kind == "AssignExpr" and body["op"] == "Eq") or (
            kind == "Call" and written_name(body["fcn"]) == "walk"
        ):
            yield {kind: body}
        elif kind == "RefBrack":
            index, inner = unwrap(body["index"])
            if index in {"Array", "Set", "Object"} and names_in(inner) - {*_GIVEN}:
                yield body["index"]


def _arity(source: Source, name: str, definitions: Definitions) -> int | None:
    """Return how many arguments a function takes; None where it is not known."""
    first, *rest = name.split(".")
    path = (*source.module.imports.get(first, (first,)), *rest)
    if name in definitions.names_in(source.module.package):
        path = ("data", *source.module.package, name)
    found = definitions.find(path) if path[0] == "data" else None
    if found is None:
        return TAKES.get(name)
    return len(parameters(definitions.rules[found][0][1]))


def _repeated(source: Source, patterns: list[Node]) -> Iterator[Mistake]:
    """Yield patterns that name what one before them names."""
    text = source.text.encode()
    seen: set[str] = set()
    for pattern in patterns:
        names = {name for name, _ in pattern_names(pattern, text)} - {"_"}
        if names & seen:
            yield mistake_at(source, pattern, *_TWICE)
        seen |= names


def _shadowed(source: Source, rule: Node, definitions: Definitions) -> Iterator[Mistake]:
    """Yield what `some` declares although it is bound around: by name, argument, rule or import."""
    text = source.text.encode()
    given = {*definitions.names_in(source.module.package), *source.module.imports}
    given |= {name for each in parameters(rule) for name, _ in pattern_names(each, text)}
    for body in alternatives(rule):
        for name, span in _declared_again([*body.whole, *body.values], given, text):
            code, message, hint = _SHADOWED
            yield Mistake(source.path, *place(text, span), code, f"`{name}` {message}", hint)
        for name, span in _bound_below_not([*body.whole, *body.values], given, text):
            code, message, hint = _LATER
            yield Mistake(source.path, *place(text, span), code, f"`{name}` {message}", hint)


def _declared_again(query: list[Node], around: set[str], text: bytes) -> Iterator[tuple[str, Node]]:
    """Yield (name, span) of what a query declares by `some` although it is known around it."""
    seen, bound = set(around), set(around)
    inner: list[list[Node]] = []
    for kind, body in above_queries(query):
        if kind in {*CLOSURES, "Every"}:
            heads = [body.get(part) for part in ("term", "key", "value")]
            inner.append([*body["query"]["stmts"], *heads])
            continue
        for pattern in _declaring_some(kind, body):
            for name, span in pattern_names(pattern, text):
                if name in seen:
                    yield name, span
                seen |= {name} - {"_"}
                bound.add(name)
        for bound_here in bindings(kind, body):
            bound |= {name for name, _ in pattern_names(bound_here, text)}
    for each in inner:
        yield from _declared_again(each, bound - {"_"}, text)


def _bound_below_not(
    query: list[Node], around: set[str], text: bytes
) -> Iterator[tuple[str, Node]]:
    """Yield (name, span) of each index below a `not` that a later statement of a query binds."""
    bound = set(around)
    waiting: list[tuple[str, Node]] = []
    for statement in query:
        negated = "NotExpr" in statement.get("literal", {})
        for kind, body in above_queries(statement):
            if negated and kind == "RefBrack":
                found = pattern_names(body["index"], text)
                waiting += [each for each in found if each[0] not in {*bound, "_"}]
            elif not negated:
                patterns = (*bindings(kind, body), *_declaring_some(kind, body))
                bound |= {name for each in patterns for name, _ in pattern_names(each, text)}
    yield from (each for each in waiting if each[0] in bound)
    for kind, body in above_queries(query):
        if kind in {*CLOSURES, "Every"}:
            yield from _bound_below_not(body["query"]["stmts"], bound, text)


def _declaring_some(kind: str, body: Any) -> list[Node]:  # noqa: ANN401
    if kind == "SomeVars":
        return list(body["vars"])
    return [each for each in (body["key"], body["value"]) if each] if kind == "SomeIn" else []


def _declared(rule: Node, text: bytes) -> Iterator[tuple[str, Node]]:
    yield from declared(rule, text)
    if "Default" in rule:
        for argument in parameters(rule):
            yield from pattern_names(argument, text)


def _imports(source: Source, definitions: Definitions) -> Iterator[Mistake]:
    """Yield imports of another Rego, or named as what is given or as a rule of the package."""
    text, rules = source.text.encode(), definitions.names_in(source.module.package)
    for name, path in source.module.imports.items():
        hint = f"import it by another name, `import … as my_{name}`"
        if path[0] in _LANGUAGE and path not in _REGO_V1:
            told = ".".join(path)
            fault = "other_rego", f"with `{told}` OPA reads the module otherwise, this engine not"
            hint = "remove the import, and write what it was for in Rego v1"
        elif name in _GIVEN and path != (name,):
            fault = "name_reserved", f"`{name}` is given, and cannot be the name of an import"
        elif name in rules:
            fault = "name_twice", f"`{name}` is an import and a rule, and engines take either"
        else:
            continue
        # What is imported comes last among a module's references.
        use = next(use for use in reversed(source.module.refs) if use.path == path)
        at = place(text, {"line": use.line, "start": use.start})
        yield Mistake(source.path, *at, *fault, hint)
