from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.policy.policy_bundle import find_rego_root
from gateway.adapters.policy.rego_tests import RuleOutcome, run_tests
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


@pytest.mark.parametrize(
    "rule",
    [
        'test_x[name] if { some name, case in {"one": 1}; case == 1 }',
        'test_x contains name if some name in ["one"]',
        "test_x(y) if y",
        "test_x if true\ntest_x if false",
    ],
)
def test_what_could_hide_a_failure_never_passes(tmp_path: Path, rule: str) -> None:
    assert set(outcomes(run(tmp_path, a_test=f"package a_test\n{rule}\n")).values()) == {"ERROR"}


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
