"""What the default pack says of itself, and the page that is printed from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.authoring.policy_notes import Notes, read_notes
from gateway.adapters.policy.policy_bundle import default_pack, find_rego_root
from gateway.adapters.policy.policy_package import DECISION_SETS
from gateway.cli import build
from gateway.cli.exits import Exit
from gateway.cli.policy_docs import build_page, build_settings, read_all
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-03")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "policy-pack.md"
OWASP = {f"ASI{number:02}" for number in range(1, 11)} | {f"LLM{n:02}" for n in range(1, 11)}
PACK = sorted(file for file in default_pack().glob("*.rego") if "_test" not in file.name)
MODULE = """# METADATA
# title: Refunds
# description: >-
#   How much.
# custom:
#   applies_to: {tools: [shop.refund]}
#   settings: {refunds: {most: 5}}
package policies.refunds

# METADATA
# title: Too much
# custom: {rationale: A | B, owasp: [ASI02]}
deny contains {
	"code": "too_much",
} if input.context.args.n > 5

# METADATA
# title: Somebody looks
hold contains {"code": sprintf("%s_asked", [input.phase])} if input.context.args.n > 3

plain := 1
"""


def docs(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(), ["policy", "docs", *arguments])
    return result.exit_code, result.stdout, result.stderr


def notes(path: Path) -> Notes:
    return read_notes(path.name, path.read_text())


def test_the_page_is_what_the_command_prints() -> None:
    code, out, _ = docs(str(default_pack()), "--title", "The default pack", "--library")
    assert code == Exit.OK
    assert out == PAGE.read_text(), "print it again: `countersign policy docs`, see the test"


@pytest.mark.parametrize("path", PACK, ids=lambda path: path.stem)
def test_every_rule_of_the_pack_says_why_and_against_what(path: Path) -> None:
    found = notes(path)
    assert found.package.title
    assert found.package.description
    written = re.findall(rf"^({'|'.join(DECISION_SETS)}) contains", path.read_text(), re.MULTILINE)
    assert [note.rule for note in found.rules if note.rule in DECISION_SETS] == written
    for note in found.rules:
        assert note.title
        assert note.custom["rationale"]
        assert note.custom["owasp"]
        assert set(note.custom["owasp"]) <= OWASP


@pytest.mark.parametrize("path", PACK, ids=lambda path: path.stem)
def test_every_rule_of_the_pack_has_a_test_beside_it(path: Path) -> None:
    beside = path.with_name(f"{path.stem}_test.rego")
    tests = beside if beside.exists() else path.with_name("default_pack_test.rego")
    text = tests.read_text()
    codes = {note.code for note in notes(path).rules if note.code and "…" not in note.code}
    if tests == beside:
        assert {code for code in codes if code not in text} <= {"write_granted"}
    assert f"data.policies.{path.stem}" in text or "data.countersign" in text


@pytest.mark.parametrize("path", PACK, ids=lambda path: path.stem)
def test_every_setting_that_the_pack_reads_is_told(path: Path) -> None:
    library = find_rego_root() / "countersign" / "lib"
    texts = [path.read_text(), *(file.read_text() for file in library.glob("*.rego"))]
    told = build_settings(notes(each) for each in PACK)
    read = {
        found for text in texts for found in re.findall(r"data\.settings\.(\w+)\.(\w+)", text)
    } | {("money_limits", "servers")}
    assert {(group, key) for group, key in read if key not in told.get(group, {})} == set()


def test_a_page_tells_rules_settings_and_functions() -> None:
    (module,) = read_all({"refunds.rego": MODULE})
    page = build_page("Mine", [module], [], frozenset())
    assert page.startswith("# Mine\n\nFor those who write policies")
    assert "## refunds\n**Refunds.** How much.\n\nConcerns tools `shop.refund`." in page
    assert "| deny | `too_much` | Too much | A \\| B | ASI02 |" in page
    assert "| hold | `…_asked` | Somebody looks |  |  |" in page
    assert '"most": 5' in page
    assert "The library" not in page


def test_policies_without_annotations_have_a_page_too() -> None:
    (module,) = read_all({"a.rego": "package policies.a\n\ndeny contains 1 if input.x\n"})
    assert module.rules == ()
    assert "## a\n" in build_page("Mine", [module], [], frozenset())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("package {", "a.rego:1: "),
        ("# METADATA\n# - title: [\npackage policies.a\n", "a.rego:1: the annotation is not valid"),
        ("# METADATA\n# just words\npackage policies.a\n", "a.rego:1: the annotation says nothing"),
        ("package policies.a\n\n# METADATA\n# title: x\n", "a.rego:3: there is no rule below"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read_notes("a.rego", text)
    (tmp_path / "a.rego").write_text(text)
    code, out, err = docs(str(tmp_path))
    assert (code, out) == (Exit.ERROR, "")
    assert message in err


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_bytes("package policies.a\n".encode("utf-16"))
    code, out, err = docs(str(tmp_path))
    assert (code, out) == (Exit.ERROR, "")
    assert "a.rego: is no UTF-8 text (invalid start byte); save it as UTF-8" in err


def test_a_folder_without_policies_says_so(tmp_path: Path) -> None:
    code, _, err = docs(str(tmp_path))
    assert code == Exit.ERROR
    assert "there is no .rego file" in err
    (tmp_path / "a.rego").mkdir()
    code, _, err = docs(str(tmp_path))
    assert code == Exit.USAGE
    assert "cannot read" in err
