"""What the authorization mode's results are judged by: a skip is a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.authorization import find_faults

pytestmark = pytest.mark.req("TOK-02")

NAMES = ("authorization-server-metadata-endpoint", "authorization-code-grant")


def write(folder: Path, scenario: str, *statuses: str) -> None:
    place = folder / f"authorization-server-{scenario}-2026-01-01T00-00-00-000Z"
    place.mkdir()
    checks = [{"id": f"{scenario}-{n}", "status": status} for n, status in enumerate(statuses)]
    (place / "checks.json").write_text(json.dumps(checks))


def test_all_that_passed_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path, NAMES[0], "SUCCESS", "SUCCESS")
    write(tmp_path, NAMES[1], "SUCCESS")
    assert list(find_faults(tmp_path)) == []


@pytest.mark.parametrize("status", ["FAILURE", "SKIPPED", "WARNING", "INFO"])
def test_whatever_did_not_pass_is_a_fault(tmp_path: Path, status: str) -> None:
    write(tmp_path, NAMES[0], "SUCCESS", status)
    write(tmp_path, NAMES[1], "SUCCESS")
    assert list(find_faults(tmp_path)) == [
        f"{NAMES[0]}-1 is {status}: no reason given",
        "2 checks passed, not 3",
    ]


def test_what_did_not_run_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, NAMES[0], "SUCCESS", "SUCCESS")
    assert list(find_faults(tmp_path)) == [
        f"scenario `{NAMES[1]}` did not run",
        "2 checks passed, not 3",
    ]
