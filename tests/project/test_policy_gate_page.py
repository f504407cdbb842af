"""`docs/policy-gate.md`: every refusal is on it, and comes from the module that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
GATE: Final = ROOT / "gateway/adapters/policy/gate"
PAGE: Final = (ROOT / "docs/policy-gate.md").read_text()
POLICIES: Final = (ROOT / "docs/policies.md").read_text()
WORD: Final = re.compile(r"`([a-z0-9_]+)`")
MODULE: Final = re.compile(r"`((?:\.\./)?[a-z_]+\.py)`")
pytestmark = pytest.mark.req("POL-06")


def _rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    below = page.split(f"## {heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(below) if line.startswith("|"))
    found: list[list[str]] = []
    for line in below[first + 2 :]:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


REFUSALS: Final = [
    (code, MODULE.findall(modules))
    for codes, modules, _ in _rows(PAGE, "Where a refusal comes from")
    for code in WORD.findall(codes)
]


@pytest.mark.parametrize(("code", "modules"), REFUSALS, ids=[code for code, _ in REFUSALS])
def test_a_refusal_comes_from_the_module_that_the_page_names(code: str, modules: list[str]) -> None:
    assert any(f'"{code}"' in (GATE / module).read_text() for module in modules)


def test_the_page_names_every_refusal_that_authors_are_told_of() -> None:
    told = {
        code for row in _rows(POLICIES, "What the gate refuses") for code in WORD.findall(row[1])
    }
    assert len(told) > 40
    assert told - {code for code, _ in REFUSALS} == set()


def test_the_page_names_every_module_of_the_gate_and_no_other() -> None:
    modules = {path.name for path in GATE.glob("*.py")} - {"__init__.py"}
    assert modules - set(MODULE.findall(PAGE)) == set()
    named = {name for name in MODULE.findall(PAGE) if name.startswith("../")}
    assert [name for name in named if not (GATE / name).is_file()] == []
