"""Comparisons of what may be of any type are refused; those on an established type are not."""

from __future__ import annotations

import json

import pytest
import regorus
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.gate.input_types import SCHEMA_PATH, InputTypes, published
from gateway.adapters.policy.policy_bundle import (
    MAIN_PATH,
    build_bundle,
    find_rego_root,
    restore_bundle,
)
from gateway.core.errors import ConfigurationError
from tests.effort import share

pytestmark = pytest.mark.req("POL-06")

TYPES = published((find_rego_root() / SCHEMA_PATH).read_text())
HEAD = """package policies.a
import input.context.args as args
raw := args.n
over(x) if x > 10
over_twice(x) if over(x)
picked(o, k) := object.get(o, k, 0)
number := args.n if is_number(args.n)
raw_known if is_number(raw)
positive(x) if {
	is_number(x)
	x > 0
}
numbered(o) if is_number(o.n)
default flag := false
flag if is_number(args.n)
"""


def faults(rule: str, **more: str) -> list[str]:
    sources = {
        "a.rego": HEAD + rule + "\n",
        **{f"{name}.rego": text for name, text in more.items()},
    }
    try:
        build_bundle(sources, {})
    except ConfigurationError as error:
        return str(error).splitlines()
    return []


def lines(*statements: str) -> str:
    return "x if {\n\t" + "\n\t".join(statements) + "\n}"


UNGUARDED = [
    lines("input.context.args.n <= 100"),
    lines("args.n < 3"),
    lines("3 < args.n"),
    lines("n := args.n", "n > 3"),
    lines("n = args.n", "n > 3"),
    lines("n := args.n", "m := n", "m > 3"),
    lines("a := args", "a.n > 3"),
    lines('args["n"] > 3'),
    lines("some n in args.list", "n > 3"),
    lines("some k, n in args.map", "is_number(k)", "n > 3"),
    lines("args.list[_] > 3"),
    lines("is_number(args.list[_])", "args.list[_] > 3"),
    lines("some i", "args.list[i] > 3"),
    lines("every n in args.list { n < 3 }"),
    lines("is_array(args.list)", "count([n | some n in args.list; n > 3]) > 2"),
    lines("max(args.list) > 3"),
    lines('object.get(args, "n", 0) > 3'),
    lines('picked(args, "n") > 3'),
    lines("json.unmarshal(args.json).n > 3"),
    lines("[a, b] := args.pair", "is_number(b)", "a < b"),
    lines("walk(args, [_, n])", "n > 3"),
    lines("raw > 3"),
    lines("over(args.n)"),
    lines("over_twice(args.n)"),
    lines("n := args.n", "over(n)"),
    lines("is_number(args.a)", "args.b < 3"),
    lines("n := args.n", "not is_number(n)", "n > 3"),
    lines('type_name(args.n) == "null"', "args.m > 3"),
    lines("input.context.claimed.confidence < 0.5"),
    lines("input.context.result.structured.n < 5"),
    lines("input.context.args > 3"),
    lines("args.n in args.list", "args.n < 3"),
    lines("args.n == args.m", "is_null(args.o)", "args.n < 3"),
    lines("every n in [args.n, 1] { is_number(n) }", "args.m < 3"),
    lines("object.union(data.a, args).x < 3"),
    lines("some k in object.keys(args)", "args[k] < 3"),
    lines('object.get(args, ["a", "b"], 0) < 3'),
    lines('object.get(picked(args, "o"), "b", 0) < 3'),
    lines("array.concat([args.n], [1])[0] < 3"),
    lines("array.slice(args.list, 0, 1)[0] < 3"),
    lines("input.unheard_of > 3"),
    "x := args.n > 3",
    "x contains n if {\n\tn := args.n\n\tn >= 3\n}",
    "x if false else := 2 if args.n > 3",
    "x if {\n\tis_number(args.n)\n} else := 2 if args.n > 3",
    "x := y if {\n\ty := {n | some n in args.list; n > 3}\n}",
    "x if count([1 | args.n > 3]) > 0",
    "f(o) := o.n > 3\nx if f(args)",
]
GUARDED = [
    lines("is_number(args.n)", "args.n > 3"),
    lines("args.n > 3", 'is_number(input.context.args["n"])'),
    lines("n := args.n", "is_number(n)", "n > 3"),
    lines("n := args.n", "is_number(args.n)", "n > 3"),
    lines("is_string(args.n)", 'args.n > "a"'),
    lines("number > 3"),
    lines("raw_known", "raw > 3"),
    lines("positive(args.n)", "args.n > 3"),
    lines("numbered(args)", "args.n > 3"),
    lines("flag", "args.n > 3"),
    lines("over(number)"),
    lines("is_array(args.list)", "count(args.list) > 3"),
    lines("args.n + 1 > 3"),
    lines("is_string(args.n)", "to_number(args.n) > 3"),
    lines("is_number(args.n)", "to_number(args.n) > 3"),
    lines("to_number(substring(args.n, 0, 3)) > 3"),
    lines("abs(args.n) < 3", "round(args.n) < 3", "ceil(args.n) < 3", "floor(args.n) < 3"),
    lines("sum(args.list) < 3"),
    lines("units.parse_bytes(args.size) < 3"),
    lines('count(split(args.text, ",")) < 3'),
    lines('count(split(json.marshal(args.any), "")) < 3'),
    lines("count(args.any) > 0", "count(args.any) >= 1"),
    lines("is_number(raw)", "args.n > 3"),
    lines("args.n in data.allowed", "args.n < 3"),
    lines("args.n in allowed", "args.n < 3") + "\nallowed := [1, 2]",
    lines("args.n == data.limits.x", "args.n < 3"),
    lines("every n in [args.n, args.m] { is_number(n) }", "args.m < 3"),
    lines("union({{1, 2}, {3}})[_] < 3"),
    lines("object.union(data.a, data.b).x < 3"),
    lines("is_string(args.day)", 'args.day >= "2026-01-01"'),
    lines("every n in args.list { is_number(n) }", "max(args.list) < 3", "sort(args.list)[0] < 3"),
    lines("every n in args.list { is_number(n) }", "some m in args.list", "m < 3"),
    lines("every n in args.list { is_number(n.x) }", "some m in args.list", "m.x < 3"),
    lines("is_number(args.n)", "max([args.n, 100]) == 100"),
    lines("xs := sort(object.keys(args))", 'xs[0] > "a"'),
    lines("args.n == round(args.n)", "args.n > 3"),
    lines("args.n in {1, 2, 3}", "args.n > 2"),
    lines('type_name(args.n) == "number"', "args.n > 2"),
    lines("some n in args.list", "is_number(n)", "n > 3"),
    lines("every n in args.list {\n\t\tis_number(n)\n\t\tn > 3\n\t}"),
    lines("some i", "is_number(args.list[i])", "args.list[i] > 3"),
    lines('n := object.get(args, "n", 0)', "is_number(n)", "n > 3"),
    lines('is_number(object.get(args, "n", 0))', 'object.get(args, "n", 0) > 3'),
    lines("input.context.now_ns > 3"),
    lines("input.context.run.calls > 3"),
    lines('input.context.run.sums["a.b#/c"] > 3'),
    lines("some role in input.subject.roles", 'role > "a"'),
    lines("data.limits.x > 3"),
    lines("is_number(args.n)", "count([1 | args.n > 3]) > 0"),
]


@pytest.mark.parametrize("rule", UNGUARDED)
def test_what_may_be_of_any_type_is_not_compared(rule: str) -> None:
    found = faults(rule)
    assert found
    assert all("compares" in fault and "null is below every number" in fault for fault in found)


@pytest.mark.parametrize("rule", GUARDED)
def test_what_certainly_is_of_one_type_is_compared(rule: str) -> None:
    assert faults(rule) == []


def test_a_fault_names_its_place_and_what_to_write() -> None:
    (fault,) = faults(lines('args.note > "a"'))
    assert fault.startswith(f"a.rego:{HEAD.count(chr(10)) + 2}:2: `args.note > …`")
    assert fault.endswith("write `is_string(args.note)` in the same body")
    (fault,) = faults(lines('object.get(args, "n", 0) + 0 > 3', 'object.get(args, "n", 0) > 3'))
    assert fault.endswith("then `is_number(x)`, and compare `x`")
    (fault,) = faults(lines("max(args.list) > 3"))
    assert fault.endswith("write `every x in args.list { is_number(x) }` in the same body")
    (fault,) = faults(lines("over(args.n)"))
    assert "`over` compares `args.n`" in fault


def test_rules_and_functions_of_other_packages_are_followed() -> None:
    other = "package policies.b\nspent := input.context.args.n\nabove(x) if x > 3\n"
    checked = (
        "package policies.b\nspent := n if {\n\tn := input.context.args.n\n\tis_number(n)\n}\n"
    )
    assert len(faults(lines("data.policies.b.spent > 3"), b=other)) == 1
    assert len(faults(lines("data.policies.b.above(args.n)"), b=other)) == 1
    assert faults(lines("data.policies.b.spent > 3"), b=checked) == []


def test_the_library_establishes_types() -> None:
    rule = "import data.countersign.lib.args as lib\n"
    source = HEAD.replace("raw := args.n\n", "") + 'x if lib.number("n") > 3\n'
    imported = source.replace("import", rule + "import", 1)
    build_bundle({"a.rego": imported.replace("raw_known if is_number(raw)\n", "")}, {})
    with pytest.raises(ConfigurationError, match="compares"):
        build_bundle(
            {"a.rego": imported.replace("lib.number", "lib.at").replace("raw)", "args)")}, {}
        )


BINDINGS = [
    "{v} := args.n",
    "{v} := input.context.args.n",
    "some {v} in [args.n]",
    "{v} = args.n",
    "",
]
CHECKS = [
    "",
    "is_number({v})",
    "positive({v})",
    "numbered(args)",
    "is_number(args.n)",
    "not is_null({v})",
]
COMPARISONS = ["{v} <= 100", "100 >= {v}", "over({v})", "{v} > 0", "not_above({v})"]


@given(
    binding=st.sampled_from(BINDINGS),
    checks=st.lists(st.sampled_from(CHECKS), max_size=2),
    comparison=st.sampled_from(COMPARISONS),
    value=st.sampled_from([None, True, "text", [1], {"a": 1}]),
    late=st.booleans(),
)
@settings(max_examples=share(150), deadline=None)
def test_no_rule_that_loads_is_true_of_a_value_of_another_type(
    binding: str, checks: list[str], comparison: str, value: object, *, late: bool
) -> None:
    name = "n" if binding else "args.n"
    statements = [binding, comparison, *checks] if late else [binding, *checks, comparison]
    body = lines(*(text.format(v=name) for text in statements if text))
    rule = f"not_above(n) if n <= 100\n{body}"
    if faults(rule):
        return
    engine = regorus.Engine()
    engine.add_policy("a.rego", HEAD + rule + "\n")
    engine.set_input_json(json.dumps({"context": {"args": {"n": value}}}))
    assert engine.eval_rule_as_json("data.policies.a.x") == '"<undefined>"'


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        (("version",), True),
        (("phase",), True),
        (("subject", "roles"), True),
        (("subject", "roles", ""), True),
        (("subject", "on_behalf_of"), False),
        (("context", "args"), False),
        (("context", "args", "n"), False),
        (("context", "now_ns"), True),
        (("context", "run", "calls"), True),
        (("context", "run", "sums", ""), True),
        (("context", "claimed", "x"), False),
        (("context", "result", "structured"), False),
        (("context", "nowhere", "x"), False),
        ((), False),
    ],
)
def test_the_schema_tells_what_has_a_type(path: tuple[str, ...], *, typed: bool) -> None:
    assert TYPES.is_typed(path) is typed


def test_references_of_a_schema_are_followed() -> None:
    types = InputTypes(
        {
            "$defs": {"n": {"type": "number"}, "loop": {"$ref": "#/$defs/loop"}},
            "properties": {
                "a": {"$ref": "#/$defs/n"},
                "b": {"$ref": "#/$defs/gone"},
                "c": {"enum": [1, "x"]},
                "d": {"type": "array", "items": {"type": "string"}},
                "e": {"type": "object", "properties": {}, "additionalProperties": False},
            },
        }
    )
    assert [types.is_typed((name,)) for name in "abcde"] == [True, False, False, True, True]


def test_a_bundle_that_once_decided_is_restored_but_not_used_anew() -> None:
    rule = lines("input.context.args.n <= 100")
    main = (find_rego_root() / MAIN_PATH).read_text()
    bundle = build_bundle({"a.rego": f"package policies.a\n{rule}\n"}, {}, main=main)
    assert restore_bundle(dict(bundle.files)).revision == bundle.revision
    with pytest.raises(ConfigurationError, match="null is below every number"):
        restore_bundle(dict(bundle.files), anew=True)
