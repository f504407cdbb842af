"""What the gate says of objects as patterns, and of names that are bound twice or given.

That engines differ there is shown by `tests/integration/policy/test_random_policies.py`.
"""

from __future__ import annotations

import json

import pytest

from gateway.adapters.policy.gate.policy_bindings import TAKES
from gateway.adapters.policy.policy_bundle import build_bundle, find_rego_root
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-05")
CAPABILITIES = find_rego_root() / "capabilities.json"


def refused(*lines: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        build_bundle({"t.rego": "\n".join(["package policies.t", "", *lines, ""])}, {})
    return str(raised.value)


@pytest.mark.parametrize(
    ("rule", "column"),
    [
        ('x := n if { {"to": n} := input.context.args }', 13),
        ('x := n if { {"to": n} = input.context.args }', 13),
        ('x := n if { input.context.args = {"to": n} }', 34),
        ('x if { {"to": {}} = input.context.args }', 8),
        ("x if { {} = input.context.args }", 8),
        ('x := n if { [n, [{"to": 1}]] = input.context.args.items }', 18),
        ('x := n if { some {"to": n} in input.context.args.items }', 18),
        ('x := n if { some {"to": 1}, n in input.context.args.items }', 18),
        ('f({"to": n}) := n', 3),
        ('f(_, [{"to": n}]) := n', 7),
        ('x := [n | walk(input.context.args, [_, {"to": n}])]', 40),
        ('s contains input.subject\n\nx := n if s[{"to": n}]', 0),
        ('x := {n | {"to": n} = input.context.args}', 11),
    ],
)
def test_an_object_as_a_pattern_is_refused_with_its_place(rule: str, column: int) -> None:
    said = refused(rule)
    assert (f"t.rego:3:{column}:" if column else "t.rego:5:13:") in said
    assert "an object as a pattern" in said
    assert "`n := input.context.args.amount`" in said


def test_the_line_is_that_of_the_object_where_it_takes_several() -> None:
    said = refused("x := n if {", '\t{"to": n,', '\t\t"amount": _} := input.context.args', "}")
    assert "t.rego:4:2: an object as a pattern" in said


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("x if { every y in input.items { y = 1 } }", "t.rego:3:33: in `every`"),
        ("x if { every y in input.items { count([1 | [y] = [1]]) == 1 } }", "in `every`"),
        ("x if { every y in input.items { walk(input.a, [_, y]) } }", "in `every`"),
        ("x if { every y in input.items { data.t.s[[y, 1]] } }", "in `every`"),
        ("f(n, n) := n", "t.rego:3:6: OPA takes both for one value"),
        ("f([n, _], [_, n]) := n", "OPA takes both for one value"),
        ("x := n if some n, [n] in input.subject.roles", "OPA takes both for one value"),
        ("x := [v | [_, v] := walk(input.context.args)]", "write `walk(x, [path, value])`"),
        ("f(a) := a\n\nx := n if f(1, n)", "t.rego:5:11: a function takes its answer"),
        ("x := n if lower(input.subject.id, n)", "bind it: `x := f(…)`"),
        ("import data.t as g\n\ng := 1", "t.rego:3:1: `g` is an import and a rule"),
        ("import data.t as input", "t.rego:3:1: `input` is given"),
        ("import input.data", "`import … as my_data`"),
        ("x if { some input in [1] }", "`input` is given"),
        ("x if { [input, _] := [1, 2] }", "`input` is given"),
        ("default f(input) := 1\n\nf(x) := 2 if x == 1", "t.rego:3:11: `input` is given"),
    ],
)
def test_a_name_that_engines_bind_differently_is_refused(rule: str, said: str) -> None:
    assert said in refused(rule)


def test_an_every_in_an_every_is_told_of_once() -> None:
    said = refused("x if { every a in [1] { every b in [2] { a = b } } }")
    assert said.count("in `every`") == 1


@pytest.mark.parametrize(
    "rule",
    [
        'x if input.context.args == {"to": "eve", "amount": 1}',
        'x if {"to": "eve"} in input.context.args.items',
        'x := {"to": n} if n := input.context.args.amount',
        'x := {"to": n} if { some n in input.context.args.items }',
        "x := n if { [n, _] := input.context.args.items }",
        "x := n if { [n, [m, 1]] = input.context.args.items; m == 2 }",
        "x := n if { some k, [n, _] in input.context.args.items; k == 1 }",
        "f([n, _], 1) := n\n\nx := f(input.context.args.items, 1)",
        'f(_, _) := 1\n\nx := f({"to": 1}, {})',
        'x := [v | walk(input.context.args, [["to"], v])]',
        'm[{"to": n}] := 1 if some n in input.context.args.items',
        's contains {"to": 1}\n\nx if s[{"to": input.context.args.to}]',
        "x if { every y in input.context.args.items { z := y; z == 1 } }",
        "x if { every y in input.context.args.items { some z in [1, 2]; y == z } }",
        'm := {"a": 1}\n\nx if { every y in input.context.args.items { m[y] == 1 } }',
        "import input.context.args\n\nx if args.to == 1",
        "import input as question\n\nx if question.phase == `call`",
        "import input\n\nx if input.phase == `call`",
        "f(x) := x\n\nx := data.policies.t.f(1)",
    ],
)
def test_what_engines_bind_alike_is_let_through(rule: str) -> None:
    build_bundle({"t.rego": f"package policies.t\n\n{rule}\n"}, {})


def test_functions_take_as_many_arguments_as_opa_says() -> None:
    listed = json.loads(CAPABILITIES.read_text())["builtins"]
    takes = {each["name"]: len(each["decl"].get("args", [])) for each in listed} | {"walk": 2}
    assert {name: takes[name] for name in TAKES} == TAKES
