"""What loads limits what it says it limits: limits written in many ways, run on the engine."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings

from gateway.adapters.policy.policy_bundle import Bundle, build_bundle, gate_folder
from gateway.core.errors import ConfigurationError
from tests.effort import share
from tests.unit.policy.limit_forms import (
    BINDINGS,
    CHECKS,
    DENY,
    MADE,
    PERMIT,
    RULES,
    SHAPES,
    is_odd,
    may_pass,
    module,
    passing,
    policies,
    write,
)

pytestmark = pytest.mark.req("POL-06")
OWNED = {"authority": {"policies": {"a": ["*"]}}}


def faults(rules: str) -> list[str]:
    try:
        build_bundle({"a.rego": module(rules)}, OWNED)
    except ConfigurationError as error:
        return str(error).splitlines()
    return []


@given(rules=policies())
@settings(max_examples=share(400), deadline=None)
def test_no_limit_that_loads_lets_pass_what_is_no_number_within_it(rules: str) -> None:
    wrong = [value for value in passing(rules) if not may_pass(value, rules)]
    # Most are refused for what they say; to ask the gate about these only is as good and faster.
    assert not wrong or faults(rules), (wrong, rules)


def test_many_of_these_limits_load_and_work() -> None:
    choose = random.Random(6)  # noqa: S311 - always the same ones
    loaded = 0
    for _ in range(160):
        binding, name = choose.choice(BINDINGS)
        check, made = choose.choice(CHECKS), choose.choice(MADE)
        rules = write(binding, name, check, made, choose.choice(SHAPES))
        if is_odd(binding, check, made) or " with " in check or faults(rules):
            continue
        found = list(passing(rules))
        assert all(may_pass(value, rules) for value in found), rules
        loaded += 5 in found
    assert loaded >= 10


def codes(folder: Path, rules: str, **more: str) -> list[tuple[str, int]]:
    """Return the codes of the mistakes in rules, and in which of their rows."""
    head = module("").count("\n")
    for name, text in {"a": module("") + rules + "\n", **more}.items():
        (folder / f"{name}.rego").write_text(text)
    (folder / "authority.json").write_text(json.dumps(OWNED["authority"]))
    found = gate_folder(folder)
    return [] if isinstance(found, Bundle) else [(each.code, each.row - head) for each in found]


def permits(*conditions: str) -> str:
    return f"{PERMIT} {{\n\tcalled\n\t" + "\n\t".join(conditions) + "\n}"


MIXED: Final = [
    'to_number(sprintf("%v", [args.n])) <= 100',
    'n := sprintf("%v", [args.n]); is_string(n); to_number(n) <= 100',
    "count(args.n) <= 3",
    "n := count(args.n); is_number(n); n <= 3",
    'count(sprintf("%v", [args.n])) <= 3',
    "count({x | some x in args.n; is_string(x)}) <= 3",
    "sum([x | some x in args.n; is_number(x)]) <= 100",
    "xs := [x | some x in args.n; is_number(x)]; sum(xs) <= 100",
    "number_or_none(args.n) <= 100",
    "n := number_or_none(args.n); small_number(n)",
    "number(amount) <= 100",
    "n := number(number_or_none(args.n)); n <= 100",
    "amount <= 100",
    "abs(amount) + 1 <= 100",
    "sum([number(x) | some x in args.n]) <= 100",
    "sum({y | some x in args.n; y := number(x)}) <= 100",
    "sum([x | some x in args.list]) <= 100",
    "sum([x | x := args.list[_]]) <= 100",
    "total := sum([x.price | x := args.list[_]]); total <= 100",
    "count({x | some x in args.list}) <= 3",
    "count([1 | args.list[_]]) <= 3",
    "every x in [args.list] { count([1 | some _ in x]) <= 3 }",
    "boxed.n <= 100",
    'n := object.get(boxed, "n", 0); n <= 100',
    'type_name(args.n) <= "number"',
]


@pytest.mark.parametrize("condition", MIXED)
def test_what_was_made_of_any_type_is_not_compared(tmp_path: Path, condition: str) -> None:
    used = "\n\n".join(text for name, text in RULES.items() if name in condition)
    rules = f"{used}\n\n{permits(condition)}"
    assert ("unguarded_comparison", rules.count("\n")) in codes(tmp_path, rules)


NUMBERS: Final = "every x in args.list { is_number(x) }"


@pytest.mark.parametrize(
    "conditions",
    [
        (NUMBERS, "sum([number(x) | some x in args.list]) <= 100"),
        ("n := number(args.n)", "is_array(args.list)", "sum([n | some _ in args.list]) <= 100"),
        ("sum([number(args.n)]) <= 100",),
        ("is_number(args.n)", "sum([number(x) | some x in [args.n]]) <= 100"),
    ],
)
def test_a_function_that_checks_leaves_nothing_out_of_what_was_checked_before(
    tmp_path: Path, conditions: tuple[str, ...]
) -> None:
    assert codes(tmp_path, f"{RULES['number']}\n\n{permits(*conditions)}") == []


@pytest.mark.parametrize("check", ["is_string(args.n)", "is_array(args.n)"])
@pytest.mark.parametrize(
    "made", ["some x in [args.n]", "x := args.n", "some x in [args.n]; x != 1"]
)
def test_a_check_of_another_type_makes_no_function_answer_to_what_it_leaves_out(
    tmp_path: Path, check: str, made: str
) -> None:
    permit = permits(check, f"sum([number(x) | {made}]) <= 100")
    rules = f"{RULES['number']}\n\n{permit}"
    assert codes(tmp_path, rules) == [("unguarded_comparison", rules.count("\n"))]


def test_a_deny_that_asks_of_a_value_to_be_of_two_types_is_told(tmp_path: Path) -> None:
    deny = f"{DENY} {{\n\tcalled\n\tis_string(args.n)\n\tnumber(args.n) > 100\n}}"
    spoken = f"known if is_number(args.n)\n\n{DENY} {{\n\tcalled\n\tnot known\n}}"
    rules = "\n\n".join([f"{PERMIT} {{\n\tcalled\n}}", RULES["number"], spoken, deny])
    assert [code for code, _ in codes(tmp_path, rules)] == ["limit_silenced"]


def test_what_a_rule_leaves_out_of_a_set_is_not_added_up(tmp_path: Path) -> None:
    filled = "amounts contains n if {\n\tsome x in args.list\n\tn := number(x)\n}"
    rules = f"{RULES['number']}\n\n{filled}\n\n{permits('sum(amounts) <= 100')}"
    assert [code for code, _ in codes(tmp_path, rules)] == ["unguarded_comparison"]


ORDERS: Final = [
    ('format_int(args.n, 10) <= "200"', "letter by letter"),
    ('concat("", [args.n]) <= "200"', "letter by letter"),
    ('lower(args.n) <= "200"', "letter by letter"),
    ('is_string(args.n); args.n <= "200"', "letter by letter"),
    ('is_string(args.n); args.n > "1.5e3"', "letter by letter"),
    ('is_string(args.n); args.n > "10 EUR"', "letter by letter"),
    ("is_string(args.n); is_string(args.m); args.n <= args.m", "letter by letter"),
    ("is_string(args.n); args.n <= data.limits.most", "letter by letter"),
    ("is_string(args.n); args.n >= 18", "every number is below every text"),
    ('input.context.now_ns < "2026-01-01"', "every number is below every text"),
    ("is_boolean(args.n); args.n <= 100", "true or false"),
    ("is_null(args.n); args.n <= 100", "null"),
    ('args.n in {1, null}; args.n <= object.get(data.limits, "most", 7)', "null"),
    ('is_number(args.n); args.n <= object.get(data.limits, "most", null)', "null"),
    ("is_array(args.n); args.n <= [100]", "a list"),
    ("[args.n] <= [100]", "a list"),
    ("{args.n} <= {100}", "a set"),
    ('{"a": args.n} <= {"a": 100}', "an object"),
]


@pytest.mark.parametrize(("condition", "words"), ORDERS)
def test_only_numbers_are_limited_by_order(condition: str, words: str) -> None:
    (fault,) = faults(permits(condition))
    assert words in fault
    assert fault.endswith(("in the same body", "`to_number(x)`"))


def test_an_order_of_texts_that_read_like_no_number_is_meant(tmp_path: Path) -> None:
    rules = permits('is_string(args.day); args.day >= "2026-01-01"', 'args.day < "b"')
    assert codes(tmp_path, rules) == []
    assert codes(tmp_path, permits("some a, b in input.subject.roles", 'a < "m"')) == []


CONVERTED: Final = [
    "to_number(args.n) <= 100",
    "to_number(args.n) == 0",
    "n := to_number(args.n)",
    "to_number(args.n, n); n == 0",
    "is_boolean(args.n); to_number(args.n) == 1",
    'to_number(object.get(args, "n", "0")) == 1',
]


@pytest.mark.parametrize("condition", CONVERTED)
def test_null_is_not_made_a_number(tmp_path: Path, condition: str) -> None:
    found = [
        row for code, row in codes(tmp_path, permits(condition)) if code == "unguarded_conversion"
    ]
    assert found in ([3], [4])


def test_a_function_that_makes_a_number_of_its_parameter_is_looked_at_where_it_is_called(
    tmp_path: Path,
) -> None:
    reads = "read(x) := to_number(x)\n\n"
    ((code, _),) = codes(tmp_path, reads + permits("read(args.n) == 0"))
    assert code == "unguarded_comparison"
    assert codes(tmp_path, reads + permits("is_string(args.n)", "read(args.n) == 5")) == []


# --- what is silent where the type is another one -----------------------------------------------

FREE: Final = f"{PERMIT} called\n\n"
LIMITED: Final = f"{DENY} {{\n\tcalled\n\tis_number(args.n)\n\targs.n > 100\n}}\n\n"
KNOWN: Final = "known if is_number(args.n)\n\n"
SPOKEN: Final = f"{KNOWN}{DENY} {{\n\tcalled\n\tnot known\n}}\n"
OVER: Final = "over if {\n\tis_number(args.n)\n\targs.n > 100\n}\n\n"
EACH: Final = (
    "some n in args.list",
    "n := args.list[_]",
    "some i\n\tn := args.list[i]",
    'some n in object.get(args, "list", [])',
    "is_array(args.list)\n\tsome n in args.list",
    "some list in [args.list]\n\tsome n in list",
)
"""Ways of taking each of a list, all of which find nothing in what is none."""
ODD: Final = f"{DENY} {{\n\tsome n in args.list\n\tnot is_number(n)\n}}\n\n"
LISTED: Final = f"{DENY} {{\n\tsome n in args.list\n\tis_number(n)\n\tn > 100\n}}\n\n"
READ: Final = f"{DENY} {{\n\tis_string(args.n)\n\tto_number(args.n) > 100\n}}\n\n"
SILENT: Final = [
    FREE + LIMITED,
    LIMITED,
    FREE + LIMITED.replace("deny", "hold"),
    FREE + OVER + f"{DENY} over",
    FREE + OVER + "worse if over\n\n" + f"{DENY} worse",
    f"n := args.n if is_number(args.n)\n\n{FREE}{DENY} n > 100",
    FREE + LISTED,
    *(FREE + (LISTED + ODD).replace("some n in args.list", each) for each in EACH),
    f"{FREE}{DENY} count([n | some n in args.list; is_number(n); n > 100]) > 0",
    FREE + READ + SPOKEN,
    OVER + f"{PERMIT} {{\n\tcalled\n\tnot over\n}}",
    OVER + "fine if {\n\tcalled\n\tnot over\n}\n\n" + f"{PERMIT} fine",
    OVER + "fine if {\n\tcalled\n\tnot over\n}\n\n" + FREE + f"{DENY} {{\n\tcalled\n\tnot fine\n}}",
    f"{PERMIT} {{\n\tcalled\n\tcount([n | some n in args.list; is_number(n); n > 100]) == 0\n}}",
    f"above(x) if {{\n\tis_number(x)\n\tx > 100\n}}\n\n{FREE}{DENY} above(args.n)",
    f"{FREE}{DENY} {{\n\tis_number(args.n) == true\n\tabs(args.n) > 100\n}}",
    f'{FREE}{DENY} {{\n\ttype_name(args.n) in {{"number", "null"}}\n\tabs(args.n) > 100\n}}',
]


@pytest.mark.parametrize(
    "check",
    ["is_number(args.n) == true", "true = is_number(args.n)", 'type_name(args.n) in {"number"}'],
)
def test_a_check_counts_however_it_is_written(tmp_path: Path, check: str) -> None:
    assert codes(tmp_path, permits(check, "args.n <= 100")) == []


ABOVE: Final = "{\n\tis_number(args.n)\n\targs.n > 100\n}"
WITHIN: Final = ABOVE.replace(">", "<=")
OBJECTIONS: Final = f"objections contains 1 if {ABOVE}\n\n"
TIER: Final = f'tier := "high" if {ABOVE} else := "low"\n\n'
BY_DEFAULT: Final = f'default tier := "low"\n\ntier := "high" if {ABOVE}\n\n'
TIERS: Final = (
    f'tier := "high" if {ABOVE} else := "mid" if {ABOVE.replace("100", "10")} else := "low"\n\n'
)
TIER_OF: Final = (
    'tier_of(x) := "high" if {\n\tis_number(x)\n\tx > 100\n} else := "low"\n\n'
    'same(x) := tier_of(x)\n\ndefault named(_) := "low"\n\nnamed(x) := "high" if '
    'tier_of(x) == "high"\n\n'
)
RISK: Final = f"risk := 10 if {ABOVE} else := 0\n\n"
OVER_OR_NOT: Final = f"over := true if {ABOVE} else := false\n\n"
BUT: Final = f"default fine := true\n\nfine := false if {ABOVE}\n\n"
VERDICT: Final = f'verdict := {{"ok": false}} if {ABOVE} else := {{"ok": true}}\n\n'
OR_NONE: Final = f'{KNOWN}tier := "high" if {ABOVE} else := "none" if not known else := "low"\n\n'
SAYS_NOTHING: Final = [
    OBJECTIONS + permits("count(objections) == 0"),
    OBJECTIONS + permits("0 = count(objections)"),
    OBJECTIONS + permits("count(objections) < 1"),
    OBJECTIONS + permits("not count(objections) > 0"),
    OBJECTIONS + permits("n := count(objections)", "n == 0"),
    OBJECTIONS + permits("objections == set()"),
    OBJECTIONS + permits("all := objections", "set() == all"),
    OBJECTIONS + permits("every each in objections { each == 2 }"),
    OBJECTIONS + permits("sum(objections) < 1"),
    OBJECTIONS + permits("{1} - objections == {1}"),
    OBJECTIONS + f"none := count(objections) == 0\n\n{permits('none')}",
    OBJECTIONS + f"none(xs) if count(xs) == 0\n\n{permits('none(objections)')}",
    OBJECTIONS.replace("objections contains 1", 'said["n"] := 1') + permits("said == {}"),
    OBJECTIONS.replace("objections contains 1", 'said["n"] := 1')
    + permits('object.get(said, "n", 0) == 0'),
    TIER + permits('tier == "low"'),
    TIER + permits('tier = "low"'),
    TIER + permits('tier != "high"'),
    TIER + permits('tier in {"low", "none"}'),
    TIER + permits('startswith(tier, "lo")'),
    TIER + permits("mine := tier", 'mine == "low"'),
    TIER + permits('[tier] == ["low"]'),
    TIER + permits('{"low": 1}[tier] == 1'),
    TIER + f'low if tier == "low"\n\n{permits("low")}',
    TIER + f'low if tier == "low"\n\n{FREE}{DENY} not low',
    TIER + f'{FREE}{DENY} not tier == "low"',
    TIER + f'{FREE}{DENY} tier != "low"',
    TIER + 'permit contains {"code": {"low": "p"}[tier]} if called',
    BY_DEFAULT + permits('tier == "low"'),
    BY_DEFAULT + f'{FREE}{DENY} tier == "high"',
    TIERS + permits('tier in {"low", "mid"}'),
    TIER_OF + permits('tier_of(args.n) == "low"'),
    TIER_OF + permits("tier := tier_of(args.n)", 'tier == "low"'),
    TIER_OF + permits('same(args.n) == "low"'),
    TIER_OF + permits('named(args.n) == "low"'),
    RISK + permits("risk < 5"),
    RISK + permits("risk == 0"),
    OVER_OR_NOT + permits("over == false"),
    OVER_OR_NOT + permits("over != true"),
    OVER_OR_NOT + f"fine := over == false\n\n{permits('fine')}",
    f"default over := false\n\n{OVER}{permits('over == false')}",
    f"default known := false\n\n{KNOWN}{OVER}{permits('known == false', 'not over')}",
    BUT + permits("fine"),
    f"fine := false if {ABOVE} else := true\n\n{permits('fine')}",
    f"fine := false if {ABOVE}\n\nfine := true if called\n\n{permits('fine')}",
    VERDICT + permits("verdict.ok"),
    f'm.a := "high" if {ABOVE}\n\nm.b := 1\n\n' + permits('object.get(m, "a", "low") == "low"'),
    f'm.a := "high" if {ABOVE} else := "low"\n\n' + permits('m.a == "low"'),
    FREE + LIMITED + SPOKEN.replace("called", 'input.phase == "list"'),
    OVER + permits("not over") + "\n\n" + SPOKEN.replace("called", 'input.phase == "list"'),
    f'tier := "high" if not small else := "low"\n\nsmall if {WITHIN}\n\n{FREE}{DENY} tier == "low"',
    f'{OR_NONE}{FREE}{DENY} tier == "high"',
]


@pytest.mark.parametrize("rules", SAYS_NOTHING)
def test_what_a_rule_is_when_its_limit_is_silent_permits_nothing(
    tmp_path: Path, rules: str
) -> None:
    ((code, _),) = codes(tmp_path, rules)
    assert code == "limit_silenced"


SMALL: Final = f"small contains 1 if {WITHIN}\n\n"
LEVEL: Final = f'level := "low" if {WITHIN} else := "high"\n\n'
SAYS_ENOUGH: Final = [
    KNOWN
    + OBJECTIONS
    + "objections contains 2 if not known\n\n"
    + permits("count(objections) == 0"),
    OBJECTIONS + permits("is_number(args.n)", "count(objections) == 0"),
    OBJECTIONS + permits("count(objections) == 0") + "\n\n" + SPOKEN,
    SMALL + permits("count(small) > 0"),
    f'm.a := "low" if {WITHIN}\n\nm.b := 1\n\n' + permits('m.a == "low"'),
    (LIMITED + SPOKEN).replace("called", 'input.phase == "result"'),
    (FREE + LIMITED + SPOKEN)
    .replace("called", 'input.phase == "result"')
    .replace("args.n", "input.context.result.structured.n"),
    SMALL + permits("count(small) != 0"),
    SMALL + permits("not count(small) == 0"),
    SMALL + permits("1 in small"),
    SMALL + permits("some each in small", "each == 1"),
    SMALL.replace("small contains 1", 'small["n"] := 1') + permits("small.n == 1"),
    f"{SMALL}{FREE}{DENY} {{\n\tcalled\n\tcount(small) == 0\n}}",
    f"{SMALL}{FREE}{DENY} {{\n\tcalled\n\tnot count(small) >= 1\n}}",
    LEVEL + permits('level == "low"'),
    LEVEL + permits('level != "high"'),
    LEVEL + permits('level in ["low", "none"]'),
    LEVEL + permits("mine := level", 'mine == "low"', 'startswith(mine, "l")'),
    LEVEL + permits('not level == "high"'),
    f'{LEVEL}{FREE}{DENY} {{\n\tcalled\n\tlevel == "high"\n}}',
    f'{LEVEL}{FREE}{DENY} {{\n\tcalled\n\tlevel != "low"\n}}',
    f"default small := false\n\nsmall if {WITHIN}\n\n{permits('small')}",
    f"risk := 0 if {WITHIN} else := 10\n\n{permits('risk < 5')}",
    'level(x) := "low" if {\n\tis_number(x)\n\tx <= 100\n} else := "high"\n\n'
    + permits("found := level(args.n)", 'found == "low"'),
    'tier("a", x) := "high" if {\n\tis_number(x)\n\tx > 100\n}\n\ntier("b", _) := "low"\n\n'
    + permits('tier("b", args.n) == "low"'),
    f'{KNOWN}tier := "high" if {ABOVE} else := "high" if not known else := "low"\n\n'
    + permits('tier == "low"'),
    f'{OR_NONE}{FREE}{DENY} tier != "low"',
    f"{KNOWN}{BUT}fine := false if not known\n\n{permits('fine')}",
    f"{FREE}{LIMITED}default known := false\n\n{KNOWN}{DENY} {{\n\tcalled\n\tknown == false\n}}",
    f'fine if {WITHIN}\n\nfine if "vip" in input.subject.roles\n\n{permits("fine")}',
    f'tier := "high" if not small else := "low"\n\nsmall if {WITHIN}\n\n'
    + permits('tier == "low"'),
    TIER + 'permit contains {"code": sprintf("p_%s", [tier])} if called',
    TIER + 'permit contains {"code": "p", "reason": tier} if called',
    TIER + 'permit contains {"code": "p", "reason": mine} if {\n\tcalled\n\tmine := tier\n}',
]


@pytest.mark.parametrize("rules", SAYS_ENOUGH)
def test_what_holds_only_where_a_limit_has_spoken_is_accepted(tmp_path: Path, rules: str) -> None:
    assert codes(tmp_path, rules) == []


@pytest.mark.parametrize("rules", SILENT)
def test_a_limit_that_is_silent_for_another_type_is_told(tmp_path: Path, rules: str) -> None:
    ((code, _),) = codes(tmp_path, rules)
    assert code == "limit_silenced"


HEARD: Final = [
    FREE + LIMITED + SPOKEN,
    FREE + LIMITED + SPOKEN.replace("deny", "hold"),
    FREE + LIMITED + f"n := args.n if is_number(args.n)\n\n{DENY} not n",
    FREE + LIMITED + KNOWN + f"unclear if not known\n\n{DENY} unclear",
    FREE + OVER + SPOKEN + f"{DENY} over",
    f"{PERMIT} is_number(args.n)\n\n" + LIMITED,
    f'{PERMIT} input.phase == "list"\n\n{PERMIT} is_number(args.n)\n\n' + LIMITED,
    f'{PERMIT} input.phase in {{"list", "issue"}}\n\n{PERMIT} is_number(args.n)\n\n' + LIMITED,
    f"small if {{\n\tis_number(args.n)\n\targs.n <= 100\n}}\n\n{FREE}{DENY} not small",
    f"{PERMIT} {{\n\tis_number(args.n)\n\tnot over\n}}\n\n" + OVER,
    f"{PERMIT} {{\n\tcalled\n\tnot over\n}}\n\n" + OVER + SPOKEN,
    FREE + LISTED + ODD + f"listed if is_array(args.list)\n\n{DENY} not listed",
    f"{PERMIT} is_array(args.list)\n\n" + LISTED + ODD,
    FREE + LISTED + f"known if every n in args.list {{ is_number(n) }}\n\n{DENY} not known",
    FREE + LIMITED + READ + f"{KNOWN}known if is_string(args.n)\n\n{DENY} not known",
    f"{FREE}{DENY} {{\n\tis_number(input.context.claimed.n)\n\tinput.context.claimed.n > 1\n}}",
    f"{FREE}{DENY} {{\n\tis_number(input.context.budget.n)\n\tinput.context.budget.n < 1\n}}",
    f"{FREE}{DENY} abs(args.n) > 100",
    f'{FREE}{DENY} {{\n\tis_string(args.to)\n\tendswith(args.to, "x")\n}}',
]


@pytest.mark.parametrize("rules", HEARD)
def test_a_limit_to_which_somebody_speaks_is_none_that_is_silent(
    tmp_path: Path, rules: str
) -> None:
    assert codes(tmp_path, rules) == []


def test_a_silent_limit_is_told_with_the_rule_that_would_speak() -> None:
    (fault,) = faults(FREE + LIMITED)
    assert "a.rego:" in fault
    assert "this deny is silent where `input.context.args.n` is of another type" in fault
    assert "`known if is_number(input.context.args.n)`" in fault


@pytest.mark.parametrize(
    ("check", "limit"),
    [
        ("is_array", "count(args.n) > 10"),
        ("is_object", "count(args.n) > 10"),
        ("is_string", 'count(split(args.n, "")) > 10'),
    ],
)
def test_the_rule_that_would_speak_asks_for_the_type_that_the_limit_is_of(
    check: str, limit: str
) -> None:
    (fault,) = faults(f"{FREE}{DENY} {{\n\t{check}(args.n)\n\t{limit}\n}}")
    assert f"`known if {check}(input.context.args.n)`" in fault


def test_what_the_library_reads_counts_as_checked_by_it(tmp_path: Path) -> None:
    lib = module("").replace("import input.context.args", "import data.countersign.lib.args as lib")
    limit = lib + FREE + f'{DENY} lib.number("n") > 100\n'
    spoken = limit + f'\nn := lib.number("n")\n\n{DENY} not n\n'
    assert [code for code, _ in codes(tmp_path, "", a=limit)] == ["limit_silenced"]
    assert codes(tmp_path, "", a=spoken) == []


# --- with ---------------------------------------------------------------------------------------


def test_what_is_put_in_the_place_of_the_input_has_to_be_of_a_known_type(tmp_path: Path) -> None:
    small = "late if input.context.now_ns > 5\n\n"
    put = "late with input.context.now_ns as args.n"
    assert codes(tmp_path, small + permits(put)) == [("with_untyped", 5)]
    assert codes(tmp_path, small + permits("late with input.context.now_ns as 7")) == []
    mocked = permits("known with is_number as is_string")
    assert ("with_untyped", 5) in codes(tmp_path, KNOWN + mocked)


def test_a_check_under_with_says_nothing_of_the_call(tmp_path: Path) -> None:
    rules = permits("is_number(args.n) with input.context.args.n as 5", "args.n <= 100")
    assert codes(tmp_path, rules) == [("unguarded_comparison", 4)]
    bound = permits("n := args.n with input.context.args.n as 5", "is_number(n)", "args.n <= 100")
    assert codes(tmp_path, bound) == [("unguarded_comparison", 5)]
