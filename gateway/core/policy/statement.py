"""Statements about what policy must never let happen, and whether a moment breaks one (POL-09).

A statement has outcomes and conditions: it is broken by a call whose outcome is one of them while
every condition holds of its policy input. The small language of expressions and tests is on
docs/replay.md. What is not understood is refused: a statement that means nothing is never broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, cast, get_args

from msgspec import Struct

from gateway.core.pointer import MISSING, resolve, split

Goes = Literal["permit", "approved", "hold", "deny"]
"""`permit`: it goes, and nobody is asked. `approved`: people agreed and it goes (phase `resume`).
`hold`: people are asked. `deny`: it goes nowhere."""

OUTCOMES: Final[tuple[Goes, ...]] = get_args(Goes)
_SAID: Final[Mapping[Goes, str]] = {
    "permit": "goes unasked",
    "approved": "goes once approved",
    "hold": "is held",
    "deny": "is denied",
}
SPECIAL: Final = ("moved", "call.sums", "run.sums")
_NAMES: Final = {
    "effect": "/resource/effect",
    "tool": "/resource/id",
    "server": "/resource/server",
    "labels": "/resource/labels",
    "phase": "/phase",
    "environment": "/environment",
    "agent": "/subject/id",
    "owner": "/subject/owner",
    "roles": "/subject/roles",
    "human": "/subject/on_behalf_of",
    "client": "/context/client/id",
    "origin": "/context/token/origin",
    "run.calls": "/context/run/calls",
    "run.labels": "/context/run/labels",
    "run.workflow": "/context/run/workflow",
}
"""Names for members of a policy input. Any other is written `input./a/b`, a JSON Pointer."""

_TERM: Final = re.compile(r"([a-z_.]+)(?:\[([^\]]+)\])?|(input\.)(/.*)")
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "null": (type(None),),
}


class StatementError(ValueError):
    """A statement that means nothing; its text says what to write instead."""


class ToolFacts(Struct, frozen=True):
    """What a catalog says of a tool that statements speak of. `sums`: JSON Pointers."""

    effect: str
    sums: tuple[str, ...] = ()


Facts = Mapping[str, ToolFacts]
"""By tool id."""

Document = Mapping[str, Any]
Term = Callable[[Document, Facts], Any]
Test = Callable[[Any], bool]


class Condition(Struct, frozen=True):
    """One line of `when`: an expression and what must be true of it, as written and as read."""

    left: str
    right: Any
    terms: tuple[Term, ...]
    test: Test

    def value(self, document: Document, facts: Facts) -> Any:  # noqa: ANN401 - JSON, or `MISSING`
        """Return what the expression is of an input; a sum is one only of numbers."""
        values = [term(document, facts) for term in self.terms]
        if len(values) == 1:
            return values[0]
        return sum(values) if all(map(is_number, values)) else MISSING

    def holds(self, document: Document, facts: Facts) -> bool:
        """Whether it is true of an input."""
        return self.test(self.value(document, facts))

    @property
    def said(self) -> str:
        """The condition in words, as it was written."""
        if isinstance(self.right, list):
            return f"{self.left} is one of {', '.join(map(str, self.right))}"
        is_test = isinstance(self.right, str) and (
            self.right.startswith("not ")
            or _ORDERED.fullmatch(self.right)
            or _WORDED.fullmatch(self.right)
        )
        return f"{self.left} {self.right}" if is_test else f"{self.left} is {_plain(self.right)}"


class Statement(Struct, frozen=True):
    """What must never happen: one of `outcomes` where every condition holds."""

    id: str
    text: str
    outcomes: frozenset[Goes]
    conditions: tuple[Condition, ...]

    def is_broken(self, goes: Goes, document: Document, facts: Facts) -> bool:
        """Whether a call with this outcome, judged on this input, breaks it."""
        if goes not in self.outcomes:
            return False
        return all(condition.holds(document, facts) for condition in self.conditions)

    def fixed(self, name: str) -> tuple[Any, ...] | None:
        """Return the values that an expression must equal, where a condition names them."""
        for condition in self.conditions:
            if condition.left == name and (values := equal_to(condition.right)) is not None:
                return values
        return None


def read_statement(given: object, id_: str) -> Statement:
    """Read a statement in its long form, `{never: {outcome: …, when: {…}}}`.

    Raises `StatementError`.
    """
    if not isinstance(given, dict) or set(given) - {"id", "text", "never"} or "never" not in given:
        raise StatementError("a statement is `never:` with `outcome` and `when`")
    body = given["never"]
    if not isinstance(body, dict) or set(body) - {"outcome", "when"} or not body.get("when"):
        raise StatementError("`never` has `outcome` and `when`, which has at least one condition")
    if not isinstance(body["when"], dict):
        raise StatementError("`when` is a mapping of expressions to tests")
    conditions = tuple(read_condition(left, right) for left, right in body["when"].items())
    outcomes = _read_outcomes(body.get("outcome"))
    text = given.get("text") or _sentence(outcomes, conditions)
    return Statement(str(given.get("id") or id_), str(text), outcomes, conditions)


def _sentence(outcomes: frozenset[Goes], conditions: tuple[Condition, ...]) -> str:
    """Say a statement that nobody has put in words."""
    words = [_SAID[each] for each in OUTCOMES if each in outcomes]
    if {"permit", "approved"} <= outcomes:
        words = ["goes", *words[2:]]
    return f"no call {' or '.join(words)} where {' and '.join(each.said for each in conditions)}"


def _plain(value: object) -> str:
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _read_outcomes(given: object) -> frozenset[Goes]:
    named = given if isinstance(given, list) else ["permit" if given is None else given]
    found: set[Goes] = set()
    for each in named:
        if each == "goes":
            found |= {"permit", "approved"}
        elif each in OUTCOMES:
            found.add(cast("Goes", each))
        else:
            raise StatementError(f"`{each}` is no outcome; use {', '.join(OUTCOMES)} or `goes`")
    return frozenset(found)


def read_condition(left: object, right: object) -> Condition:
    """Read one line of `when`. Raises `StatementError`."""
    if not isinstance(left, str) or not left.strip():
        raise StatementError(f"`{left}` is no expression")
    terms = tuple(_read_term(term.strip()) for term in left.split(" + "))
    return Condition(left.strip(), right, terms, _read_test(right))


# --- expressions --------------------------------------------------------------------------------


def _read_term(text: str) -> Term:
    found = _TERM.fullmatch(text)
    if found is None:
        raise StatementError(_unknown(text))
    name, inner, absolute, path = found.groups()
    if absolute:
        return _at(path)
    if name == "args" and inner is not None:
        return _at("/context/args", inner)
    if name == "claimed" and inner is not None:
        return _at("/context/claimed", inner)
    if name == "run.counts" and inner is not None:
        return lambda document, _: _inside(document, "/context/run/counts", inner, 0)
    if name == "allowed" and inner is not None:
        return lambda document, _: _inside(document, "/context/token/allowed_values", inner, [])
    if name == "run.sums" and inner is not None:
        return lambda document, facts: _summed(document, facts, lambda tool, _: tool == inner)
    if inner is None and name in SPECIAL:
        return _specials[name]
    if inner is None and name in _NAMES:
        return _at(_NAMES[name])
    raise StatementError(_unknown(text))


def _unknown(text: str) -> str:
    names = ", ".join((*_NAMES, *SPECIAL))
    return (
        f"`{text}` is no expression; use args[/pointer], claimed[/pointer], run.counts[tool], "
        f"run.sums[tool], allowed[name], input./pointer, or one of {names}"
    )


def _at(prefix: str, pointer: str = "") -> Term:
    whole = prefix + (pointer if not pointer or pointer.startswith("/") else f"/{pointer}")
    try:
        split(whole)
    except ValueError as error:
        raise StatementError(str(error)) from None
    return lambda document, _: resolve(document, whole)


def _inside(document: Document, pointer: str, key: str, missing: object) -> Any:  # noqa: ANN401
    found = resolve(document, pointer)
    if key == "tool":
        key = str(resolve(document, "/resource/id"))
    return found.get(key, missing) if isinstance(found, dict) else missing


def _summed(
    document: Document, facts: Facts, wanted: Callable[[str, ToolFacts | None], bool]
) -> int | float:
    """Return what the run has spent in the sums of the tools that are wanted."""
    sums = resolve(document, "/context/run/sums")
    total: int | float = 0
    for key, value in sums.items() if isinstance(sums, dict) else ():
        tool = key.partition("#")[0]
        if wanted(tool, facts.get(tool)) and is_number(value):
            total += value
    return total


def _call_sums(document: Document, facts: Facts) -> int | float:
    """Return what this call itself adds to the sums of its tool."""
    tool = facts.get(str(resolve(document, "/resource/id")))
    values = [
        resolve(document, f"/context/args{pointer}") for pointer in (tool.sums if tool else ())
    ]
    numbers: list[int | float] = [value for value in values if is_number(value)]
    return sum(numbers)


def _run_sums(document: Document, facts: Facts) -> int | float:
    own = resolve(document, "/resource/id")
    return _summed(document, facts, lambda tool, _: tool == own)


def _moved(document: Document, facts: Facts) -> int | float:
    """Return the money that the run has moved, and this call would move."""
    before = _summed(document, facts, lambda _, tool: tool is not None and tool.effect == "money")
    is_money = resolve(document, "/resource/effect") == "money"
    return before + (_call_sums(document, facts) if is_money else 0)


_specials: Final[dict[str, Term]] = {
    "moved": _moved,
    "call.sums": _call_sums,
    "run.sums": _run_sums,
}


# --- tests --------------------------------------------------------------------------------------

_ORDER: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}
_ORDERED: Final = re.compile(r"(>=|<=|>|<)\s*(.+)")
_WORDED: Final = re.compile(r"(=|!=|in|has|lacks|like|matches|ends with|is)\s+(.+)", re.DOTALL)


def is_number(value: object) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal_to(right: object) -> tuple[Any, ...] | None:
    """Return the values that a test asks for by equality; None for a test of another kind."""
    if isinstance(right, list):
        return tuple(right)
    if not isinstance(right, str):
        return (right,)
    if right.startswith("not ") or _ORDERED.fullmatch(right):
        return None
    found = _WORDED.fullmatch(right)
    if found is None:
        return (right,)
    if found[1] in {"=", "in"}:
        return _items(found[2]) if found[1] == "in" else (_scalar(found[2]),)
    return None


def _read_test(right: object) -> Test:
    if isinstance(right, list):
        return lambda value: any(_equal(value, each) for each in right)
    if not isinstance(right, str):
        return lambda value: _equal(value, right)
    if right.startswith("not "):
        inner = _read_test(right[4:].strip())
        return lambda value: not inner(value)
    ordered = _ORDERED.fullmatch(right)
    if ordered is not None:
        bound, order = _number(ordered[2]), _ORDER[ordered[1]]
        return lambda value: is_number(value) and order(value, bound)
    worded = _WORDED.fullmatch(right)
    if worded is None:
        return lambda value: _equal(value, right)
    return _worded(worded[1], worded[2].strip())


def _worded(word: str, rest: str) -> Test:
    if word == "is":
        return _typed(rest)
    if word == "in":
        items = _items(rest)
        return lambda value: any(_equal(value, each) for each in items)
    wanted = _scalar(rest)
    text = str(wanted).strip().casefold()
    tests: dict[str, Test] = {
        "=": lambda value: _equal(value, wanted),
        "!=": lambda value: not _equal(value, wanted),
        "has": lambda value: isinstance(value, list) and wanted in value,
        "lacks": lambda value: not (isinstance(value, list) and wanted in value),
        "like": lambda value: isinstance(value, str) and value.strip().casefold() == text,
        "matches": lambda value: isinstance(value, str) and fnmatchcase(value, str(wanted)),
        "ends with": lambda value: isinstance(value, str) and value.endswith(str(wanted)),
    }
    return tests[word]


def _typed(kind: str) -> Test:
    if kind in {"absent", "present"}:
        return lambda value: (value is MISSING) == (kind == "absent")
    if kind not in _KINDS:
        raise StatementError(f"`is {kind}`: use {', '.join(_KINDS)}, absent or present")
    if kind == "number":
        return is_number
    return lambda value: isinstance(value, _KINDS[kind])


def _equal(value: object, wanted: object) -> bool:
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _items(text: str) -> tuple[Any, ...]:
    return tuple(_scalar(item.strip()) for item in text.strip("[]").split(","))


def _scalar(text: str) -> Any:  # noqa: ANN401 - a JSON scalar
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return _number(text)
    except StatementError:
        return text


def _number(text: str) -> int | float:
    digits = text.strip().replace(",", "").replace("_", "")
    try:
        return int(digits)
    except ValueError:
        pass
    try:
        found = float(digits)
    except ValueError:
        raise StatementError(f"`{text}` is no number") from None
    if found != found or found in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
        raise StatementError(f"`{text}` is no number")
    return found
