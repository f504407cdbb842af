"""The page for authors, typed word by word: from a blank file to a passing test."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.policy.policy_bundle import default_pack
from gateway.cli import build
from gateway.cli.exits import Exit

pytestmark = pytest.mark.req("POL-06")

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "policies.md").read_text()
SECTION = PAGE.split("## Write a rule in five minutes\n", 1)[1].split("\n## ", 1)[0]
FIRST, LAST = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
RULES, CASES = re.findall(r"```rego\n(.*?)```", SECTION, re.DOTALL)
(SETTINGS,) = re.findall(r"```json\n(.*?)```", SECTION, re.DOTALL)
(LATE,) = re.findall(r"```sh\n(countersign policy question .*?)\n```", PAGE, re.DOTALL)
(SHOWN,) = re.findall(r"```\n(policies\..*?)```", SECTION, re.DOTALL)


def type_in(line: str) -> tuple[int, str]:
    """Run one line of the page; what it prints goes where it says."""
    command, _, target = line.partition(" | tee ")
    _, *arguments = shlex.split(command)
    result = CliRunner().invoke(build(), arguments)
    if target:
        Path(target).write_text(result.stdout)
    return result.exit_code, result.stdout


def test_the_five_minutes_of_the_page_end_with_a_passing_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my-gateway" / "policies"
    shutil.copytree(default_pack(), folder)
    made, begun = (type_in(line) for line in FIRST.splitlines())
    assert made[0] == begun[0] == Exit.OK
    assert "PASS: 4/4" in begun[1]
    assert f"write {SETTINGS.strip()} into my-gateway/policies/data.json" in made[1]
    (folder / "data.json").write_text(SETTINGS)
    for name, text in (("refund_limits.rego", RULES), ("refund_limits_test.rego", CASES)):
        path = folder / name
        path.write_text(f"{path.read_text()}\n{text}")

    tested, checked, asked, explained, measured = (type_in(line) for line in LAST.splitlines())

    assert tested[0] == Exit.OK
    assert "too large: PASS" in tested[1]
    assert "PASS: 8/8" in tested[1]
    assert checked[0] == asked[0] == measured[0] == Exit.OK
    assert json.loads((tmp_path / "question.json").read_text())["resource"]["effect"] == "money"
    assert explained[0] == Exit.PENDING
    assert explained[1].startswith("hold\n  refund_needs_finance: ")
    assert "  asks 1 of finance within 900 s\n\n" in explained[1]
    assert SHOWN in explained[1]
    assert "refund_limits" in measured[1]


def test_the_question_with_a_past_is_answered_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert type_in(LATE)[0] == Exit.OK
    given = ["policy", "eval", str(default_pack()), "--input", "late.json"]
    result = CliRunner().invoke(build(), given)
    assert result.exit_code == Exit.DENIED
    assert "recipient_untrusted" in result.stdout


def test_codes_of_the_page_are_those_of_the_gate() -> None:
    root = Path(__file__).resolve().parents[3] / "gateway"
    code = "".join(path.read_text() for path in (root / "adapters" / "policy").rglob("policy_*.py"))
    table = PAGE.split("| refused | code | why |", 1)[1].split("\n\n", 1)[0]
    named = {
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[2])
    }
    assert len(named) > 20
    assert {name for name in named if f'"{name}"' not in code} == set()
