"""docs/recipes.md: what it offers loads, passes its own tests, and says what the page says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from gateway.adapters.policy.policy_bundle import default_pack
from gateway.cli import build
from gateway.cli.exits import Exit

pytestmark = pytest.mark.req("POL-06")

ROOT: Final = Path(__file__).resolve().parents[3]
PAGE: Final = (ROOT / "docs" / "recipes.md").read_text()
RECIPES: Final = {
    re.findall(r"^package (?:policies\.)?(\w+)$", text, re.MULTILINE)[0]: text
    for text in re.findall(r"```rego\n(.*?)```", PAGE, re.DOTALL)
}
NAMES: Final = sorted(name for name in RECIPES if not name.endswith("_test"))
(SHAPE,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
(AUTHORITY,) = re.findall(r"the server: `(\"credit_limits\": \[.*?\])`", PAGE)


def run(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(build("policy"), ["policy", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The default pack, with every recipe of the page beside it."""
    folder = tmp_path / "policies"
    shutil.copytree(default_pack(), folder)
    for name, text in RECIPES.items():
        (folder / f"{name}.rego").write_text(text)
    authority = json.loads((folder / "authority.json").read_text())
    authority["policies"] |= json.loads(f"{{{AUTHORITY}}}")
    (folder / "authority.json").write_text(json.dumps(authority))
    return folder


def test_every_recipe_has_its_tests() -> None:
    assert len(NAMES) == 5
    assert set(RECIPES) == {*NAMES, *(f"{name}_test" for name in NAMES)}


def test_the_recipes_load_beside_the_default_pack_and_pass_their_tests(folder: Path) -> None:
    code, out, err = run("check", folder, "--no-tools")
    assert (code, err) == (Exit.OK, "")
    assert all(name in out for name in NAMES)
    for name in NAMES:
        code, out, err = run("test", folder, "-r", rf"^data\.{name}_test\.")
        assert (code, err) == (Exit.OK, ""), out + err
        assert "PASS: 0/0" not in out


def test_a_decision_looks_as_the_page_says(folder: Path) -> None:
    (folder / "shape_test.rego").write_text(
        "package shape_test\n\nimport data.credit_limits_test\n\n"
        f"test_shape if credit_limits_test.decision == json.unmarshal(`{SHAPE}`)\n"
    )
    code, out, err = run("test", folder, "-r", "shape_test")
    assert code == Exit.OK, out + err
    assert "PASS: 1/1" in out


def test_without_its_rules_a_recipes_tests_fail(folder: Path) -> None:
    for name in NAMES:
        path = folder / f"{name}.rego"
        whole = path.read_text()
        package = re.findall(r"^package .*$", whole, re.MULTILINE)[0]
        path.write_text(f"{package}\n\ndeny contains 1 if false\n")
        # Told as JSON: why each fails, which a table explains, is not what is asked.
        told = run("test", folder, "-r", rf"^data\.{name}_test\.", "-o", "json")
        assert told[0] == Exit.TEST_FAILED
        path.write_text(whole)
