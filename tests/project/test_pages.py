"""The pages: their links lead somewhere, and nothing of one machine gets into the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")
ID = re.compile(r"\b[A-Z]{2,3}-\d\d\b")

# Put together here, so that this file does not hold what it looks for.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.$}])/" + r"(?:work|root|home/\w+|opt/wheels)/",
            r"\.\./" + "shared",
            "-----BEGIN " + r"(?:\w+ )?PRIVATE KEY",
        ]
    )
)


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 git is wherever the reader has it
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.req("GW-02")
@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    broken = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert broken == []


@pytest.mark.req("GW-02")
def test_the_readme_names_every_folder_that_it_lists() -> None:
    folders = re.findall(r"^\| `([^`]+/)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(folders) >= 6
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.mark.req("GW-02")
def test_decisions_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


@pytest.mark.req("GW-02")
def test_the_architecture_page_has_a_diagram() -> None:
    assert "```mermaid" in (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.req("GW-18")
def test_every_row_of_the_threat_model_names_a_test_or_why_it_remains() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    rows = [
        line
        for part in text.split("\n### ")[1:]
        for line in part.splitlines()
        if line.startswith("| ") and not line.startswith("| asset |")
    ]
    assert len(rows) > 30
    unexplained = [
        row for row in rows if not (ID.search(row) or "**residual**" in row or "*later*" in row)
    ]
    assert unexplained == []


@pytest.mark.req("GW-18")
def test_the_threat_model_names_only_listed_requirements() -> None:
    listed = set(ID.findall((ROOT / "docs" / "requirements.md").read_text()))
    assert set(ID.findall((ROOT / "docs" / "threat-model.md").read_text())) <= listed


@pytest.mark.req("GW-18")
@pytest.mark.parametrize(
    "attacker",
    [
        "Injected agent with a valid token",
        "Sub-agents in concert",
        "Malicious or changed upstream",
        "Careless or hostile policy author",
        "Approver deceived or compromised",
        "Insider with the disk",
        "Insider with the configuration",
        "Insider with an old backup",
        "Compromised host",
        "Stranger on the network",
    ],
)
def test_the_threat_model_faces_each_attacker(attacker: str) -> None:
    assert f"\n### {attacker}\n" in (ROOT / "docs" / "threat-model.md").read_text()


@pytest.mark.req("GW-02")
def test_nothing_of_one_machine_and_no_private_key_is_tracked() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match}"
        for path in tracked_files()
        for match in MACHINE.findall(path.read_text(errors="replace"))
    ]
    assert found == []
