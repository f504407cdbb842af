"""Recursion, conflicts, unknown names, odd names, and faults of syntax with their remedies."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.authoring.policy_review import find_warnings
from gateway.adapters.policy.policy_bundle import Bundle, gate_folder
from gateway.adapters.policy.policy_faults import Mistake, read_engine_error

pytestmark = pytest.mark.req("POL-06")
HEAD = "package policies.a\n"


def gate(folder: Path, **sources: str) -> list[Mistake]:
    for name, text in sources.items():
        (folder / f"{name}.rego").write_text(text)
    found = gate_folder(folder)
    return [] if isinstance(found, Bundle) else found


def gate_rules(folder: Path, rules: str) -> Mistake:
    (fault,) = gate(folder, a=HEAD + rules + "\n")
    return fault


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        ("x if x", "`x` → `x`"),
        ("x if y\ny if z\nz if x", "`x` → `y` → `z` → `x`"),
        ("f(n) := g(n)\ng(n) := f(n)", "`f` → `g` → `f`"),
        ("x contains n if some n in x", "`x` → `x`"),
        ("x if data.policies.a.y\ny if count(data.policies.a.x) > 0", "`x` → `y` → `x`"),
    ],
)
def test_a_rule_that_stands_on_itself_is_refused(tmp_path: Path, rules: str, shown: str) -> None:
    fault = gate_rules(tmp_path, rules)
    assert (fault.code, fault.file, fault.row, fault.col) == ("recursion", "a.rego", 2, 1)
    assert shown in fault.message
    assert fault.hint


def test_recursion_through_packages_is_found(tmp_path: Path) -> None:
    other = "package policies.b\nimport data.policies.a\ny if a.x\n"
    (fault,) = gate(tmp_path, a=HEAD + "x if data.policies.b.y\n", b=other)
    assert fault.code == "recursion"


def test_what_only_looks_like_recursion_passes(tmp_path: Path) -> None:
    rules = "x := 1\ny if {\n\tx := 2\n\tx == 2\n}\nz(x) := x\nw := z(x)\na := data.policies.b.c\n"
    assert (
        gate(tmp_path, a=HEAD + rules, b="package policies.b\nc := 1\na := data.policies.a.x\n")
        == []
    )


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ("x := 1\nx contains 2", "`x` is a set (`contains`) here and a value elsewhere"),
        ("x := 1\nx(n) := n", "`x` is a function here and a value elsewhere"),
        ("f(n) := n\nf(n, m) := n + m", "`f` takes 2 arguments here and 1 elsewhere"),
        ("default x := 1\ndefault x := 2", "`x` has a second default"),
        ("x := 1\nx := 2 if input.phase", "`x` always is 1, so it conflicts with 2"),
        ("x := 1\nx := 2", "`x` always is 1, so it conflicts with 2"),
    ],
)
def test_rules_that_conflict_are_refused(tmp_path: Path, rules: str, text: str) -> None:
    fault = gate_rules(tmp_path, rules)
    assert (fault.code, fault.row) == ("rule_conflict", 3)
    assert fault.message == text
    assert fault.hint


def test_rules_that_may_stand_together_pass(tmp_path: Path) -> None:
    rules = (
        "default x := 1\nx := 2 if input.phase\ny := 1\ny := 1 if input.phase\n"
        "m.a := 1\nm.b := 2\nm[k] := v if some k, v in {3: 4}\nf(1) := 1\nf(2) := 2\ns contains 1\n"
        "s contains 2\nz := 1 if true else := 2\n"
    )
    assert gate(tmp_path, a=HEAD + rules) == []


@pytest.mark.parametrize(
    ("rules", "code", "text"),
    [
        ("receiving if true\nx if recieving", "unknown_name", "did you mean `receiving`?"),
        ("x if zzz", "unknown_name", "bind it: `zzz := …`"),
        ("x := cuont([1])", "function_unknown", "did you mean `count`?"),
        ("x := data.policies.limits.lmit", "rule_unknown", "did you mean `limit`?"),
        ("x := data.policies.limts.limit", "package_unknown", "did you mean `limits`?"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_was_meant(
    tmp_path: Path, rules: str, code: str, text: str
) -> None:
    (fault,) = gate(tmp_path, a=f"{HEAD}{rules}\n", b="package policies.limits\nlimit := 1\n")
    assert fault.code == code
    assert text in fault.hint


def test_names_that_are_bound_without_a_declaration_pass(tmp_path: Path) -> None:
    rules = (
        'x if {\n\ty = input.phase\n\ty == "call"\n}\nz if input.list[i] == i\n'
        "w if {\n\twalk(input, [p, v])\n\tv == p\n}\nf(a, [b, [c]]) := [a, b, c]\n"
        "u := [k | some k, _ in {}]\n"
    )
    assert gate(tmp_path, a=HEAD + rules) == []


@pytest.mark.parametrize(
    ("rules", "code", "row", "hint"),
    [
        ("deny[x] {\n\tx := 1\n}", "v0_syntax", 2, "write `if`"),
        ("allow {\n\ttrue\n}", "v0_syntax", 2, "this is Rego v0"),
        ('x := $"{input.phase}"', "string_interpolation", 2, "use `sprintf`"),
        ("x if {\n\tinput := 1\n}", "shadowing", 3, "use another name"),
        ("x if {\n\ty := 1\n", "syntax", 5, "a `}` is missing"),
        ("x if input.a && input.b", "syntax", 2, "a line of its own"),
        ("x if !input.a", "syntax", 2, "write `not`"),
        ("x := 'a'", "syntax", 2, "double quotes"),
    ],
)
def test_a_fault_of_syntax_has_a_remedy(
    tmp_path: Path, rules: str, code: str, row: int, hint: str
) -> None:
    fault = gate_rules(tmp_path, rules)
    assert (fault.code, fault.row) == (code, row)
    assert hint in fault.hint


def test_columns_count_bytes_as_opa_counts_them(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(HEAD + "x if {\n\t\tinput.a && input.b\n}\n")
    found = gate_folder(tmp_path)
    assert isinstance(found, list)
    assert (found[0].row, found[0].col) == (3, 12)


def test_a_line_that_no_worker_reads_is_named(tmp_path: Path) -> None:
    fault = gate_rules(tmp_path, f'x := "{"a" * 1100}"')
    assert (fault.code, fault.row, fault.col) == ("line_too_long", 2, 1025)


def test_what_is_declared_and_never_used_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(
        HEAD + "import data.policies.b\nimport data.policies.c as cc\n"
        "x if {\n\ty := 1\n\tsome k, v in input.map\n\tv == cc.z\n}\nf(n, _) := 1\n"
        "g(n) := n\nh := [i | some i in [1]]\n"
    )
    found = {(each.code, each.row, each.message.split("`")[1]) for each in find_warnings(tmp_path)}
    assert found == {
        ("unused_variable", 5, "y"),
        ("unused_variable", 6, "k"),
        ("unused_variable", 9, "n"),
        ("unused_import", 2, "b"),
    }
    assert {each.severity for each in find_warnings(tmp_path)} == {"warning"}


def test_a_name_that_hides_another_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(
        HEAD + "limit := 1\nx if {\n\tlimit := 2\n\tcount := 3\n\tlimit == count\n}\n"
    )
    found = [each.message for each in find_warnings(tmp_path)]
    assert found == [
        "`limit` hides the rule of that name",
        "`count` hides the built-in function of that name",
    ]


def test_the_shipped_policies_have_no_oddities() -> None:
    examples = Path(__file__).resolve().parents[3] / "examples" / "acme" / "policies"
    assert find_warnings(examples) == []


def test_what_an_engine_refuses_is_told_at_its_place() -> None:
    text = (
        "\n--> policies/a.rego:3:1\n  |\n3 | x := 2\n  | ^\n"
        "error: rule conflicts with rule at policies/a.rego:2:1\n\n"
    )
    found = read_engine_error(text, "policy_invalid")
    assert (found.file, found.row, found.col, found.code) == ("a.rego", 3, 1, "engine_refused")
    assert "exclude each other" in found.hint
    assert read_engine_error("a wrong thing; mend it", "policy_selftest_failed") == Mistake(
        "policies", 0, 0, "policy_selftest_failed", "a wrong thing", "mend it"
    )
