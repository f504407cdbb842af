"""The threat model: every row names tests that exist, or says why the threat remains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
TEST = re.compile(r"`(test_\w+)`")
REQUIREMENT = re.compile(r"\b[A-Z]{2,3}-\d\d\b")
RESIDUAL = re.compile(r"\*\*residual\*\*[^|]*[a-z]{3}")
ASSETS = frozenset(
    {"effects", "authority", "secrets", "evidence", "availability", "privacy", "all"}
)

pytestmark = pytest.mark.req("GW-18")


class Row(NamedTuple):
    """One threat to one asset."""

    attacker: str
    asset: str
    stop: str
    shown: str


def read_rows(page: str) -> list[Row]:
    """Return every row below an attacker's title."""
    rows = []
    for part in page.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        for line in body.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            if line.startswith("| ") and cells[0] != "asset":
                assert len(cells) == 3, f"three cells, please: {line}"
                rows.append(Row(title, *cells))
    return rows


def find_faults(row: Row, tests: set[str]) -> list[str]:
    """Return what is wrong with a row."""
    named = TEST.findall(row.shown)
    faults = [f"there is no `{name}`" for name in named if name not in tests]
    if named and not REQUIREMENT.search(row.shown):
        faults.append("names no requirement")
    if not named and not RESIDUAL.search(row.shown) and "*later*" not in row.shown:
        faults.append("names no test, no reason and no *later*")
    if not set(row.asset.split(", ")) <= ASSETS:
        faults.append(f"`{row.asset}` is no asset")
    return faults


@pytest.fixture(scope="module")
def tests() -> set[str]:
    found = (ROOT / "tests").rglob("test_*.py")
    return {name for path in found for name in re.findall(r"def (test_\w+)\(", path.read_text())}


def test_every_row_names_tests_that_exist_or_why_it_remains(tests: set[str]) -> None:
    rows = read_rows(PAGE)
    assert len(rows) > 60
    faults = {row: found for row in rows if (found := find_faults(row, tests))}
    assert faults == {}


def test_most_rows_are_stopped_and_not_explained_away() -> None:
    rows = read_rows(PAGE)
    assert sum(bool(TEST.search(row.shown)) for row in rows) > 2 * len(rows) / 3


def test_every_attacker_is_faced_on_some_asset() -> None:
    titles = set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
    assert {row.attacker for row in read_rows(PAGE)} == titles


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        ("GW-01: `test_there`", None),
        ("GW-01: `test_gone`", "there is no `test_gone`"),
        ("`test_there`", "names no requirement"),
        ("GW-01", "names no test, no reason and no *later*"),
        ("**residual**", "names no test, no reason and no *later*"),
        ("**residual**: nobody can", None),
        ("*later* (exchange)", None),
    ],
)
def test_a_row_that_shows_nothing_is_found(shown: str, fault: str | None) -> None:
    row = read_rows(f"\n### Somebody\n| effects | a stop | {shown} |\n")[0]
    assert find_faults(row, {"test_there"}) == ([] if fault is None else [fault])
