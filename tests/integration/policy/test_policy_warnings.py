"""What `policy check` warns of: limits that are void, and names that nothing has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.policy.policy_bundle import default_pack
from gateway.cli import build
from gateway.cli.exits import Exit

pytestmark = pytest.mark.req("POL-06")

Found = tuple[str, int, str, str]


def check(folder: Path, *arguments: str | Path) -> list[Found]:
    """Return (file, row, code, message and hint) of each warning; there is no error."""
    asked = ["policy", "check", folder, "--no-tools", "-o", "json", *arguments]
    result = CliRunner().invoke(build(), [str(each) for each in asked])
    assert result.exit_code == Exit.OK, result.output
    return [
        (each["file"], each["row"], each["code"], f"{each['message']}; {each['hint']}")
        for each in json.loads(result.stdout)["faults"]
        if each["severity"] == "warning"
    ]


def write(folder: Path, *rules: str, scope: str = "", **settings: object) -> Path:
    """Write a package for each of the rules: `p0`, `p1` and so on."""
    folder.mkdir(exist_ok=True)
    head = f"# METADATA\n# custom:\n#   applies_to: {scope}\n" if scope else ""
    for number, each in enumerate(rules):
        (folder / f"p{number}.rego").write_text(f"{head}package policies.p{number}\n\n{each}\n")
    owners = {f"p{n}": ["crm"] for n, each in enumerate(rules) if "permit " in each}
    (folder / "authority.json").write_text(json.dumps({"policies": owners}))
    if settings:
        (folder / "data.json").write_text(json.dumps({"settings": settings}, indent=2))
    return folder


# --- roles --------------------------------------------------------------------------------------

DENY = 'deny contains {"code": "no"} if '
ROLES = "roles := input.subject.roles\n"
OUTSIDER = 'outsider if "contractor" in input.subject.roles'
STAFF = 'staff if "staff" in input.subject.roles'


def test_a_limit_that_needs_a_role_is_told(tmp_path: Path) -> None:
    rules = (
        DENY + '"contractor" in input.subject.roles',
        ROLES + DENY + '"contractor" in roles',
        DENY + '{\n\tsome role in input.subject.roles\n\trole in {"contractor", "guest"}\n}',
        DENY + 'input.subject.roles[_] == "contractor"',
        'hold contains {"code": "ask"} if "contractor" in input.subject.roles',
        DENY + "outsider\n\n" + OUTSIDER,
        DENY + f"not insider\n\ninsider if not outsider\n\n{OUTSIDER}",
        DENY + 'has("contractor")\n\nhas(role) if role in input.subject.roles',
        DENY + 'has("guest", input.subject.roles)\n\nhas(role, roles) if role in roles',
        DENY + '{\n\troles := input.subject.roles\n\t"contractor" in roles\n}',
        "import data.policies.p5\n\n" + DENY + '{\n\tp5.outsider\n\tinput.phase == "call"\n}',
    )
    found = check(write(tmp_path / "policies", *rules))
    assert [file for file, *_ in found] == [f"p{number}.rego" for number in range(10)]
    assert {code for _, _, code, _ in found} == {"limit_by_role"}
    assert [row for _, row, _, _ in found] == [3, 4, 4, 3, 3, 5, 7, 5, 5, 5]
    assert all("hands its authority on" in text for *_, text in found)
    assert "limit everybody but those who have a role: `not staff`" in found[0][3]


def test_roles_that_permit_or_release_are_nothing_odd(tmp_path: Path) -> None:
    rules = (
        DENY + f"not staff\n\n{STAFF}",
        DENY + 'not has("staff")\n\nhas(role) if role in input.subject.roles',
        'permit contains {"code": "staff"} if "staff" in input.subject.roles',
        DENY + "count(input.subject.roles) == 0",
        DENY + '{\n\tinput.phase == "issue"\n\t"contractor" in input.subject.roles\n}',
        DENY + f"not staff\n\ndefault staff := false\n\n{STAFF}",
    )
    assert check(write(tmp_path / "policies", *rules)) == []


def test_who_launches_hands_nothing_on(tmp_path: Path) -> None:
    rules = DENY + '"contractor" in input.subject.roles'
    assert check(write(tmp_path / "policies", rules, scope="{phases: [issue]}")) == []


# --- what is shipped ----------------------------------------------------------------------------


def test_what_is_shipped_is_checked_without_a_warning(tmp_path: Path) -> None:
    assert check(default_pack()) == []
    assert check(Path(__file__).parents[3] / "examples/acme/policies") == []
    shutil.copytree(default_pack(), folder := tmp_path / "policies")
    asked = ["policy", "new", str(folder), "mine", "--tool", "crm.find", "--role", "support"]
    assert CliRunner().invoke(build(), asked).exit_code == Exit.OK
    assert check(folder) == []
