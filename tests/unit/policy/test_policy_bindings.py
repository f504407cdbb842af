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


SHADOWED = {
    "x := 1\n\ny contains x if some x in input.list": (5, 22),
    "y := [x | some x in input.list]\n\nx(_) := 1": (3, 16),
    "import input.list as x\n\ny := [v | some x; v := input.other[x]]": (5, 16),
    "f(x) := [x | some x in input.list]": (3, 19),
    "f([_, x]) := y if { y := {x: 1 | some x in input.list} }": (3, 39),
    "y := z if { some x in input.list; z := {x | some x in input.other} }": (3, 50),
    "y := z if { [x, _] = input.pair; z := [x | some x, _ in input.list] }": (3, 49),
    "y := z if { input.list[x] == 2; z := [x | some [x, _] in input.list] }": (3, 49),
    "y := z if { z := [x | some x in input.list]; x := 1 }": (3, 28),
    "y := [x | some x in [x | some x in input.list]]": (3, 31),
    "y := [x | some x in input.list] if { x := 1 }": (3, 16),
    "y contains [x | some x in input.list] if { x := 1 }": (3, 22),
    "y := 1 if { input.a } else := z if { x := 1; z := [x | some x in input.list] }": (3, 61),
    "y if { x := 1; every v in input.list { some x in input.other; x == v } }": (3, 45),
    "y if { x := 1; not f([x | some x in input.list]) }\n\nf(_) := 1": (3, 32),
    "y if { some x in input.list; some x in input.other }": (3, 35),
}


@pytest.mark.parametrize("rule", SHADOWED)
def test_what_some_declares_is_bound_nowhere_around_it(rule: str) -> None:
    row, column = SHADOWED[rule]
    said = refused(rule)
    assert f"t.rego:{row}:{column}: `x` is bound around this `some` already" in said


def test_a_rule_of_another_file_is_bound_around_a_some_too() -> None:
    texts = {"a.rego": "y contains x if some x in input.list", "b.rego": "x := 1"}
    sources = {name: f"package policies.t\n\n{text}\n" for name, text in texts.items()}
    with pytest.raises(ConfigurationError, match=r"a\.rego:3:22: `x` is bound around"):
        build_bundle(sources, {})


@pytest.mark.parametrize(
    "rule",
    [
        "y := [x | some x in input.list]\n\nz := {x | some x in input.list}",
        "y := [a, b] if { a := [x | some x in input.list]; b := [x | some x in input.list] }",
        "y := z if { x := 1; z := [x | x := input.list[_]] }",
        "y := z if { x := 1; z := [v | v := input.list[x]] }",
        "y if { every x in input.list { x == 1 } }\n\nx := 1",
        "y := [t | some t, _ in input.list; some _, _ in input.other]",
        "f(x) := 1 if { x == 1 } else := z if { z := [v | some v in x] }",
        "f(x) := 1 if x == 1\n\ny := [x | some x in input.list]",
    ],
)
def test_a_name_may_be_declared_again_where_the_first_one_is_not_around(rule: str) -> None:
    build_bundle({"t.rego": f"package policies.t\n\n{rule}\n"}, {})


@pytest.mark.parametrize(
    ("rule", "column"),
    [
        ("x if { not known[to]; to = input.to }\n\nknown := {1}", 18),
        ("x if { not known[to]; input.list[_] = to }\n\nknown := {1}", 18),
        ("x if { not known[to]; input.list[to] }\n\nknown := {1}", 18),
        ("x if { not known[[to, 2]]; to = input.to }\n\nknown := {[1, 2]}", 19),
        ("x := [1 | not known[to]; to = input.to]\n\nknown := {1}", 21),
        ("x if { every y in input.list { not known[to]; to = y } }\n\nknown := {1}", 42),
    ],
)
def test_an_index_below_not_is_bound_above_it(rule: str, column: int) -> None:
    said = refused(rule)
    assert f"t.rego:3:{column}: `to` is an index below `not` and bound only below it" in said


@pytest.mark.parametrize(
    "rule",
    [
        "x if { to = input.to; not known[to] }\n\nknown := {1}",
        "x if { some to in input.list; not known[to] }\n\nknown := {1}",
        "x if { input.list[to]; not known[to] }\n\nknown := {1}",
        "x(to) if not known[to]\n\nknown := {1}",
        "x if { every to in input.list { not known[to] } }\n\nknown := {1}",
        "x if { not known[to] }\n\nto := 1\n\nknown := {1}",
        "x if { [1 | not known[to]] == []; to = input.to }\n\nknown := {1}",
    ],
)
def test_an_index_below_not_that_is_bound_above_it_passes(rule: str) -> None:
    build_bundle({"t.rego": f"package policies.t\n\n{rule}\n"}, {})
