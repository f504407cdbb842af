"""What is said of a test that fails: the expression, its values, and the rules that it asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.authoring.rego_failures import Failure
from gateway.adapters.authoring.rego_tests import run_folder

pytestmark = pytest.mark.req("POL-06")

POLICY = """package policies.a

permit contains {"code": "ok"} if {
	asked
	input.context.args.n < data.limits.most
}

asked if is_number(input.context.args.n)

deny contains {"code": "no"} if input.context.args.country == "kp"
"""


def failures(folder: Path, body: str, head: str = "test_x") -> list[Failure]:
    (folder / "authority.json").write_text('{"policies": {"a": ["*"]}}')
    (folder / "data.json").write_text('{"limits": {"most": 5}}')
    (folder / "a.rego").write_text(POLICY)
    lines = "\n".join(f"\t{line}" for line in body.splitlines())
    test = f"package a_test\n\nimport data.countersign\nimport data.policies.a\n\n{head} if {{\n"
    (folder / "a_test.rego").write_text(f"{test}{lines}\n}}\n")
    (outcome,) = run_folder(folder, explained=True).outcomes
    assert outcome.outcome == "FAIL"
    return list(outcome.failures)


def asking(n: object) -> str:
    return f'{{"context": {{"args": {{"n": {n}}}}}}}'


def test_the_first_expression_that_does_not_hold_is_told_with_its_values(tmp_path: Path) -> None:
    (found,) = failures(tmp_path, "x := 2\ny := x + 1\ncount([x, y]) == 3\ny == 4")
    assert (found.case, found.file) == ((), "a_test.rego")
    assert (found.stopped.row, found.stopped.text) == (9, "count([x, y]) == 3")
    assert found.stopped.values == {"count([x, y])": [2], "x": [2], "y": [3]}


def test_what_got_is_beside_what_was_expected(tmp_path: Path) -> None:
    body = 'some name, tc in {"one": {"n": 1, "want": 1}, "nine": {"n": 9, "want": 1}}\n'
    body += (
        'ask := {"context": {"args": {"n": tc.n}}}\ncount(a.permit) == tc.want with input as ask'
    )
    (found,) = failures(tmp_path, body, "test_x[name]")
    assert found.case == ("nine",)
    assert found.stopped.values == {
        "count(a.permit)": [0],
        "a.permit": [[]],
        "tc.want": [1],
        "ask": [{"context": {"args": {"n": 9}}}],
    }


def test_the_rules_that_it_asks_are_followed_on_that_input(tmp_path: Path) -> None:
    (found,) = failures(tmp_path, f"count(a.permit) == 1 with input as {asking(9)}")
    (rule,) = found.asked
    assert (rule.rule, rule.file, rule.row) == ("permit", "a.rego", 3)
    assert rule.stopped is not None
    assert rule.stopped.text == "input.context.args.n < data.limits.most"
    assert rule.stopped.values == {"input.context.args.n": [9], "data.limits.most": [5]}


def test_the_data_that_a_test_puts_there_is_that_of_the_rules(tmp_path: Path) -> None:
    body = f"count(a.permit) == 1 with input as {asking(4)} with data.limits.most as 3"
    (found,) = failures(tmp_path, body)
    (rule,) = found.asked
    assert rule.stopped is not None
    assert rule.stopped.values["data.limits.most"] == [3]


def test_rules_that_a_test_puts_there_are_not_taken_apart(tmp_path: Path) -> None:
    (found,) = failures(tmp_path, 'count(a.permit) == 1 with data.policies.a as {"permit": {}}')
    assert found.stopped.values == {"count(a.permit)": [0], "a.permit": [{}]}


def test_a_rule_that_a_call_ends_with_is_no_variable_of_the_test(tmp_path: Path) -> None:
    body = "count(a.permit) + limit(data.limits, most) == 3"
    (tmp_path / "more_test.rego").write_text("package a_test\nlimit(x, y) := x[y]\n")
    (found,) = failures(tmp_path, f'most := "most"\n{body}')
    assert found.stopped.values["most"] == ["most"]
    whole = 'most := "most"\nlimit(x, y) := x[y]\ntest_x if limit(data.limits, most) == 3\n'
    (tmp_path / "more_test.rego").unlink()
    (tmp_path / "a_test.rego").write_text(f"package a_test\n{whole}")
    (outcome,) = run_folder(tmp_path, explained=True).outcomes
    assert outcome.failures[0].stopped.values["limit(data.limits, most)"] == [5]
    assert outcome.failures[0].stopped.values["most"] == ["most"]


def test_of_a_member_of_an_answer_the_whole_answer_is_told(tmp_path: Path) -> None:
    rules = 'answer(x) := {"x": x}\ntest_x if answer(1).x == 2\n'
    (tmp_path / "a_test.rego").write_text(f"package a_test\n{rules}")
    (outcome,) = run_folder(tmp_path, explained=True).outcomes
    assert outcome.failures[0].stopped.values == {"answer(1).x": [1], "answer(1)": [{"x": 1}]}


def test_what_of_the_input_is_not_there_is_named(tmp_path: Path) -> None:
    (found,) = failures(tmp_path, f"count(a.deny) == 1 with input as {asking(9)}")
    (rule,) = found.asked
    assert rule.stopped is not None
    assert rule.stopped.missing == {
        "input.context.args.country": "`input.context.args` has no `country`"
    }
    (found,) = failures(tmp_path, 'input.a.b == 1 with input.a as "text"')
    assert found.stopped.missing == {"input.a.b": "`input.a` has no `b`"}


def test_elements_for_which_it_does_not_hold_are_told(tmp_path: Path) -> None:
    (found,) = failures(tmp_path, "every n in [1, 7, 2, 9] {\n\tm := n + 1\n\tm < 5\n}")
    assert found.stopped.values == {"n": [7, 9]}
    (found,) = failures(tmp_path, 'every k, v in {"a": 1, "b": 2} { v == 1 }')
    assert found.stopped.values == {"k, v": [["b", 2]]}


def test_a_whole_decision_is_told_with_its_reasons(tmp_path: Path) -> None:
    ask = '{"version": 1, "phase": "call", "resource": {"server": "s"}}'
    body = f'countersign.decision.outcome == "permit" with input as {ask}'
    (found,) = failures(tmp_path, body)
    assert found.stopped.values["countersign.decision.outcome"] == ["deny"]
    assert found.stopped.values["reasons"] == [["nobody:no_policy_permits"]]


def test_each_body_of_a_test_is_told(tmp_path: Path) -> None:
    (tmp_path / "b_test.rego").write_text(
        "package b_test\ntest_else if 1 == 2\nelse := false if 2 == 3\n"
    )
    (outcome,) = run_folder(tmp_path, explained=True).outcomes
    assert [each.stopped.text for each in outcome.failures] == ["1 == 2", "2 == 3"]


@pytest.mark.parametrize("rule", ["test_x := false", "test_x := 1 if true", "test_x contains 1"])
def test_of_a_test_that_stops_nowhere_nothing_is_said(tmp_path: Path, rule: str) -> None:
    (tmp_path / "a_test.rego").write_text(f"package a_test\n{rule}\n")
    (outcome,) = run_folder(tmp_path, explained=True).outcomes
    assert (outcome.outcome, outcome.failures) == ("FAIL", ())


def test_an_expression_that_no_engine_can_take_apart_is_left_out(tmp_path: Path) -> None:
    body = 'n := {"a": 1}\nx := n[k]\nk := "b"\nx == to_number("y")'
    (tmp_path / "a_test.rego").write_text(f"package a_test\ntest_x if {{\n{body}\n}}\n")
    (outcome,) = run_folder(tmp_path, explained=True).outcomes
    assert outcome.outcome in {"FAIL", "ERROR"}


def test_of_many_only_the_first_are_explained(tmp_path: Path) -> None:
    rules = "\n".join(f"test_{number} if {number} < 0" for number in range(25))
    (tmp_path / "a_test.rego").write_text(f"package a_test\n{rules}\n")
    told = [bool(each.failures) for each in run_folder(tmp_path, explained=True).outcomes]
    assert told == [True] * 20 + [False] * 5
    assert not any(each.failures for each in run_folder(tmp_path).outcomes)
