"""The ids of docs/requirements.md and of the `req` markers, compared both ways."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([A-Z]+-\d{2,}) \| (.+) \| (.+) \|$", re.MULTILINE)


def listed_ids(document: str) -> Counter[str]:
    """Count the ids of the rows of a requirements table."""
    return Counter(row[0] for row in ROW.findall(document))


def named_ids(source: str) -> set[str]:
    """Return the ids in every `pytest.mark.req(...)` of a test file, decorators or `pytestmark`.

    Raises `ValueError` for an argument that is no literal: an id that cannot be read is unchecked.
    """
    ids: set[str] = set()
    for node in ast.walk(ast.parse(source if "req(" in source else "")):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "req" and ast.unparse(node.func) == "pytest.mark.req":
            ids.update(str(ast.literal_eval(argument)) for argument in node.args)
    return ids


@pytest.fixture(scope="module")
def listed() -> Counter[str]:
    return listed_ids((ROOT / "docs" / "requirements.md").read_text())


@pytest.fixture(scope="module")
def named() -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for id_ in named_ids(path.read_text()):
            files.setdefault(id_, []).append(str(path.relative_to(ROOT)))
    return files


def test_every_requirement_has_a_test(listed: Counter[str], named: dict[str, list[str]]) -> None:
    untested = sorted(listed.keys() - named.keys())
    assert not untested, f"no test is marked with {', '.join(untested)}"


def test_every_marker_names_a_listed_requirement(
    listed: Counter[str], named: dict[str, list[str]]
) -> None:
    unknown = {id_: files for id_, files in named.items() if id_ not in listed}
    assert not unknown, "add them to docs/requirements.md or mend the marker"


def test_no_requirement_is_listed_twice(listed: Counter[str]) -> None:
    assert [id_ for id_, times in listed.items() if times > 1] == []


def test_the_first_and_the_last_requirement_are_found(listed: Counter[str]) -> None:
    assert {"GW-01", "GW-18"} <= listed.keys()


def test_markers_are_read_from_decorators_parameters_and_modules() -> None:
    source = """
pytestmark = [pytest.mark.network, pytest.mark.req("A-01")]

@pytest.mark.req("A-02", "A-03")
def test_x(): ...

@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.req("A-04"))])
async def test_y(x): "req A-05"
"""
    assert named_ids(source) == {"A-01", "A-02", "A-03", "A-04"}


def test_a_marker_that_is_no_literal_is_refused() -> None:
    with pytest.raises(ValueError, match="malformed"):
        named_ids("@pytest.mark.req(THE_ID)\ndef test_x(): ...")
