"""What expressions of a policy stand for: which may hold a value of any type.

A value is followed from where it enters (`input`, or a parameter) through locals, rules and
functions to where it is compared. `ANY` marks what may be of any type; a number marks what a
function was given as that parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.policy.input_types import InputTypes
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Node,
    declared,
    pattern_names,
    unwrap,
    written,
)

ANY: Final = -1
NOTHING: Final[frozenset[int]] = frozenset()
Key = tuple[str, ...]
"""Names a value within a body: a path below `input` or `data`, a local (`%x`), a parameter."""

_HANDING_ON: Final = frozenset(
    {
        *("object.get", "max", "min", "json.unmarshal", "yaml.unmarshal", "sort", "walk"),
        *("array.concat", "array.reverse", "array.slice", "object.union", "object.union_n"),
        *("object.filter", "object.remove", "json.filter", "json.remove", "json.patch", "union"),
        *("intersection", "object.keys", "urlquery.decode_object"),
    }
)
"""Built-in functions whose answer is made of what they were given, of whatever type it is."""


class Summary(Struct, frozen=True):
    """What a rule or function is to those who use it.

    `sources`: what its value is made of. `compared`: parameters that it compares and whose type it
    does not establish. `guards`: what certainly is of one type where the rule is defined (`shown`)
    or true (`true`); a parameter is `("%0",)`.
    """

    sources: frozenset[int] = NOTHING
    compared: frozenset[int] = NOTHING
    shown: frozenset[Key] = frozenset()
    true: frozenset[Key] = frozenset()


class Context(Struct, frozen=True):
    """The module of a body: its text, its package, what its imports and rules are called."""

    text: bytes
    package: Key
    imports: Mapping[str, Key]
    rules: frozenset[str]
    types: InputTypes
    find: Callable[[Key], Summary | None]
    """The summary of the rule or function at a path below `data`."""
    establish: Callable[[list[Node], Locals], None]
    """Reads statements: binds what they bind, and adds what they establish to `guarded`."""


class Locals:
    """The variables of one body, and of those around it."""

    def __init__(self, context: Context, outer: Locals | None = None) -> None:
        self.context = context
        self._keys: dict[str, Key] = {}
        self._sources: dict[Key, frozenset[int]] = {}
        self._depth = ""
        if outer is not None:
            self._keys |= outer._keys  # noqa: SLF001 - of the same class
            self._sources |= outer._sources  # noqa: SLF001
            self._depth = outer._depth + "'"  # noqa: SLF001
        self.guarded: set[Key] = set(outer.guarded) if outer else set()
        self._given = dict(self._sources)

    # --- names ----------------------------------------------------------------------------------

    def key(self, node: Node) -> Key | None:
        """Return what a reference names; None if the node is none."""
        kind, body = unwrap(node)
        if kind == "Var":
            # Each `_` is another value.
            wild = f"_{body['span']['start']}" if body["value"] == "_" else ""
            return self._variable(wild or body["value"])
        if kind == "Call":
            return self._answer(node)
        if kind not in REFERENCES or (base := self.key(body["refr"])) is None:
            return None
        if base[0] == "%call":
            return None
        if kind == "RefDot":
            return (*base, body["field"][1])
        kind, index = unwrap(body["index"])
        if kind in {"String", "RawString"}:
            return (*base, index["value"])
        found = self.key(body["index"])
        return (
            *base,
            "[" + ("/".join(found) if found else written(self.context.text, index["span"])),
        )

    def _variable(self, name: str) -> Key:
        if name in self._keys:
            return self._keys[name]
        if name in self.context.imports:
            return self.context.imports[name]
        if name in {"input", "data"}:
            return (name,)
        if name in self.context.rules:
            return ("data", *self.context.package, name)
        return (f"%{name}{self._depth}",)

    def _answer(self, node: Node) -> Key | None:
        """Name the answer of `object.get` by how it is asked for, so that it can be guarded."""
        if self.function(node) != ("object", "get") or "_" in self._names(node):
            return None
        return ("%call", " ".join(written(self.context.text, unwrap(node)[1]["span"]).split()))

    def _names(self, node: object) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(self._names, node))
        if not isinstance(node, dict):
            return set()
        found = set().union(*map(self._names, node.values()))
        return found | {node["Var"]["value"]} if "Var" in node else found

    def function(self, node: Node) -> Key:
        """Return the path of a called function: below `data`, or that of a built-in one."""
        found = self.key(unwrap(node)[1]["fcn"]) or ("",)
        return (found[0].lstrip("%").rstrip("'"), *found[1:])

    def _is_free(self, name: str) -> bool:
        """Whether `=` may bind this name: nothing else is called so."""
        return name not in {"input", "data", *self.context.rules, *self.context.imports}

    # --- what they are made of ------------------------------------------------------------------

    def sources(self, node: Node) -> frozenset[int]:
        """Return what the value of an expression may be made of; nothing if its type is known."""
        key = self.key(node)
        if key is not None and key in self.guarded:
            return NOTHING
        kind, body = unwrap(node)
        if kind == "Call":
            return self._call_sources(node)
        if key is not None:
            return self._key_sources(key)
        if kind in {"RefDot", "RefBrack"}:
            return self.sources(body["refr"])
        if kind in CLOSURES:
            inner = self.inside(body["query"])
            return self._all(
                inner, (body[part] for part in ("term", "key", "value") if part in body)
            )
        if kind in {"Array", "Set"}:
            return self._all(self, body["items"])
        if kind == "Object":
            return self._all(self, (field[-1] for field in body["fields"]))
        return self._all(self, (body["lhs"], body["rhs"])) if kind == "BinExpr" else NOTHING

    @staticmethod
    def _all(scope: Locals, nodes: Iterable[Node]) -> frozenset[int]:
        return NOTHING.union(*(scope.sources(node) for node in nodes))

    def _key_sources(self, key: Key) -> frozenset[int]:
        if key[0] == "input":
            path = tuple("" if part[:1] == "[" else part for part in key[1:])
            return NOTHING if self.context.types.is_typed(path) else frozenset({ANY})
        if key[0] == "data":
            found = self.context.find(key)
            return found.sources if found else NOTHING
        return self._sources.get(key[:1], NOTHING)

    def _call_sources(self, node: Node) -> frozenset[int]:
        name, given = self.function(node), unwrap(node)[1]["params"]
        if name[0] == "data":
            found = self.context.find(name)
            return self.substitute(found.sources, given) if found else NOTHING
        return self._all(self, given) if ".".join(name) in _HANDING_ON else NOTHING

    def substitute(self, sources: frozenset[int], given: list[Node]) -> frozenset[int]:
        """Return what a function's sources are where it is called with these arguments."""
        passed = (self.sources(given[number]) for number in sources if 0 <= number < len(given))
        return (sources & {ANY}).union(*passed)

    # --- bodies ---------------------------------------------------------------------------------

    def inside(self, query: Node) -> Locals:
        """Return the variables within a comprehension or `every`, which sees those around it."""
        found = Locals(self.context, self)
        self.context.establish([item["literal"] for item in query["stmts"]], found)
        return found

    def take(self, patterns: Iterable[Node]) -> None:
        """Declare parameters."""
        for number, pattern in enumerate(patterns):
            for name, _ in pattern_names(pattern, self.context.text):
                plain = unwrap(pattern)[0] == "Var"
                self._keys[name] = (f"%{number}",) if plain else (f"%{number}", name)
            self._given[(f"%{number}",)] = frozenset({number})

    def read(self, statements: Iterable[Node]) -> None:
        """Bind what these statements bind. Twice, for what is used may be bound below."""
        statements = list(statements)
        self._sources = dict(self._given)
        for statement in statements:
            for name, _ in self._declared(statement):
                self._keys[name] = (f"%{name}{self._depth}",)
        for _ in range(2):
            for statement in statements:
                self._bind(*unwrap(statement))

    def _declared(self, statement: Node) -> Iterator[tuple[str, Node]]:
        """Yield what a statement declares in this body, not in comprehensions within it."""
        kind, body = unwrap(statement)
        if kind == "Expr":
            kind, body = unwrap(body["expr"])
            if kind == "AssignExpr" and body["op"] == "ColEq":
                yield from pattern_names(body["lhs"], self.context.text)
        elif kind != "Every":
            yield from declared({kind: {**body, "collection": None}}, self.context.text)

    def _bind(self, kind: str, body: Any) -> None:  # noqa: ANN401
        if kind == "SomeIn":
            sources = self._members(body["collection"])
            for pattern in (body["key"], body["value"]):
                self._give(pattern, sources)
        if kind != "Expr":
            return
        kind, body = unwrap(body["expr"])
        if kind == "AssignExpr":
            self._assign(body["lhs"], body["rhs"])
            if body["op"] == "Eq":
                self._assign(body["rhs"], body["lhs"])
        elif (
            kind == "Call" and len(body["params"]) > 1 and self.function({kind: body}) == ("walk",)
        ):
            self._give(body["params"][1], self.sources(body["params"][0]))

    def _members(self, node: Node) -> frozenset[int]:
        key = self.key(node)
        return self._key_sources((*key, "[")) if key and key[0] == "input" else self.sources(node)

    def _assign(self, pattern: Node, value: Node) -> None:
        kind, body = unwrap(pattern)
        if kind == "Var" and (body["value"] in self._keys or self._is_free(body["value"])):
            key = self.key(value)
            if key is not None and key[0] not in {"%call", f"%{body['value']}{self._depth}"}:
                self._keys[body["value"]] = key
                return
        self._give(pattern, self.sources(value))

    def _give(self, pattern: Node | None, sources: frozenset[int]) -> None:
        for name, _ in pattern_names(pattern, self.context.text):
            if name != "_" and (name in self._keys or self._is_free(name)):
                key = self._keys.setdefault(name, (f"%{name}{self._depth}",))
                if len(key) == 1 and key[0].startswith("%"):
                    self._sources[key] = self._sources.get(key, NOTHING) | sources

    def give_every(self, body: Node, inner: Locals) -> None:
        """Bind the variables of an `every` in what is within it."""
        for part in ("key", "value"):
            inner.declare(body[part], self._members(body["domain"]))

    def declare(self, pattern: Node | None, sources: frozenset[int]) -> None:
        """Declare the names of a pattern anew, made of `sources`."""
        for name, _ in pattern_names(pattern, self.context.text):
            self._keys[name] = (f"%{name}{self._depth}",)
            self._given[self._keys[name]] = sources
