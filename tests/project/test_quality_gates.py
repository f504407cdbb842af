"""The gates themselves: strict settings with reasons, and house rules that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("GW-03")

FILE_MAX_LINES = 500
FUNCTION_MAX_LINES = 60
VAGUE = re.compile(r"util|helper|manager|service$", re.IGNORECASE)


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return settings


def our_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield those of a file in which one could be too long."""
    text = path.read_text()
    tree = ast.parse(text if text.count("\n") > FUNCTION_MAX_LINES else "")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_ruff_checks_all_and_each_exception_has_a_reason(tool: dict[str, Any]) -> None:
    lint = tool["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    excepted = [lint["ignore"], *lint["per-file-ignores"].values()]
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for rule in {rule for rules in excepted for rule in rules}:
        places = [line for line in lines if re.match(rf'\s+"{rule}",', line)]
        assert places, rule
        assert all(re.search(r"# \S+ \S+", line) for line in places), rule


def test_mypy_is_strict_everywhere(tool: dict[str, Any]) -> None:
    mypy = tool["mypy"]
    assert mypy["strict"] is True
    assert mypy["warn_unreachable"] is True
    assert {"gateway", "connectors", "tests", "bench", "examples"} <= set(mypy["files"])
    assert not any("disallow" in key for override in mypy["overrides"] for key in override)


def test_branches_are_counted_in_the_code_and_its_tests(tool: dict[str, Any]) -> None:
    run, report = tool["coverage"]["run"], tool["coverage"]["report"]
    assert run["branch"] is True
    assert set(run["source"]) >= {"gateway", "connectors", "tests"}
    assert report["fail_under"] >= 95
    assert "omit" not in run
    assert "omit" not in report


def test_warnings_are_errors_and_an_unexpected_pass_fails(tool: dict[str, Any]) -> None:
    pytest_settings = tool["pytest"]["ini_options"]
    assert pytest_settings["filterwarnings"][0] == "error"
    assert pytest_settings["xfail_strict"] is True
    assert {"--strict-markers", "--disable-socket"} <= set(pytest_settings["addopts"])


def test_no_file_is_longer_than_a_reader_bears() -> None:
    lengths = {
        path: len(path.read_text().splitlines()) for path in our_files("gateway", "connectors")
    }
    assert {str(path): n for path, n in lengths.items() if n > FILE_MAX_LINES} == {}


def test_no_function_is_longer_than_a_page() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": length
        for path in our_files("gateway", "connectors", "tests", "bench", "examples")
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_MAX_LINES
    }
    assert long == {}


def test_no_module_or_class_has_a_name_that_says_nothing() -> None:
    vague = [str(path) for path in our_files("gateway", "connectors") if VAGUE.search(path.stem)]
    for path in our_files("gateway", "connectors"):
        named = re.findall(r"^\s*class (\w+)", path.read_text(), re.MULTILINE)
        vague += [f"{path}: {name}" for name in named if VAGUE.search(name)]
    assert vague == []
