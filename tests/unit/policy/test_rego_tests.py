from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.authoring.rego_cases import Case
from gateway.adapters.authoring.rego_tests import RuleOutcome, run_tests
from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("GW-11")


def run(folder: Path, **files: str) -> dict[str, RuleOutcome]:
    for name, text in files.items():
        (folder / f"{name}.rego").write_text(text)
    return {result.name: result for result in run_tests(folder)}


def outcomes(results: dict[str, RuleOutcome]) -> dict[str, str]:
    return {name.rpartition(".")[2]: result.outcome for name, result in results.items()}


def test_a_test_passes_only_when_it_is_true(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        a_test="package a_test\ntest_true if 1 == 1\ntest_false := false\n"
        "test_number := 1\ntest_undefined if input.x\nother := true\ntodo_test_later if false\n",
    )
    assert outcomes(results) == {
        "test_true": "PASS",
        "test_false": "FAIL",
        "test_number": "FAIL",
        "test_undefined": "FAIL",
        "todo_test_later": "SKIPPED",
    }
    assert results["data.a_test.test_false"].file == "a_test.rego"
    assert results["data.a_test.test_false"].row == 3


def test_an_error_is_no_pass_and_says_where(tmp_path: Path) -> None:
    results = run(tmp_path, a_test='package a_test\ntest_error if to_number("x") == 1\n')
    result = results["data.a_test.test_error"]
    assert result.outcome == "ERROR"
    assert "a_test.rego:2:" in result.message


def tree(result: RuleOutcome) -> dict[str, object]:
    def shown(cases: tuple[Case, ...]) -> dict[str, object]:
        return {case.name: shown(case.cases) or not case.failed for case in cases}

    return shown(result.cases)


@pytest.mark.parametrize(
    ("rule", "cases"),
    [
        (
            'test_x[name] if {\n\tsome name, tc in {"one": 1, "two": 2}\n\ttc == 1\n}',
            {"one": True, "two": False},
        ),
        (
            (
                'test_x[tc.note] if {\n\tsome tc in [{"note": "a"}, {"note": "b"}]\n'
                '\ttc.note == "a"\n}'
            ),
            {"a": True, "b": False},
        ),
        (
            (
                'test_x[a][b] if {\n\tsome a, bs in {"m": {"n": 1, "o": 2}, "q": {"n": 1}}\n'
                "\tsome b, v in bs\n\tv == 1\n}"
            ),
            {"m": {"n": True, "o": False}, "q": {"n": True}},
        ),
        (
            'test_x[sprintf("case %d", [i])] if {\n\tsome i, v in [1, 2]\n\tv == 1\n}',
            {"case 0": True, "case 1": False},
        ),
        ("test_x[i] if {\n\tsome i\n\tv := [1, 2][i]\n\tv == 1\n}", {"0": True, "1": False}),
        ('test_x[name] := v if some name, v in {"a": true, "b": 3}', {"a": True, "b": False}),
        # The name is bound below what fails: OPA does not see the second case at all.
        (
            'test_x[name] if {\n\tsome v in [1, 2]\n\tv == 1\n\tname := sprintf("c%d", [v])\n}',
            {"c1": True, "c2": False},
        ),
        (
            (
                'cases := {"a": 1, "b": 2}\ntest_x[name] if {\n\tprint("x")\n\ttc := cases[name]\n'
                "\tn := tc + 1\n\tn == 2\n}"
            ),
            {"a": True, "b": False},
        ),
    ],
)
def test_a_case_that_fails_is_named(tmp_path: Path, rule: str, cases: dict[str, object]) -> None:
    results = run(tmp_path, a_test=f"package a_test\n{rule}\n")
    assert outcomes(results) == {"test_x": "FAIL"}
    assert tree(results["data.a_test.test_x"]) == cases


def test_a_parameterised_test_passes_when_all_its_cases_do(tmp_path: Path) -> None:
    rule = 'test_x[name] if {\n\tsome name, n in {"a": 1, "b": 2}\n\tn < 3\n}'
    results = run(tmp_path, a_test=f"package a_test\n{rule}\n")
    assert outcomes(results) == {"test_x": "PASS"}
    assert tree(results["data.a_test.test_x"]) == {"a": True, "b": True}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("test_x[name] if {\n\tsome name, tc in data.none\n\ttc\n}", "it has no cases"),
        ("test_x[name] if { name == 1 } else := 2 if { name := 2 }", "cannot enumerate"),
        # OPA passes these: the cases that fail are never named.
        ("test_x[i] if {\n\tsome i\n\t[1, 2][i] == 1\n}", "cannot enumerate"),
        ('test_x[n] if {\n\tsome {"n": n, "v": 1} in [{"n": "a", "v": 2}]\n}', "cannot enumerate"),
        ("test_x(y) if y", "takes no arguments"),
    ],
)
def test_what_tests_nothing_never_passes(tmp_path: Path, rule: str, message: str) -> None:
    (result,) = run(tmp_path, a_test=f"package a_test\n{rule}\n").values()
    assert result.outcome == "ERROR"
    assert message in result.message


@pytest.mark.parametrize(
    "rule", ['test_x contains name if some name in ["one"]', "test_x.y if true", 'test_x["y"]']
)
def test_what_is_no_boolean_fails(tmp_path: Path, rule: str) -> None:
    assert set(outcomes(run(tmp_path, a_test=f"package a_test\n{rule}\n")).values()) == {"FAIL"}


def test_tests_of_one_name_are_tests_of_their_own(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        a_test="package a_test\ntest_x if true\ntest_x if false\nat.deep.test_x if true\n",
        b_test="package a_test\ntest_x if true\n",
    )
    assert {name: result.outcome for name, result in results.items()} == {
        "data.a_test.test_x": "PASS",
        "data.a_test.test_x#01": "FAIL",
        "data.a_test.at.deep.test_x": "PASS",
        "data.a_test.test_x#02": "PASS",
    }
    assert results["data.a_test.test_x#02"].file == "b_test.rego"


def test_what_a_test_prints_is_kept(tmp_path: Path) -> None:
    results = run(tmp_path, a_test='package a_test\ntest_x if {\n\tprint("hello", 1)\n}\n')
    assert results["data.a_test.test_x"].output == ("a_test.rego:3: hello 1",)


def test_tests_see_policies_data_and_the_entry_point(tmp_path: Path) -> None:
    (tmp_path / "authority.json").write_text('{"policies": {"a": ["*"]}}')
    results = run(
        tmp_path,
        a='package policies.a\npermit contains {"code": "ok"} if input.x == 1\n',
        a_test="package a_test\nimport data.policies.a\n"
        'test_package if count(a.permit) == 1 with input as {"x": 1}\n'
        'ask := {"version": 1, "phase": "call", "resource": {"server": "s"}, "x": 1}\n'
        'test_decision if data.countersign.decision.outcome == "permit" with input as ask\n',
    )
    assert outcomes(results) == {"test_package": "PASS", "test_decision": "PASS"}


SCOPED = """# METADATA
# custom:
#   applies_to:
#     tools: [shop.refund]
package policies.a

permit contains {"code": "ok"}
"""
ASK = """package a_test
import data.policies.a
ask(tool) := {"version": 1, "phase": "call", "resource": {"server": "shop", "id": tool}}
decided(tool) := answer.outcome if answer := data.countersign.decision with input as ask(tool)
test_it_is_heard_about_its_tool if decided("shop.refund") == "permit"
test_it_is_not_heard_about_another if decided("shop.look") == "deny"
test_asked_by_itself_it_says_what_it_says if count(a.permit) == 1 with input as ask("shop.look")
test_the_whole_is_heard_by_who_says_so if {
	answer := data.countersign.decision with input as ask("shop.look") with data.applies_to as {}
	answer.outcome == "permit"
}
"""


@pytest.mark.req("POL-06", "POL-13")
def test_decisions_in_tests_hear_packages_about_what_they_concern_only(tmp_path: Path) -> None:
    (tmp_path / "authority.json").write_text('{"policies": {"a": ["*"]}}')
    assert set(outcomes(run(tmp_path, a=SCOPED, a_test=ASK)).values()) == {"PASS"}


@pytest.mark.req("POL-06", "POL-12")
def test_decisions_in_tests_know_the_owners_of_packages(tmp_path: Path) -> None:
    owners = '{"owners": {"team": {"packages": ["a"], "servers": ["shop"]}}}'
    (tmp_path / "authority.json").write_text(owners)
    assert set(outcomes(run(tmp_path, a=SCOPED, a_test=ASK)).values()) == {"PASS"}
    (tmp_path / "authority.json").write_text('{"owners": []}')
    found = outcomes(run(tmp_path, a=SCOPED, a_test=ASK))
    assert found["test_it_is_heard_about_its_tool"] == "FAIL"


def test_an_annotation_that_nobody_can_read_ends_the_tests(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.rego:1:1: .*unknown `dance`"):
        run(tmp_path, a=SCOPED.replace("tools: [shop.refund]", "phases: [dance]"), a_test=ASK)


def test_files_that_cannot_be_loaded_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run(tmp_path, a="package {", b_test="package b_test\nx := }\n")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "a.rego",
        "b_test.rego",
    ]


def test_every_shipped_rego_test_passes() -> None:
    results = run_tests(find_rego_root())
    assert len(results) >= 28
    assert {result.outcome for result in results} == {"PASS"}
