"""Random policies and random inputs, from a seed, to hold two engines against each other.

Policies are built from a grammar of what authors write. Some do not pass the gate, and only those
that do are compared.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

TEXTS = [
    "",
    "a",
    "b",
    "abc",
    "Ünï",
    "\u0130",
    "😀",
    "10.1.2.3",
    "acme.example",
    "x@acme.example",
    "2026-01-02T03:04:05Z",
    "7",
]
NUMBERS = [0, 1, -1, 2, 10, 100, 1.5, -0.5, 1000, 12345]
"""Fractions that both engines calculate with exactly: docs/opa.md tells of others."""
FIELDS = ["a", "b", "c", "d", "list", "object", "text", "n"]
ODD_TEXTS = [
    "\u0130", "\u212a", "stra\u00dfe", "\u1e9e", "\u03a3\u03c2", "e\u0301", "a😀b", "👨\u200d👩",
    "\u0663", "\uff11\uff12", "\u00a0", " 5", "5\n", "1e3", "-0", "::ffff:10.1.2.3", "010.1.2.3",
    "10.1.2.3", "2024-02-29 23:59:60Z", "2024-02-29T23:59:59Z", "v1.0.0", "1.0.0-rc.1", "a~1b",
    "%zz", "a+b%20c", "YQ", "w6k=", "\u2028<&>", "aaa", "a.example", "a\nb", "\\d", "[[a]",
    "$1", "{a,b}",
]  # fmt: skip
"""What functions of texts have been seen to read differently."""
HOSTILE: list[Any] = [
    *ODD_TEXTS,
    None, True, False, "", "\u0000", "x" * 300, "😀", -1, 0, 1.5, 99999, [], {}, [None],
    [[]], {"": {}}, {"a": {"a": {}}}, ["a", 1, None], "null", "true", "1", " a ", "A",
]  # fmt: skip
_ORDER = ["<", "<=", ">", ">="]
_COMPARE = ["==", "!=", *_ORDER]


# Kinds of values, as far as OPA's compiler knows them: it refuses what can never fit
ANY, TEXT, NUMBER, BOOL, NULL, LIST, SET, OBJECT, MIXED = (
    "any", "text", "number", "bool", "null", "list", "set", "object", "mixed",
)  # fmt: skip
Term = tuple[str, str]
"""What is written, and its kind."""
Function = tuple[str, tuple[str, ...], str]
"""A name, what it takes, and what it answers."""
Made = TypeVar("Made")
_CHECKS: Final = {
    TEXT: "is_string", NUMBER: "is_number", LIST: "is_array", SET: "is_set", OBJECT: "is_object",
}  # fmt: skip


def _kind_of(value: object) -> str:
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOL
    return TEXT if isinstance(value, str) else NUMBER


class Author:
    """Writes packages named `policies.<name>`.

    Most are such as the gate and OPA's compiler let through: functions get what may fit, limits
    have a check beside them, patterns bind new names. `_odd` is the share of what may be refused.
    """

    def __init__(self, seed: int) -> None:
        self._pick = random.Random(seed)  # noqa: S311 - to be the same each time
        self._helpers: list[Term] = []
        self._bound: list[Term] = []
        self._limited: list[str] = []
        self._guards: list[str] = []
        self._names = 0
        self._callable = False
        self._in_head = False
        self._in_every = False
        self._odd = 0.01

    def package(self, name: str) -> str:
        """Return a package of a few helpers, functions and decision rules."""
        self._helpers, self._bound, self._limited, self._names = [], [], [], 0
        self._callable = False
        functions = [self._function()] if self._chance(0.5) else []
        self._callable = bool(functions)
        helpers = []
        for number in range(self._pick.randint(1, 4)):
            text, kind = self._helper(f"h{number}")
            helpers.append(text)
            self._helpers.append((f"h{number}", kind))  # those after it may read it, none itself
        rules = [self._rule() for _ in range(self._pick.randint(1, 4))]
        spoken = [self._speak_of(ref) for ref in dict.fromkeys(self._limited) if self._chance(0.7)]
        parts = [f"package policies.{name}", *functions, *helpers, *rules, *spoken]
        return "\n\n".join(parts) + "\n"

    def _chance(self, share: float) -> bool:
        return self._pick.random() < share

    def _one(self, items: Sequence[Any]) -> Any:  # noqa: ANN401 - whatever is in it
        return self._pick.choice(items)

    # Rules

    def _rule(self) -> str:
        kind = self._one(["deny", "hold", "permit", "obligation"])
        known = '"type": "annotate"' if kind == "obligation" else '"code": "x"'
        code = known if self._chance(0.9) else f'"code": "{self._one(["y", "z"])}"'
        head, guards = self._head(2)
        return f'{kind} contains {{{code}, "m": {head[0]}}} if {self._body(guards)}'

    def _speak_of(self, ref: str) -> str:
        """Return rules that speak of what is no number, where a limit says nothing of it."""
        self._names += 1
        known = f"known{self._names}"
        return f'{known} if is_number({ref})\n\ndeny contains {{"code": "unclear"}} if not {known}'

    def _helper(self, name: str) -> Term:
        chance = self._pick.random()
        if chance < 0.3:
            return f"{name} if {self._body()}", BOOL
        if chance < 0.5:
            (value, kind), guards = self._guarded_by(lambda: self._term(2))
            return f"{name} := {value} if {self._body(guards)}", kind
        if chance < 0.6:
            (value, _), guards = self._guarded_by(lambda: self._term(1))
            rule = f"{name} := {value} if {self._body(guards)}"
            return f"default {name} := {self._literal()[0]}\n\n{rule}", MIXED
        if chance < 0.75:
            first, second, third = (self._literal()[0] for _ in range(3))
            return (
                f"{name} := {first} if {self._body()} else := {second} if {self._body()} "
                f"else := {third}"
            ), MIXED
        if chance < 0.9:
            head, guards = self._head(1)
            return f"{name} contains {head[0]} if {self._body(guards)}", SET
        check = self._check("v")
        return f"{name}[k] := v if {{\n\tsome k, v in {self._ref()}\n\t{check}\n}}", OBJECT

    def _head(self, depth: int) -> tuple[Term, list[str]]:
        self._in_head = True
        found = self._guarded_by(lambda: self._term(depth))
        self._in_head = False
        return found

    def _guarded_by(self, make: Callable[[], Made]) -> tuple[Made, list[str]]:
        """Return what is made, and checks of types that functions in it need, most of them."""
        around, self._guards = self._guards, []
        made = make()
        guards = [each for each in dict.fromkeys(self._guards) if self._chance(0.9)]
        self._guards = around
        return made, guards

    def _line(self, make: Callable[[], str]) -> list[str]:
        made, guards = self._guarded_by(make)
        return [*guards, made]

    def _function(self) -> str:
        self._bound = [("x", ANY)]
        (value, _), guards = self._guarded_by(lambda: self._term(1))
        body = "\n\t".join([self._check("x"), *guards])
        self._bound = []
        return f"f(x) := {value} if {{\n\t{body}\n}}"

    def _body(self, guards: Iterable[str] = ()) -> str:
        """Return a body, with `guards` for what stands in the head."""
        bound, self._bound = self._bound, list(self._bound)
        made = [self._line(self._statement) for _ in range(self._pick.randint(1, 4))]
        lines = [*(line for each in made for line in each), *guards]
        if self._chance(self._odd):
            self._pick.shuffle(lines)
        elif "} | {" in lines[0] and not self._chance(self._odd):
            lines.insert(0, "input.context")  # OPA reads a body that begins with a union otherwise
        self._bound = bound
        return "{\n\t" + "\n\t".join(lines) + "\n}"

    # Statements

    def _statement(self) -> str:
        makers = [
            self._assign, self._assign, self._compare, self._member, self._not, self._some,
            self._every, self._guarded, self._truth, self._with, self._take_apart,
        ]  # fmt: skip
        made: str = self._one(makers)()
        return made

    def _assign(self) -> str:
        text, kind = self._term(2)
        return f"{self._new('v', kind)} := {text}"

    def _new(self, letter: str, kind: str = ANY) -> str:
        self._names += 1
        self._bound.append((f"{letter}{self._names}", kind))
        return self._bound[-1][0]

    def _compare(self) -> str:
        sides = [self._ref(), self._term(1)[0]]
        if self._chance(0.5):
            sides.reverse()
        return f"{sides[0]} {self._one(['==', '!='])} {sides[1]}"

    def _member(self) -> str:
        if self._chance(0.5):
            return f"{self._atom()[0]} in {self._ref()}"
        return f"{self._ref()} in {self._alike()}"

    def _alike(self) -> str:
        """Return a list or set after `in`: values, or references, seldom both."""
        if self._chance(self._odd):
            return self._list()[0]
        make = self._one([lambda: self._literal()[0], self._ref])
        items = ", ".join(make() for _ in range(self._pick.randint(1, 3)))
        return str(self._one([f"[{items}]", f"{{{items}}}"]))

    def _not(self) -> str:
        if self._chance(self._odd):
            return f"not {self._one([self._check_any, self._compare])()}"
        makers = [self._flat_ref, self._helper_ref, self._helper_ref, self._refs_compared]
        return f"not {self._one(makers)()}"

    def _some(self) -> str:
        source = self._source()
        return f"some {self._new('s')} in {source}"

    def _every(self) -> str:
        source = self._source()
        bound, self._bound = self._bound, [*self._bound, ("e", ANY)]
        around, self._in_every = self._in_every, True
        lines = [self._check("e", "\n\t\t")]
        if self._chance(0.4):
            makers = [self._compare, self._member, self._some, self._take_apart]
            lines += self._line(self._one(makers))
        self._bound, self._in_every = bound, around
        inner = "\n\t\t".join(lines)
        return f"every e in {source} {{\n\t\t{inner}\n\t}}"

    def _take_apart(self) -> str:
        source, value = self._ref(), self._ref()
        known = [name for name, kind in self._bound if kind == ANY]
        if self._chance(0.3):
            source = f"[{self._ref()}, {self._ref()}]"
        takes = 2 if source.startswith("[") else self._pick.randint(1, 3)
        # `=` and `walk` in an `every` bind anew what is bound around it.
        unifies = self._chance(0.5) and (not self._in_every or self._chance(self._odd))
        known = known if unifies else []
        whole = [self._pattern(known, unifies=unifies) for _ in range(takes)]
        pattern = f"[{', '.join(whole)}]"
        if self._chance(self._odd):
            pattern = f'{{"a": {pattern}}}'
        if not unifies:
            forms = [f"{pattern} := {source}", f"some {pattern} in {value}"]
            return str(self._one([*forms, f"some _, {pattern} in {value}"]))
        forms = [f"{pattern} = {source}", f"{source} = {pattern}", f"walk({value}, [_, {pattern}])"]
        return str(self._one(forms))

    def _pattern(self, known: list[str], *, unifies: bool) -> str:
        """Return a part of a pattern: a new name; where it unifies a value or a known one, too."""
        chance = self._pick.random()
        if chance < 0.2:
            return "_"
        if chance < 0.35 and unifies:
            return self._literal()[0]
        if chance < 0.5 and known:
            return str(self._one(known))
        if chance < 0.6:
            return f"[{self._new('p')}, {self._new('p')}]"
        return self._new("p")

    def _guarded(self) -> str:
        ref = self._ref()
        self._limited += [] if "[" in ref else [ref]
        if self._chance(self._odd):
            return f"{ref} {self._one(_ORDER)} {self._one(NUMBERS)}"
        return f"is_number({ref})\n\t{ref} {self._one(_COMPARE)} {self._one(NUMBERS)}"

    def _truth(self) -> str:
        makers = [self._ref, self._helper_ref, self._check_any, lambda: self._call()[0]]
        made: str = self._one(makers)()
        return made

    def _with(self) -> str:
        value = self._literal()[0]
        return f"{self._helper_ref()} with input.context.args.{self._one(FIELDS)} as {value}"

    def _refs_compared(self) -> str:
        return f"{self._flat_ref()} == {self._one([self._flat_ref, lambda: self._literal()[0]])()}"

    def _check_any(self) -> str:
        return self._check(self._ref())

    def _check(self, name: str, between: str = "\n\t") -> str:
        """Return what a body asks of a value that may be of any type."""
        number = self._pick.randint(0, 3)
        return str(
            self._one(
                [
                    f"is_string({name})", f"is_number({name})", f"is_array({name})",
                    f"is_null({name})",
                    f"{name} == {self._literal()[0]}", f"{name} != {self._literal()[0]}", name,
                    f"is_string({name}){between}startswith({name}, {self._text()})",
                    f"is_array({name}){between}count({name}) > {number}",
                    f"count({name}) > 0", f"{name} in {self._alike()}",
                    f'type_name({name}) == "string"', f"regex.match(`^[a-z.@]+$`, {name})",
                ]
            )
        )  # fmt: skip

    # Terms

    def _term(self, depth: int) -> Term:
        if depth <= 0 or self._chance(0.3):
            return self._atom()
        makers = [
            self._atom, self._call, self._call, self._sum, self._list, self._set, self._object,
            self._comprehension, self._comprehension, self._sets, lambda: (self._ref(), ANY),
        ]  # fmt: skip
        made: Term = self._one(makers)()
        return made

    def _atom(self) -> Term:
        known = [*self._bound, *self._bound, *self._helpers]
        if known and self._chance(0.5):
            found: Term = self._one(known)
            return found
        return self._literal() if self._chance(0.3) else (self._ref(), ANY)

    def _given(self, kind: str) -> str:
        """Return what a function of this type may get: an argument of any, or what is of it."""
        if kind == ANY or self._chance(self._odd):
            return self._atom()[0]
        if kind in {TEXT, NUMBER} and self._chance(0.3):
            return self._text() if kind == TEXT else str(self._one(NUMBERS))
        known = [each for each in (*self._bound, *self._helpers) if each[1] in {kind, ANY}]
        name, its = self._one(known) if known and self._chance(0.5) else (self._ref(), ANY)
        if its == ANY:
            self._guards.append(f"{_CHECKS[kind]}({name})")
        return str(name)

    def _literal(self) -> Term:
        value = self._one([*TEXTS, *NUMBERS, True, False, None])
        return json.dumps(value, ensure_ascii=False), _kind_of(value)

    def _text(self) -> str:
        return json.dumps(self._one(TEXTS), ensure_ascii=False)

    def _flat_ref(self) -> str:
        """Return an argument, without `[_]`."""
        head, self._in_head = self._in_head, True
        ref = self._ref()
        self._in_head = head
        return ref

    def _ref(self) -> str:
        path = f"input.context.args.{self._one(FIELDS)}"
        if self._chance(0.25):
            path += self._one([".a", '["b"]', "[0]", "[1]", "[_]", "[i]", ".a.b"])
        if path.endswith("[_]") and self._in_head and not self._chance(self._odd):
            path = path.replace("[_]", "[0]")
        names = [name for name, _ in self._bound]
        return path.replace("[i]", f"[{names[0]}]" if names else "[0]")

    def _helper_ref(self) -> str:
        return str(self._one(self._helpers)[0]) if self._helpers else self._flat_ref()

    def _source(self) -> str:
        """Return what is gone through; what stands in it may be anything."""
        if self._chance(0.6):
            return self._ref()
        items = [self._ref(), *(self._atom()[0] for _ in range(self._pick.randint(0, 2)))]
        self._pick.shuffle(items)
        found = ", ".join(items)
        return str(self._one([f"[{found}]", f"{{{found}}}"]))

    def _list(self) -> Term:
        items = ", ".join(self._atom()[0] for _ in range(self._pick.randint(0, 3)))
        return f"[{items}]", LIST

    def _set(self) -> Term:
        items = ", ".join(self._atom()[0] for _ in range(self._pick.randint(1, 3)))
        return f"{{{items}}}", SET

    def _object(self) -> Term:
        keys = ("a", "b")[: self._pick.randint(1, 2)]
        members = ", ".join(f'"{key}": {self._atom()[0]}' for key in keys)
        return f"{{{members}}}", OBJECT

    def _sum(self) -> Term:
        one = self._given(NUMBER)
        if self._chance(0.2):
            return f"{one} / {self._one([1, 2, 4])}", NUMBER
        sign = self._one(["+", "-", "*", "%"])
        # What is left of a set may be one, too.
        return f"{one} {sign} {self._given(NUMBER)}", MIXED if sign == "-" else NUMBER

    def _sets(self) -> Term:
        return f"{self._set()[0]} {self._one(['|', '&', '-'])} {self._set()[0]}", SET

    def _comprehension(self) -> Term:
        source = self._source()
        bound, self._bound = self._bound, [*self._bound, ("m", ANY)]
        inner, value = self._check("m", "; "), self._atom()[0]
        self._bound = bound
        shape, kind = self._one(
            [("[{0} | {1}]", LIST), ("{{{0} | {1}}}", SET), ("{{k: {0} | {2}}}", OBJECT)]
        )
        some = f"some m in {source}; {inner}"
        pairs = f"some k, m in {source}; {inner}"
        return str(shape.format(value, some, pairs)), kind

    def _call(self) -> Term:
        if self._chance(0.4):
            return self._call_of_one_form()
        name, takes, answers = self._one(_FUNCTIONS)
        given = ", ".join(self._text() if each == _WRITTEN else self._given(each) for each in takes)
        return f"{name}({given})", answers

    def _call_of_one_form(self) -> Term:
        any_, text, one = self._atom()[0], self._text(), self._given(TEXT)
        collection, item, number = self._given(LIST), self._given(OBJECT), self._given(NUMBER)
        sets = f"{{{self._set()[0]}, {self._set()[0]}}}"
        calls = [
            (f"concat({text}, {collection})", TEXT), (f"replace({one}, {text}, {text})", TEXT),
            (f"substring({one}, 0, 2)", TEXT), (f"format_int({number}, 10)", TEXT),
            (f'sprintf("%v-%s", [type_name({any_}), {text}])', TEXT),
            (f"array.slice({collection}, 0, 1)", LIST),
            (f"object.get({item}, {text}, {any_})", MIXED),
            (f"object.remove({item}, [{text}])", OBJECT),
            (f"regex.match({text}, {one})", BOOL), (f"regex.replace({one}, `[a-z]`, {text})", TEXT),
            (f'glob.match("*.example", ["."], {one})', BOOL),
            (f"json.filter({item}, [{text}])", MIXED),
            (f"union({sets})", SET), (f"intersection({sets})", SET),
            (f"numbers.range(0, {self._pick.randint(-3, 3)})", LIST),
            (f"f({any_})", MIXED) if self._callable else (f"is_number({any_})", BOOL),
            (f'net.cidr_contains("10.0.0.0/8", {one})', BOOL),
        ]  # fmt: skip
        found: Term = self._one(calls)
        return found


_WRITTEN: Final = "written"
"""A text that is written out."""


def _functions(names: str, takes: tuple[str, ...], answers: str) -> list[Function]:
    return [(name, takes, answers) for name in names.split()]


_FUNCTIONS: Final[list[Function]] = [
    *_functions("sum max min product", (LIST,), MIXED),
    *_functions("sort array.reverse", (LIST,), LIST),
    *_functions("json.marshal type_name", (ANY,), TEXT),
    *_functions("is_string is_object", (ANY,), BOOL),
    *_functions("semver.is_valid json.is_valid", (TEXT,), BOOL),
    *_functions("lower upper trim_space strings.reverse crypto.sha256", (TEXT,), TEXT),
    *_functions("base64.encode base64.decode hex.encode urlquery.encode", (TEXT,), TEXT),
    *_functions("time.parse_rfc3339_ns units.parse_bytes", (TEXT,), NUMBER),
    *_functions("abs round ceil floor to_number", (NUMBER,), NUMBER),
    *_functions("json.unmarshal", (TEXT,), ANY),
    *_functions("object.keys", (OBJECT,), SET),
    *_functions("contains startswith endswith", (TEXT, _WRITTEN), BOOL),
    *_functions("split", (TEXT, _WRITTEN), LIST),
    *_functions("indexof", (TEXT, _WRITTEN), NUMBER),
    *_functions("trim trim_left trim_right trim_prefix trim_suffix", (TEXT, _WRITTEN), TEXT),
    *_functions("crypto.hmac.sha256", (TEXT, _WRITTEN), TEXT),
    *_functions("object.union", (OBJECT, OBJECT), OBJECT),
    *_functions("array.concat", (LIST, LIST), LIST),
    *_functions("strings.any_prefix_match strings.any_suffix_match", (TEXT, LIST), BOOL),
    *_functions("bits.and", (NUMBER, NUMBER), NUMBER),
    *_functions("numbers.range", (NUMBER, NUMBER), LIST),
    *_functions("crypto.hmac.equal", (TEXT, TEXT), BOOL),
]
"""Functions by name: what they take and answer."""


class Caller:
    """Makes inputs: of the right shape, or with something odd in it."""

    def __init__(self, seed: int) -> None:
        self._pick = random.Random(seed)  # noqa: S311 - to be the same each time

    def arguments(self) -> dict[str, Any]:
        """Return arguments as `Author` reads them; often something is missing or odd."""
        plain: dict[str, Any] = {
            "a": self._pick.choice(TEXTS),
            "b": self._pick.choice(NUMBERS),
            "c": self._pick.choice([True, False]),
            "d": self._pick.choice(HOSTILE),
            "list": [
                self._pick.choice([*TEXTS, *NUMBERS]) for _ in range(self._pick.randint(0, 4))
            ],
            "object": {"a": self._pick.choice(TEXTS), "b": self._pick.choice(NUMBERS)},
            "text": self._pick.choice(TEXTS),
            "n": self._pick.choice(NUMBERS),
        }
        for name in list(plain):
            chance = self._pick.random()
            if chance < 0.15:
                del plain[name]
            elif chance < 0.3:
                plain[name] = self._pick.choice(HOSTILE)
        return plain
