"""Random policies and random inputs, from a seed, to hold two engines against each other.

Policies are built from a grammar of what authors write; many do not pass the gate, and only those
that do are compared.
"""

from __future__ import annotations

import json
import random
from typing import Any

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
_COMPARE = ["==", "!=", "<", "<=", ">", ">="]


class Author:
    """Writes packages named `policies.<name>`."""

    def __init__(self, seed: int) -> None:
        self._pick = random.Random(seed)  # noqa: S311 - to be the same each time
        self._helpers: list[str] = []
        self._bound: list[str] = []
        self._names = 0
        self._callable = False

    def package(self, name: str) -> str:
        """Return a package of a few helpers, functions and decision rules."""
        self._helpers, self._bound, self._names = [], [], 0
        self._callable = False
        functions = [self._function()] if self._chance(0.5) else []
        self._callable = bool(functions)
        helpers = []
        for number in range(self._pick.randint(1, 4)):
            helpers.append(self._helper(f"h{number}"))
            self._helpers.append(f"h{number}")  # those after it may read it, so none reads itself
        rules = [self._rule() for _ in range(self._pick.randint(1, 4))]
        return "\n\n".join([f"package policies.{name}", *functions, *helpers, *rules]) + "\n"

    def _chance(self, share: float) -> bool:
        return self._pick.random() < share

    def _one(self, items: list[Any]) -> Any:  # noqa: ANN401 - whatever is in it
        return self._pick.choice(items)

    # Rules

    def _rule(self) -> str:
        kind = self._one(["deny", "hold", "permit", "obligation"])
        value = f'{{"code": "{self._one(["x", "y", "z"])}", "m": {self._term(2)}}}'
        return f"{kind} contains {value} if {self._body()}"

    def _helper(self, name: str) -> str:
        kind = self._pick.random()
        if kind < 0.3:
            return f"{name} if {self._body()}"
        if kind < 0.5:
            return f"{name} := {self._term(2)} if {self._body()}"
        if kind < 0.6:
            value = f"{name} := {self._term(1)} if {self._body()}"
            return f"default {name} := {self._literal()}\n\n{value}"
        if kind < 0.75:
            return (
                f"{name} := {self._literal()} if {self._body()} else := {self._literal()} if "
                f"{self._body()} else := {self._literal()}"
            )
        if kind < 0.9:
            return f"{name} contains {self._term(1)} if {self._body()}"
        return f"{name}[k] := v if {{\n\tsome k, v in {self._ref()}\n\t{self._check('v')}\n}}"

    def _function(self) -> str:
        self._bound = ["x"]
        body, value = self._check("x"), self._term(1)
        self._bound = []
        return f"f(x) := {value} if {{\n\t{body}\n}}"

    def _body(self) -> str:
        bound, self._bound = self._bound, list(self._bound)
        lines = [self._statement() for _ in range(self._pick.randint(1, 4))]
        if self._chance(0.1):
            self._pick.shuffle(lines)
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
        text = self._term(2)
        name = self._new("v")
        return f"{name} := {text}"

    def _new(self, letter: str) -> str:
        self._names += 1
        self._bound.append(f"{letter}{self._names}")
        return self._bound[-1]

    def _compare(self) -> str:
        return f"{self._term(1)} {self._one(_COMPARE[:2])} {self._term(1)}"

    def _member(self) -> str:
        return f"{self._term(1)} in {self._one([self._ref(), self._list(), self._set()])}"

    def _not(self) -> str:
        makers = [self._ref, self._helper_ref, self._helper_ref, self._refs_compared]
        if self._chance(0.1):
            makers = [self._check_any, self._compare]
        inner = self._one(makers)()
        return f"not {inner}"

    def _some(self) -> str:
        source = self._one([self._ref(), self._list(), self._set()])
        return f"some {self._new('s')} in {source}"

    def _every(self) -> str:
        source = self._one([self._ref(), self._list()])
        bound, self._bound = self._bound, [*self._bound, "e"]
        lines = [self._check("e")]
        if self._chance(0.4):
            lines.append(self._one([self._compare, self._member, self._some, self._take_apart])())
        self._bound = bound
        inner = "\n\t\t".join(lines)
        return f"every e in {source} {{\n\t\t{inner}\n\t}}"

    def _take_apart(self) -> str:
        source = self._one([self._ref(), self._list(), f"[{self._list()}, {self._ref()}]"])
        before = list(self._bound)
        pattern = self._pattern(before, 2)
        forms = [
            f"{pattern} = {source}", f"{source} = {pattern}", f"some {pattern} in {source}",
            f"{pattern} := {source}", f"some _, {pattern} in {source}",
            f"walk({source}, [_, {pattern}])", f"walk({source}, {pattern})",
        ]  # fmt: skip
        return str(self._one(forms))

    def _pattern(self, before: list[str], depth: int) -> str:
        """Return a pattern of new names, and of such as are bound."""
        if depth < 2 and self._chance(0.7):
            old = self._one(before) if before else "_"
            return str(self._one([self._new("p"), self._new("p"), "_", self._literal(), old]))
        parts = [self._pattern(before, depth - 1) for _ in range(self._pick.randint(1, 3))]
        if self._chance(0.04):
            members = (f'"{key}": {part}' for key, part in zip("abc", parts, strict=False))
            return "{" + ", ".join(members) + "}"
        return "[" + ", ".join(parts) + "]"

    def _guarded(self) -> str:
        ref = self._ref()
        operator = self._one(_COMPARE)
        return f"is_number({ref})\n\t{ref} {operator} {self._one(NUMBERS)}"

    def _truth(self) -> str:
        made: str = self._one([self._ref, self._helper_ref, self._check_any, self._call])()
        return made

    def _with(self) -> str:
        value = self._literal()
        return f"{self._helper_ref()} with input.context.args.{self._one(FIELDS)} as {value}"

    def _refs_compared(self) -> str:
        return f"{self._ref()} == {self._one([self._ref, self._literal])()}"

    def _check_any(self) -> str:
        return self._check(self._ref())

    def _check(self, name: str) -> str:
        return str(
            self._one(
                [
                    f"is_string({name})", f"is_number({name})", f"is_array({name})",
                    f"is_null({name})",
                    f"{name} == {self._literal()}", f"{name} != {self._literal()}", name,
                    f"startswith({name}, {json.dumps(self._one(TEXTS))})",
                    f"count({name}) > {self._pick.randint(0, 3)}", f"{name} in {self._set()}",
                    f'type_name({name}) == "string"', f"regex.match(`^[a-z.@]+$`, {name})",
                ]
            )
        )  # fmt: skip

    # Terms

    def _term(self, depth: int) -> str:
        if depth <= 0 or self._chance(0.3):
            return self._atom()
        makers = [
            self._atom, self._call, self._call, self._sum, self._list, self._set, self._object,
            self._comprehension, self._comprehension, self._sets, self._ref,
        ]  # fmt: skip
        made: str = self._one(makers)()
        return made

    def _atom(self) -> str:
        if self._bound and self._chance(0.4):
            return str(self._one(self._bound))
        return str(self._one([self._literal, self._ref, self._ref, self._helper_ref])())

    def _literal(self) -> str:
        value = self._one([*TEXTS, *NUMBERS, True, False, None])
        return json.dumps(value, ensure_ascii=False)

    def _ref(self) -> str:
        path = f"input.context.args.{self._one(FIELDS)}"
        if self._chance(0.25):
            path += self._one(
                [".a", '["b"]', "[0]", "[1]", "[_]", "[i]"] if self._chance(0.7) else [".a.b"]
            )
        if path.endswith("[i]"):
            path = path.replace("[i]", f"[{self._bound[0]}]" if self._bound else "[0]")
        return path

    def _helper_ref(self) -> str:
        return str(self._one(self._helpers)) if self._helpers else self._ref()

    def _list(self) -> str:
        return "[" + ", ".join(self._atom() for _ in range(self._pick.randint(0, 3))) + "]"

    def _set(self) -> str:
        found = ", ".join(self._atom() for _ in range(self._pick.randint(1, 3)))
        return "{" + found + "}"

    def _object(self) -> str:
        members = (f'"{key}": {self._atom()}' for key in ("a", "b")[: self._pick.randint(1, 2)])
        return "{" + ", ".join(members) + "}"

    def _sum(self) -> str:
        if self._chance(0.2):
            return f"{self._atom()} / {self._one([1, 2, 4])}"
        return f"{self._atom()} {self._one(['+', '-', '*', '%'])} {self._atom()}"

    def _sets(self) -> str:
        return f"{self._set()} {self._one(['|', '&', '-'])} {self._set()}"

    def _comprehension(self) -> str:
        source = self._one([self._ref(), self._list(), self._set()])
        bound, self._bound = self._bound, [*self._bound, "m"]
        inner, value = self._check("m"), self._atom()
        self._bound = bound
        shape = self._one(["[{0} | {1}]", "{{{0} | {1}}}", "{{k: {0} | {2}}}"])
        some = f"some m in {source}; {inner}"
        pairs = f"some k, m in {source}; {inner}"
        return str(shape.format(value, some, pairs))

    def _number(self) -> int:
        return self._pick.randint(-3, 3)

    def _call(self) -> str:
        a, b = self._atom(), self._atom()
        text = json.dumps(self._one(TEXTS), ensure_ascii=False)
        calls = [
            *(f"{name}({a})" for name in _ONE),
            *(f"{name}({a}, {text})" for name in _ONE_AND_TEXT),
            *(f"{name}({a}, {b})" for name in _TWO),
            f"concat({text}, {a})", f"replace({a}, {text}, {text})", f"substring({a}, 0, 2)",
            f'sprintf("%v-%s", [type_name({a}), {text}])', f"format_int({a}, 10)",
            f"array.slice({a}, 0, 1)",
            f"object.get({a}, {text}, {b})", f"object.remove({a}, [{text}])",
            f"regex.match({text}, {a})", f"regex.replace({a}, `[a-z]`, {text})",
            f'glob.match("*.example", ["."], {a})', f"json.filter({a}, [{text}])",
            f"union({{{self._set()}, {self._set()}}})", f"numbers.range(0, {self._number()})",
            f"intersection({{{self._set()}, {self._set()}}})",
            f"f({a})" if self._callable else f"is_number({a})",
            f'net.cidr_contains("10.0.0.0/8", {a})',
        ]  # fmt: skip
        return str(self._one(calls))


_ONE = [
    "count", "sum", "max", "min", "sort", "product", "lower", "upper", "trim_space", "to_number",
    "abs", "round", "ceil", "floor", "object.keys", "array.reverse", "json.marshal",
    "json.unmarshal", "base64.encode", "base64.decode", "hex.encode", "urlquery.encode",
    "type_name", "is_string", "is_object", "strings.reverse", "semver.is_valid", "json.is_valid",
    "time.parse_rfc3339_ns", "crypto.sha256", "units.parse_bytes",
]  # fmt: skip
_ONE_AND_TEXT = [
    "contains", "startswith", "endswith", "split", "indexof", "trim", "trim_left", "trim_prefix",
    "crypto.hmac.sha256", "trim_suffix", "trim_right",
]  # fmt: skip
_TWO = [
    "object.union", "array.concat", "strings.any_prefix_match", "strings.any_suffix_match",
    "bits.and", "numbers.range", "crypto.hmac.equal",
]  # fmt: skip


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
