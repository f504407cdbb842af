"""Two verifiers, written apart from one page, give the expected answer to every case."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.audit_corpus.corpus import (
    Run,
    answer_case,
    find_difference,
    find_differences,
    lay_out,
    read_cases,
)


@pytest.mark.req("AUD-12")
def test_the_verifier_in_go_finds_what_every_case_expects(run_go: Run, tmp_path: Path) -> None:
    assert find_differences(run_go, tmp_path) == {}


@pytest.mark.req("AUD-12")
def test_the_stand_alone_verifier_finds_what_every_case_expects(
    run_python: Run, tmp_path: Path
) -> None:
    assert find_differences(run_python, tmp_path) == {}


def test_the_stand_alone_verifier_says_the_same_as_a_process(
    run_python_process: Run, tmp_path: Path
) -> None:
    by_answer = {(one["expect"]["exit"], one["expect"]["kind"]): one for one in read_cases()}
    for case in by_answer.values():
        answer = answer_case(case, run_python_process, tmp_path / case["name"])
        assert find_difference(case["expect"], answer) == "", case["name"]


def test_the_verifier_in_go_remembers_nothing_of_a_log_that_is_not_valid(
    run_go: Run, tmp_path: Path
) -> None:
    case = next(one for one in read_cases() if one["expect"]["kind"] == "edited")
    log = lay_out(case["files"], tmp_path / "log")
    state = tmp_path / "state"
    assert run_go(["-state", str(state), str(log)]).exit == 1
    assert not state.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no directory"),
        pytest.param(["/nonexistent"], id="a directory that is not there"),
        pytest.param(["-key", "x", "."], id="a key that is none"),
        pytest.param(["-witness", "x", "."], id="a witness that is none"),
        pytest.param(["-checkpoint", "/nonexistent", "."], id="a checkpoint that is not there"),
        pytest.param(["-checkpoint", "pyproject.toml", "."], id="a checkpoint that is none"),
        pytest.param(["-require", "luck", "."], id="an assurance that is none"),
        pytest.param(["-unheard-of", "."], id="an unknown flag"),
    ],
)
def test_the_verifier_in_go_answers_wrong_usage_with_exit_code_2(
    run_go: Run, arguments: list[str]
) -> None:
    answer = run_go(arguments)
    assert (answer.exit, answer.findings) == (2, [])
