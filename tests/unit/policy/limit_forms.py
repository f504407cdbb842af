"""Ways of writing one limit, "`n` is at most 100", right and wrong: a small grammar.

A value may pass if it is a number within the limit. A policy that names another type itself
(`is_string(x)`, and then `to_number(x)`) may let that type pass, within the limit as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import regorus
from hypothesis import strategies as st

ABSENT: Final = "(absent)"
VALUES: Final[list[Any]] = [
    *(None, True, False, "", "5", "1000000", "x", [], [5], ["1000000"], [None, 5], {}),
    *({"a": 1}, {"a": 1000000}, 5, 100, -3.5, 101, 1e9, ABSENT),
]
LIMIT: Final = 100
RULES: Final = {
    "same": "same(x) := x",
    "numbers": "numbers(xs) := [x | some x in xs; is_number(x)]",
    "number": "number(x) := x if is_number(x)",
    "number_or_none": "number_or_none(x) := x if {\n\tis_number(x)\n} else := 0",
    "small": "small(x) if x <= 100",
    "small_number": "small_number(x) if {\n\tis_number(x)\n\tx <= 100\n}",
    "over_number": "over_number(x) if {\n\tis_number(x)\n\tx > 100\n}",
    "tier_of": 'tier_of(x) := "b" if {\n\tis_number(x)\n\tx > 100\n} else := "a"',
    "level_of": 'level_of(x) := "a" if {\n\tis_number(x)\n\tx <= 100\n} else := "b"',
    "raw": "raw := args.n",
    "boxed": 'default boxed := {"n": 0}\n\nboxed := {"n": args.n} if is_number(args.n)',
    "amount": "default amount := 0\n\namount := args.n if is_number(args.n)",
    "checked": "checked := args.n if is_number(args.n)",
    "n_is_number": "n_is_number if is_number(args.n)",
}
BINDINGS: Final = [
    ("", "args.n"),
    ("", 'args["n"]'),
    ("n := args.n", "n"),
    ("n = args.n", "n"),
    ('n := object.get(args, "n", 0)', "n"),
    ("some n in [args.n]", "n"),
    ("[n, _] := [args.n, 1]", "n"),
    ('x := {"y": [args.n]}; n := x.y[_]', "n"),
    ("n := same(args.n)", "n"),
    ("n := raw", "n"),
    ("n := checked", "n"),
    ("n := amount", "n"),
    ("n := boxed.n", "n"),
    ("n := number(args.n)", "n"),
    ("n := number_or_none(args.n)", "n"),
    ("n := numbers([args.n])[0]", "n"),
    ("n := json.unmarshal(json.marshal(args.n))", "n"),
    ('walk(args, [["n"], n])', "n"),
    ("to_number(args.n, n)", "n"),
]
CHECKS: Final = [
    *("", "is_number({0})", "n_is_number", "is_string({0})", "is_array({0})", "is_boolean({0})"),
    *("not is_null({0})", "{0} == round({0})", 'type_name({0}) == "number"'),
    *("is_number({0}) == true", 'type_name({0}) in {{"number"}}'),
    "is_number({0}) with input.context.args.n as 5",
    "every e in [{0}] {{ is_number(e) }}",
]
MADE: Final = [
    *("{0}", "{0}", "to_number({0})", "abs({0})", "round({0})", "{0} * 1", "{0} + 0"),
    *("0 - (0 - {0})", "max([{0}, 7])", "min([{0}, 1e12])", "sort([{0}])[0]", "sum([{0}])"),
    *("sum({0})", "count({0})", "product([{0}])", 'to_number(sprintf("%v", [{0}]))'),
    *("to_number(format_int({0}, 10))", 'count(sprintf("%v", [{0}])) * 30', "units.parse({0})"),
    *('object.get({{"k": {0}}}, "k", 0)', "[{0}][0]", "array.concat([{0}], [])[0]", "same({0})"),
    *("[m | some m in [{0}]; is_number(m)][0]", "sum([m | some m in [{0}]; is_number(m)])"),
    *("sum([number(m) | some m in [{0}]])", "sum({{m | some k in [{0}]; m := number(k)}})"),
    "count([m | some m in [{0}]; is_number(m); m > 100]) * 101",
    *("number({0})", "number_or_none({0})", "json.unmarshal(json.marshal({0}))"),
]
CONDITIONS: Final = [
    *('format_int({0}, 10) <= "100"', 'sprintf("%v", [{0}]) <= "100"', '{0} <= "100"'),
    *('concat("", [{0}]) <= "100"', 'lower({0}) <= "100"', "max([{0}, 100]) == 100"),
    *("sort([{0}, 100])[1] == 100", "min([{0}, 100]) == {0}", "[{0}] <= [100]"),
    *("{{{0}}} <= {{100}}", "small({0})", "small_number({0})", "not over_number({0})"),
    "count([1 | some m in [{0}]; is_number(m); m > 100]) == 0",
    *("every m in [{0}] {{ m <= 100 }}", "every m in [{0}] {{ is_number(m); m <= 100 }}"),
]
"""Whole conditions for "within the limit"."""
PERMIT: Final = 'permit contains {"code": "p"} if'
DENY: Final = 'deny contains {"code": "d"} if'
SPEAKS: Final = f"known if is_number(args.n)\n{DENY} {{\n\tcalled\n\tnot known\n}}"
_FREE: Final = f"{PERMIT} called"
SHAPES: Final = [
    f"{PERMIT} {{0}} within {{1}}",
    f"{PERMIT} {{0}} within {{1}}",
    f"{PERMIT} {{0}} x := made; x <= 100 {{1}}",
    f"{PERMIT} {{0}} x := made; on_x; x <= 100 {{1}}",
    f"{_FREE}\n{DENY} {{0}} above {{1}}",
    f"{_FREE}\n{DENY} {{0}} above {{1}}".replace("deny", "hold"),
    f"{_FREE}\n{DENY} {{0}} above {{1}}\n{SPEAKS}",
    f"{PERMIT} {{0}} {{1}}\n{DENY} {{0}} above {{1}}",
    f"large if {{0}} above {{1}}\n{PERMIT} {{2}} not large {{1}}",
    f"large if {{0}} above {{1}}\n{DENY} large\n{_FREE}",
    f"fine if {{0}} within {{1}}\n{PERMIT} fine",
    f"fine if {{0}} within {{1}}\n{DENY} {{2}} not fine {{1}}\n{_FREE}",
    f"large if {{0}} above {{1}}\nfine if {{2}} not large {{1}}\n{PERMIT} fine",
    f"objections contains 1 if {{0}} above {{1}}\n{PERMIT} {{2}} count(objections) == 0 {{1}}",
    f"objections contains 1 if {{0}} above {{1}}\n{PERMIT} {{2}} objections == set() {{1}}",
    f"objections contains 1 if {{0}} above {{1}}\n{DENY} count(objections) > 0\n{_FREE}",
    f'tier := "b" if {{0}} above {{1}} else := "a"\n{PERMIT} {{2}} tier == "a" {{1}}',
    f'tier := "b" if {{0}} above {{1}} else := "a"\n{DENY} tier != "a"\n{_FREE}',
    f'default tier := "a"\n\ntier := "b" if {{0}} above {{1}}\n{PERMIT} {{2}} tier != "b" {{1}}',
    f"tier := 9 if {{0}} above {{1}} else := 0\n{PERMIT} {{2}} tier < 5 {{1}}",
    f"tier if {{0}} above {{1}} else := false\n{PERMIT} {{2}} tier == false {{1}}",
    f"default tier := true\n\ntier := false if {{0}} above {{1}}\n{PERMIT} {{2}} tier {{1}}",
    f'level := "a" if {{0}} within {{1}} else := "b"\n{PERMIT} {{2}} level == "a" {{1}}',
    f'level := "a" if {{0}} within {{1}} else := "b"\n{DENY} {{2}} level == "b" {{1}}\n{_FREE}',
    f'{PERMIT} {{0}} x := made; tier_of(x) == "a" {{1}}',
    f'{PERMIT} {{0}} x := made; tier := tier_of(x); tier != "b" {{1}}',
    f'{PERMIT} {{0}} x := made; level_of(x) == "a" {{1}}',
]
"""Where the limit stands: `within` and `above` are its two conditions."""


def write(binding: str, name: str, check: str, made: str, shape: str) -> str:
    """Return the rules of a policy with this limit."""
    value, checked = made.format(name), check.format(name)
    start = "{\n\tcalled\n\t" + "".join(f"{each}\n\t" for each in (binding, checked) if each)
    text = shape.replace("{0}", start).replace("{1}", "\n}").replace("{2}", "{\n\tcalled\n\t")
    on_x = checked if "n_is_number" in checked else check.format("x") or "true"
    said = {
        "within": value if made in CONDITIONS else f"{value} <= {LIMIT}",
        "above": f"{value} > {LIMIT}",
        "on_x": on_x,
        "made": value,
    }
    return re.sub(r"\b(within|above|on_x|made)\b", lambda found: said[found[1]], text)


def module(rules: str) -> str:
    """Return the module of these rules, with those on which they stand."""
    used = [text for name, text in RULES.items() if re.search(rf"\b{name}\b", rules)]
    head = "package policies.a\n\nimport input.context.args\n\n"
    return head + "\n\n".join(['called if input.phase == "call"', *used, rules]) + "\n"


def is_odd(binding: str, check: str, made: str) -> bool:
    """Whether this checks one thing and compares another one, which nobody can see from outside."""
    other = any(word in check for word in ("is_string", "is_array", "is_boolean"))
    apart = any(word in binding for word in ("walk", "unmarshal"))
    return (other and "number_or_none" in binding + made) or (apart and check == "n_is_number")


def _of(drawn: tuple[tuple[str, str], str, str, str]) -> str:
    (binding, name), check, made, shape = drawn
    return write(binding, name, check, made, shape)


def policies() -> st.SearchStrategy[str]:
    """Return policies that let `n` pass within the limit, or mean to."""
    made = st.tuples(
        st.sampled_from(BINDINGS),
        st.sampled_from(CHECKS),
        st.sampled_from(MADE),
        st.sampled_from(SHAPES),
    )
    conditions = st.tuples(
        st.sampled_from(BINDINGS),
        st.sampled_from(CHECKS),
        st.sampled_from(CONDITIONS),
        st.just(SHAPES[0]),
    )
    known = (made | conditions).filter(lambda each: not is_odd(each[0][0], each[1], each[2]))
    return known.filter(lambda each: " with " not in each[1] or each[3] == SHAPES[0]).map(_of)


def passing(rules: str) -> Iterator[Any]:
    """Yield the values that these rules let pass. An error of the engine denies."""
    given = [name for name in ("permit", "deny", "hold") if f"{name} contains" in rules]
    sets = [f"data.policies.a.{name}" for name in given]
    loaded = regorus.Engine()
    loaded.add_policy("a.rego", module(rules))
    for value in VALUES:
        # What an error leaves in an engine is not to reach the next value.
        engine = loaded.clone()
        args = {} if value == ABSENT else {"n": value}
        engine.set_input_json(json.dumps({"phase": "call", "context": {"args": args}}))
        try:
            said = [json.loads(engine.eval_rule_as_json(name)) for name in sets]
        except RuntimeError:
            continue
        if said[0] and not any(said[1:]):
            yield value


def may_pass(value: object, rules: str) -> bool:
    """Whether rules that the gate accepts may let a value pass."""
    limited = any(word in rules for word in ("deny", "hold", "not large", "tier", "objections"))
    counted = "count(" in rules.replace("count(objections)", "")
    if value == ABSENT:
        return limited or "object.get(" in rules
    if value is None:
        # "Not null, and more than 100" says itself that null is none of its business.
        return limited and "not is_null(" in rules
    if isinstance(value, bool):
        return "is_boolean(" in rules
    if isinstance(value, int | float):
        return value <= LIMIT or counted
    if isinstance(value, str):
        read = "is_string(" in rules or "units.parse(" in rules
        return read and (counted or value in {"", "5"})
    if isinstance(value, list):
        return "is_array(" in rules or ("sum(" in rules and value in ([], [5]))
    return False
