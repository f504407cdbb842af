"""`countersign policy test` beside a real `opa test`: the same tests, the same JSON."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import build

OPA = os.environ.get("COUNTERSIGN_OPA") or shutil.which("opa")
pytestmark = [
    pytest.mark.req("POL-06"),
    pytest.mark.skipif(OPA is None, reason="no opa: set COUNTERSIGN_OPA or install it on PATH"),
]

POLICY = """package policies.a

permit contains {"code": "ok"} if {
	is_number(input.x)
	input.x < 3
}

limit := data.limits.most
"""
TESTS = """package a_test

import data.policies.a

test_pass if count(a.permit) == 1 with input as {"x": 1}

test_fail if count(a.permit) == 1 with input as {"x": 9}

test_data if a.limit == 7

test_false := false

test_number := 1

test_undefined if input.nothing

default test_default := false

test_default if true

todo_test_later if false

test_print if {
	print("hello", {"x": "é"})
	true
}

test_print_and_fail if {
	print("before")
	print("after", 2)
	false
}

clash(x) := 1 if x

clash(x) := 2 if x

test_conflict if clash(true) == 1

test_twice if true

test_twice if false

at.deep.test_below if true

test_sub.one if true

test_set contains name if some name in ["x"]

test_constant["only"] if false

test_else if false

else := true

test_cases[name] if {
	some name, tc in {
		"one": {"x": 1, "want": 1},
		"two": {"x": 2, "want": 1},
		"nine": {"x": 9, "want": 1},
	}
	count(a.permit) == tc.want with input as {"x": tc.x}
}

test_all_cases[note] if {
	some tc in [{"note": "A", "n": 1}, {"note": "B", "n": 2}]
	note := tc.note
	tc.n < 3
}

test_from_a_member[tc.note] if {
	some tc in [{"note": "A", "n": 1}, {"note": "B", "n": 5}]
	tc.n < 3
}

test_nested[outer][inner] if {
	some outer, cases in {"m": {"n": 1, "o": 2}, "q": {"n": 1}}
	some inner, v in cases
	v == 1
}

test_by_number[i] if {
	some i, v in [1, 2, 1]
	v == 1
}

test_by_expression[sprintf("case %d", [i])] if {
	some i, v in [1, 2]
	v == 1
}

test_values[name] := v if some name, v in {"a": true, "b": false}
"""
OTHER = """package b_test

test_other if true
"""
STRICTER = """package c_test

# OPA: a function that cannot answer is undefined. The embedded engine fails, and denies.
test_builtin_error if to_number("x") == 1

# OPA: a table without rows passes.
test_no_cases[name] if {
	some name, tc in data.nothing
	tc
}

# OPA: the second case is never named, so nobody misses it.
test_late_name[name] if {
	some n in [1, 2]
	n == 1
	name := sprintf("case %d", [n])
}

# The same.
test_unnamed[i] if {
	some i
	[1, 2][i] == 1
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("a", POLICY), ("a_test", TESTS), ("b_test", OTHER)):
        (tmp_path / f"{name}.rego").write_text(text)
    (tmp_path / "limits").mkdir()
    (tmp_path / "limits" / "data.json").write_text('{"most": 7}')
    return tmp_path


def by_opa(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    assert OPA is not None
    done = subprocess.run(
        [OPA, "test", ".", "--format", "json", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def by_countersign(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    given = ["policy", "test", str(folder), "-o", "json", *arguments]
    found: list[dict[str, Any]] = json.loads(CliRunner().invoke(build(), given).stdout)
    return found


def compared(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what must be equal: all but times, and an engine's own words about an error."""
    found = {}
    for result in results:
        result.pop("duration")
        if "error" in result:
            assert result["error"]["message"]
            result["error"] = result["error"]["code"]
        if "output" in result:
            result["output"] = base64.b64decode(result["output"]).decode()
        found[f"{result['package']}.{result['name']}"] = result
    return found


def test_outcomes_cases_output_and_places_are_those_of_opa(folder: Path) -> None:
    ours, theirs = compared(by_countersign(folder)), compared(by_opa(folder))
    assert len(theirs) == 27
    assert ours == theirs


@pytest.mark.parametrize("wanted", ["a_test.test_pa", "^data.b_test", "nobody"])
def test_the_same_tests_are_chosen_by_an_expression(folder: Path, wanted: str) -> None:
    ours, theirs = by_countersign(folder, "-r", wanted), by_opa(folder, "-r", wanted)
    assert compared(ours) == compared(theirs)


def test_where_we_differ_we_are_stricter(tmp_path: Path) -> None:
    (tmp_path / "c_test.rego").write_text(STRICTER)
    ours, theirs = compared(by_countersign(tmp_path)), compared(by_opa(tmp_path))
    assert {name for name in theirs if theirs[name].get("fail")} == {
        "data.c_test.test_builtin_error"
    }
    assert {name for name in ours if not {"fail", "error"} & ours[name].keys()} == set()
    late = ours["data.c_test.test_late_name"]["sub_results"]
    assert late == {"case 1": {"name": "case 1"}, "case 2": {"name": "case 2", "fail": True}}


def test_coverage_has_the_shape_of_opas(folder: Path) -> None:
    given = ["policy", "test", str(folder), "-r", "test_pass|test_data", "--coverage"]
    ours = json.loads(CliRunner().invoke(build(), given).stdout)
    assert OPA is not None
    done = subprocess.run(
        [OPA, "test", ".", "-r", "test_pass|test_data", "--coverage", "--format", "json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout)
    assert ours.keys() == theirs.keys()
    assert ours["files"]["a.rego"].keys() <= theirs["files"]["a.rego"].keys() | {"coverage"}
    for report in (ours, theirs):
        rows = {each["start"]["row"] for each in report["files"]["a.rego"]["covered"]}
        assert rows >= {3, 4, 5, 8}
        assert {"start", "end"} == report["files"]["a.rego"]["covered"][0].keys()
    missed = {each["start"]["row"] for each in ours["files"]["a_test.rego"]["not_covered"]}
    assert 7 in missed
