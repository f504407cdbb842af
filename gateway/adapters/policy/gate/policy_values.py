"""What the expressions of a policy stand for: names, and what their values are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from gateway.adapters.policy.gate.input_types import InputTypes
from gateway.adapters.policy.gate.policy_answers import answer
from gateway.adapters.policy.gate.policy_kinds import (
    ARRAY,
    BOOLEAN,
    COLLECTION,
    NUMBER,
    OBJECT,
    ORDERING,
    SET,
    kind_of,
    only,
)
from gateway.adapters.policy.gate.policy_made import (
    MIXED,
    NOTHING,
    SHIPPED,
    TRUSTED,
    UNKNOWN,
    UNNAMED,
    Key,
    Token,
    Value,
    checked,
    hold,
    is_mixed,
    is_raw,
    join,
    lasts,
    member,
    mixed,
    mixed_of,
    names,
    parameter,
    parts,
    plain,
    raw_of,
    settled,
    wild,
    within,
)
from gateway.adapters.policy.gate.policy_uses import Summary
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Node,
    bound_to_nothing,
    declared,
    is_literal,
    literal_value,
    names_in,
    path_asked,
    pattern_names,
    source_of,
    unwrap,
    written,
)

_COLLECTIONS: Final = {"Array": ARRAY, "Set": SET, "Object": OBJECT}
_CLOSURE_KINDS: Final = {"ArrayCompr": ARRAY, "SetCompr": SET, "ObjectCompr": OBJECT}


class Context(Struct, frozen=True):
    """The module of a body: its text, its package, what its imports and rules are called."""

    text: bytes
    package: Key
    imports: Mapping[str, Key]
    rules: frozenset[str]
    types: InputTypes
    find: Callable[[Key], tuple[Summary, bool] | None]
    """The summary of the rule or function at a path below `data`; whether the path goes on."""
    establish: Callable[[list[Node], Locals], None]
    """Reads statements: binds what they bind, and adds what they establish to `guarded`."""


class Locals:
    """The variables of one body, and of those around it."""

    def __init__(self, context: Context, outer: Locals | None = None) -> None:
        self.context = context
        self._keys: dict[str, Key] = dict(outer._keys) if outer else {}  # noqa: SLF001 - of the same class
        self._given: dict[Key, Value] = dict(outer._values) if outer else {}  # noqa: SLF001
        self._origins: dict[Key, Key] = dict(outer._origins) if outer else {}  # noqa: SLF001
        self._depth: str = f"{outer._depth}'" if outer else ""  # noqa: SLF001
        self._values: dict[Key, Value] = dict(self._given)
        self._bound: set[str] = set(self._keys)
        self.guarded: dict[Key, int] = dict(outer.guarded) if outer else {}
        self.outer_guarded = dict(self.guarded)
        self.never = False
        """Whether it asks of something to be of two types, and so never holds."""

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
        return (*base, f"[{self._index(body['index'])}")

    def _index(self, node: Node) -> str:
        found = self.key(node)
        if found:
            return "/".join(found)
        text = written(self.context.text, unwrap(node)[1]["span"])
        return text if is_literal(node) else f"{text} {self._locals_in(node)}"

    def _variable(self, name: str) -> Key:
        if name in self._keys:
            return self._keys[name]
        if name in self.context.imports:
            return self.context.imports[name]
        if name in {"input", "data"}:
            return (name,)
        if name in self.context.rules:
            path = ("data", *self.context.package, name)
            found = self.context.find(path)
            return found[0].alias or path if found else path
        return (f"%{name}{self._depth}",)

    def _answer(self, node: Node) -> Key | None:
        """Name the answer of `object.get` by how it is asked for, so that it can be guarded."""
        if self.function(node) != ("object", "get") or "_" in names_in(node):
            return None
        text = " ".join(source_of(self.context.text, node).split())
        key = ("%call", text, self._locals_in(node))
        if (origin := self.origin(node)) is not None:
            self._origins[key] = origin
        return key

    def _locals_in(self, node: Node) -> str:
        """Say which variables of this body a node names: a name may be declared anew below."""
        keys = (self._variable(name) for name in sorted(names_in(node)))
        return " ".join("/".join(key) for key in keys if key[0] not in {"input", "data"})

    def function(self, node: Node) -> Key:
        """Return the path of a called function: below `data`, or that of a built-in one."""
        found = self.key(unwrap(node)[1]["fcn"]) or ("",)
        return (found[0].lstrip("%").rstrip("'"), *found[1:])

    def _is_free(self, name: str) -> bool:
        """Whether `=` may bind this name: nothing else is called so."""
        return name not in {"input", "data", *self.context.rules, *self.context.imports}

    def origin(self, node: Node) -> Key | None:
        """Return what a value is called outside of this body; None if it has no name there."""
        kind, body = unwrap(node)
        if kind == "Call":
            if self.function(node) == ("object", "get") and (path := path_asked(body["params"])):
                base = self.origin(body["params"][0])
                return (*base, *path) if base else None
            text = " ".join(source_of(self.context.text, node).split())
            return None if self._locals_in(node) or "_" in names_in(node) else ("%call", text)
        key = self.key(node)
        return None if key is None else self.origin_of(key)

    def origin_of(self, key: Key) -> Key | None:
        """Return what a key is called outside of this body, with `[` for any index."""
        if key[0] == "%call":
            return self._origins.get(key)
        if not lasts(key):
            base = self._origins.get(key[:1])
            return (*base, *plain(key[1:])) if base else None
        return plain(key)

    def established(self) -> dict[Key, int]:
        """Return what was of any type before the checks of this body, as others call it."""
        found: dict[Key, int] = {}
        for key, kinds in self.guarded.items():
            origin = self.origin_of(key)
            asked = key[0] == "%call" or key[-1] == "!"
            known = {origin or UNNAMED} if asked else names(self._unchecked(key), origin)
            for name in known:
                found[name] = (found.get(name, kinds) & kinds) or kinds
        return found

    # --- what they are made of ------------------------------------------------------------------

    def value(self, node: Node) -> Value:
        """Return what an expression may be made of."""
        kind, body = unwrap(node)
        key = self.key(node) if kind == "Call" or kind in REFERENCES else None
        if kind == "Call":
            return self._checked(self._call(node, body["params"]), key)
        if key is not None:
            return self.at(key)
        if kind in REFERENCES:
            return member(self.value(body["refr"]))
        if kind in CLOSURES:
            return self._closure(kind, body)
        if is_literal(node):
            return Value(kinds=kind_of(literal_value(kind, body)))
        return self._composed(kind, body)

    def at(self, key: Key) -> Value:
        """Return what stands at a key."""
        return within(self._checked(self._unchecked(key), key), self._around(key))

    def _around(self, key: Key) -> frozenset[Key]:
        """Return the lists and objects that a member is of, where a check says that they are some.

        Whoever compares it says nothing where they are something else.
        """
        found: frozenset[Key] = frozenset()
        for length, part in enumerate(key):
            if part[:1] == "[" and not part[1:].isdigit() and key[:length] in self.guarded:
                base = key[:length]
                found |= names(self._unchecked(base), self.origin_of(base))
        return found

    def is_collection(self, key: Key) -> bool:
        """Whether a part of the input always is a list or an object."""
        return key[0] == "input" and self.context.types.is_collection(wild(key))

    def _checked(self, value: Value, key: Key | None) -> Value:
        if key is None or not self.guarded:
            return value
        origin = self.origin_of(key)
        # What an `every` says of each member holds for those that are called otherwise, too.
        kinds = self.guarded.get(key) or (self.guarded.get(origin) if origin else None)
        return checked(value, kinds, origin) if kinds else value

    def _unchecked(self, key: Key) -> Value:
        if key[0] == "input":
            kinds = self.context.types.kinds(wild(key))
            return UNKNOWN if kinds is None else Value(NOTHING, NOTHING, *kinds)
        if key[0] == "data":
            found = self.context.find(key)
            if found is None:
                return TRUSTED
            return member(found[0].value) if found[1] else found[0].value
        value = self._values.get(key[:1], TRUSTED)
        return value if len(key) == 1 else member(value)

    def members_of(self, node: Node) -> Value:
        """Return what the members of a value are."""
        key = self.key(node)
        if key is not None and key[0] != "%call":
            return self.at((*key, "["))
        whole = self.value(node)
        around = frozenset(token for token in whole.own if isinstance(token, tuple))
        return within(member(whole), around)

    def _closure(self, kind: str, body: Node) -> Value:
        heads = [body[part] for part in ("term", "key", "value") if part in body]
        # What its head asks for has to be there, as if it were bound in the last statement.
        stmts = [*body["query"]["stmts"], *map(bound_to_nothing, heads)]
        inner = self.inside({"stmts": stmts})
        values = [inner.value(head) for head in heads]
        found, left = hold(_CLOSURE_KINDS[kind], values), inner.left_out(heads, values)
        return Value(found.own, found.inner | left, found.kinds, found.members)

    def left_out(self, heads: Iterable[Node], values: Iterable[Value]) -> frozenset[Token]:
        """Return what is kept out of what is made here of these heads, as it is mixed.

        That is what checks of this body keep out, and what functions do not answer to.
        """
        found = list(values)
        keys = {key for each in found for key in each.own | each.inner if isinstance(key, tuple)}
        keys |= self._iterated()
        left = mixed_of(keys - {*self.outer_guarded, *map(self.origin_of, self.outer_guarded)})
        left |= {MIXED} if self.never else NOTHING
        if len(self.guarded) == len(self.outer_guarded):
            return left
        mine, self.guarded = self.guarded, self.outer_guarded
        without = raw_of(map(self.value, heads))
        self.guarded = mine
        return left | mixed(without - raw_of(found))

    def _iterated(self) -> set[Key]:
        """Return what this body iterates and nothing around it knows to be a list or an object."""
        new = self.guarded.keys() - self.outer_guarded.keys()
        bases = [key for key in new if not self.guarded[key] & ~COLLECTION]
        return set().union(*(names(self._unchecked(key), self.origin_of(key)) for key in bases))

    def _composed(self, kind: str, body: Node) -> Value:
        if kind in {"Array", "Set"}:
            return hold(_COLLECTIONS[kind], map(self.value, body["items"]))
        if kind == "Object":
            return hold(OBJECT, (self.value(field[-1]) for field in body["fields"]))
        if kind == "UnaryExpr":
            return Value(settled(self.value(body["expr"]).own), NOTHING, NUMBER, 0)
        if kind not in {"ArithExpr", "BinExpr"}:
            return Value(kinds=BOOLEAN)
        one, other = self.value(body["lhs"]), self.value(body["rhs"])
        if kind == "BinExpr" or (one.kinds | other.kinds) & SET:
            return Value(NOTHING, one.inner | other.inner, SET, only(one.members | other.members))
        return Value(settled(one.own | other.own), NOTHING, NUMBER, 0)

    # --- what functions make of them ------------------------------------------------------------

    def _call(self, node: Node, given: list[Node]) -> Value:
        name = self.function(node)
        if name[0] == "data":
            found = self.context.find(name)
            return self.substitute(found[0].value, node) if found else TRUSTED
        if name == ("object", "get") and len(given) > 1:
            return self._get(given)
        if name in ORDERING and given:
            each = self.members_of(given[0])
            each = Value(settled(each.own), settled(each.inner), each.kinds, each.members)
            return hold(ARRAY, [each]) if name == ("sort",) else each
        return answer(".".join(name), [self.value(one) for one in given])

    def _get(self, given: list[Node]) -> Value:
        key, path = self.key(given[0]), path_asked(given)
        if key is not None and key[0] != "%call":
            found = self.at((*key, *path) if path else (*key, "["))
        else:
            found = member(self.value(given[0]))
        return join(found, self.value(given[2])) if len(given) > 2 else found  # noqa: PLR2004

    def substitute(self, value: Value, call: Node) -> Value:
        """Return what a function answers where it is called with these arguments."""
        if not value.own and not value.inner:
            return value
        kinds, members = value.kinds, value.members
        given = [self.value(one) for one in unwrap(call)[1]["params"]]
        for token in value.own:
            if isinstance(token, int) and token >= 0 and is_raw(token):
                number, below, _ = parts(token)
                if number < len(given):
                    arg = given[number]
                    kinds |= arg.members if below else arg.kinds
                    members |= arg.members
        own = self.translate(value.own, call)
        return Value(own, self.translate(value.inner, call), kinds, only(members))

    def translate(self, tokens: frozenset[Token], call: Node) -> frozenset[Token]:
        """Return tokens of a function in terms of what it is given here."""
        found: set[Token] = set()
        for token in tokens:
            if isinstance(token, tuple) and token in {UNNAMED, SHIPPED}:
                found.add(self.origin(call) or token)
            elif isinstance(token, int) and token >= 0:
                found |= self._passed(token, call)
            elif isinstance(token, tuple) and token[0][1:].isdigit():
                found |= self._renamed(token, call)
            else:
                found.add(token)
        return frozenset(found)

    def _passed(self, token: int, call: Node) -> frozenset[Token]:
        number, below, is_mix = parts(token)
        given = unwrap(call)[1]["params"]
        if number >= len(given):
            return NOTHING
        arg = self.members_of(given[number]) if below else self.value(given[number])
        tokens = arg.own | arg.inner if below else arg.own
        return mixed(tokens) if is_mix else tokens

    def _renamed(self, key: Key, call: Node) -> frozenset[Token]:
        number, given = int(key[0][1:]), unwrap(call)[1]["params"]
        if number >= len(given):
            return NOTHING
        arg = self.value(given[number])
        # What was mixed before it was checked stays so.
        made = filter(is_mixed, arg.inner if len(key) > 1 else arg.own)
        found = frozenset(made).union(
            each for each in arg.own | arg.inner if isinstance(each, tuple)
        )
        if not any(map(is_raw, arg.own | arg.inner)):
            return found
        base = self.origin(given[number])
        return found | {(*base, *key[1:]) if base else UNNAMED}

    # --- bodies ---------------------------------------------------------------------------------

    def inside(self, query: Node) -> Locals:
        """Return the variables within a comprehension or `every`, which sees those around it."""
        found = Locals(self.context, self)
        self.context.establish(query["stmts"], found)
        return found

    def take(self, patterns: Iterable[Node]) -> None:
        """Declare parameters."""
        for number, pattern in enumerate(patterns):
            plain = unwrap(pattern)[0] == "Var"
            for name, _ in pattern_names(pattern, self.context.text):
                self._keys[name] = (f"%{number}",) if plain else (f"%{number}", name)
                self._bound.add(name)
            self._given[(f"%{number}",)] = parameter(number)

    def read(self, statements: Iterable[Node]) -> None:
        """Bind what these statements bind. Twice, for what is used may be bound below."""
        statements = list(statements)
        self._values = dict(self._given)
        for statement in statements:
            for name, _ in self._declared(statement["literal"]):
                self._keys[name] = (f"%{name}{self._depth}",)
        for _ in range(2):
            for statement in statements:
                named = not statement.get("with_mods")
                self._bind(*unwrap(statement["literal"]), named=named)

    def _declared(self, statement: Node) -> Iterator[tuple[str, Node]]:
        """Yield what a statement declares in this body, not in comprehensions within it."""
        kind, body = unwrap(statement)
        if kind == "Expr":
            kind, body = unwrap(body["expr"])
            if kind == "AssignExpr" and body["op"] == "ColEq":
                for name, span in pattern_names(body["lhs"], self.context.text):
                    self._bound.add(name)
                    yield name, span
        elif kind != "Every":
            for name, span in declared({kind: {**body, "collection": None}}, self.context.text):
                if kind == "SomeIn":
                    self._bound.add(name)
                yield name, span

    def _bind(self, kind: str, body: Any, *, named: bool) -> None:  # noqa: ANN401
        if kind == "SomeIn":
            value, base = self.members_of(body["collection"]), self.origin(body["collection"])
            for pattern in (body["key"], body["value"]):
                self._give(pattern, value, (*base, "[") if base else None)
        if kind != "Expr":
            return
        kind, body = unwrap(body["expr"])
        if kind == "AssignExpr":
            self._assign(body["lhs"], body["rhs"], named=named)
            if body["op"] == "Eq":
                self._assign(body["rhs"], body["lhs"], named=named)
        elif kind == "Call" and len(body["params"]) > 1:
            self._bind_answer(body)

    def _bind_answer(self, body: Node) -> None:
        """Bind the last argument of `walk(x, [path, value])` or `count(x, n)`."""
        *given, last = body["params"]
        names = [name for name, _ in pattern_names(last, self.context.text)]
        if names and not any(name in self._bound or not self._is_free(name) for name in names):
            value = self._call({"Call": {**body, "params": given}}, given)
            self._give(last, value, None)

    def _assign(self, pattern: Node, value: Node, *, named: bool) -> None:
        kind, body = unwrap(pattern)
        names = [name for name, _ in pattern_names(pattern, self.context.text)]
        if not names:
            return
        self._bound.update(names)
        if (
            named
            and kind == "Var"
            and (body["value"] in self._keys or self._is_free(body["value"]))
        ):
            key = self.key(value)
            if key is not None and key[0] not in {"%call", f"%{body['value']}{self._depth}"}:
                self._keys[body["value"]] = key
                return
        found = self.value(value)
        self._give(pattern, found, self.origin(value) if named and found.own else None)

    def _give(self, pattern: Node | None, value: Value, origin: Key | None) -> None:
        plain = pattern is not None and ("start" in pattern or unwrap(pattern)[0] == "Var")
        value = value if plain else member(value)
        for name, _ in pattern_names(pattern, self.context.text):
            if name != "_" and (name in self._keys or self._is_free(name)):
                key = self._keys.setdefault(name, (f"%{name}{self._depth}",))
                if len(key) == 1 and key[0].startswith("%"):
                    before = self._values.get(key)
                    self._values[key] = value if before is None else join(before, value)
                    if origin is not None and plain:
                        self._origins[key] = origin

    def give_every(self, body: Node, inner: Locals) -> None:
        """Bind the variables of an `every` in what is within it."""
        value, base = self.members_of(body["domain"]), self.origin(body["domain"])
        for part in ("key", "value"):
            inner.declare(body[part], value, (*base, "[") if base else None)

    def declare(self, pattern: Node | None, value: Value, origin: Key | None) -> None:
        """Declare the names of a pattern anew, made of `value`."""
        for name, _ in pattern_names(pattern, self.context.text):
            key = self._keys[name] = (f"%{name}{self._depth}",)
            self._bound.add(name)
            self._given[key] = value
            if origin is not None:
                self._origins[key] = origin
