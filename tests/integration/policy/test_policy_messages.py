"""What commands for authors say to somebody who has gone astray: what is wrong, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.policy.policy_bundle import default_pack, find_rego_root
from gateway.cli import build
from gateway.cli.exits import Exit

pytestmark = pytest.mark.req("POL-06")

app = build("policy")
FAILING = "package a_test\n\ntest_no if 1 == 2\n"


def run(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["policy", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_who_tests_a_folder_too_high_is_told_where_the_policies_are(tmp_path: Path) -> None:
    shutil.copytree(default_pack(), tmp_path / "policies")
    (tmp_path / "policies" / "a_test.rego").write_text(FAILING)
    _, _, err = run("test", tmp_path, "-r", "a_test")
    hint = f"so no permit counts; did you mean {tmp_path / 'policies'}?\n"
    assert err.endswith(f"note: no authority.json in {tmp_path}, {hint}")
    assert run("test", tmp_path / "policies", "-r", "a_test")[2] == ""


def test_who_has_no_authority_at_all_is_told_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "a_test.rego").write_text(FAILING)
    assert run("test", tmp_path)[2].endswith("so no permit counts; see docs/policies.md\n")


def test_a_pattern_that_no_test_matches_is_told_from_a_folder_without_tests() -> None:
    code, _, err = run("test", find_rego_root(), "-r", "nosuch")
    assert code == Exit.OK
    expected = "no test found: no full name (`data.PACKAGE.test_…`) is matched by `-r nosuch`\n"
    assert err == expected
    assert run("test", find_rego_root(), "-r", "nosuch", "--fail-on-empty")[0] == Exit.TEST_FAILED


@pytest.mark.parametrize("given", ["rows=5", "crm.read#rows=5", "=5"])
def test_a_sum_of_what_is_no_pointer_is_refused(given: str) -> None:
    code, out, err = run("question", "crm.export", "--sum", given)
    assert (code, out) == (Exit.USAGE, "")
    assert "names no argument; write its JSON Pointer: `/amount=500`" in err


@pytest.mark.parametrize("given", ["/rows=5", "crm.read#/rows=5"])
def test_a_sum_of_a_pointer_is_taken(given: str) -> None:
    assert run("question", "crm.export", "--sum", given)[0] == Exit.OK


def test_an_input_that_is_none_is_told_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("{}")
    code, _, err = run("eval", default_pack(), "--input", tmp_path / "empty.json")
    assert code == Exit.USAGE
    assert err.endswith("`countersign policy question TOOL` prints a complete input\n")


def test_a_folder_that_is_not_there_is_an_argument_and_no_setting(tmp_path: Path) -> None:
    code, _, err = run("eval", tmp_path / "gone", "--input", tmp_path / "x.json")
    assert code == Exit.USAGE
    assert (
        err == f"error: there is no folder `{tmp_path / 'gone'}`; name the one with the policies\n"
    )
