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


# --- names in rules -----------------------------------------------------------------------------

MANIFEST = """id: crm
transport: http
egress: [crm.example]
auth: none
tools:
  - name: export
    effect: read
    labels: [pii]
    sums: [/rows]
  - name: find
    effect: read
"""
SERVERS = """servers:
  crm: {transport: http, url: "http://127.0.0.1:9000/mcp", manifest: manifests/crm.yaml}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    """Return the policies of a gateway with one server; the default pack is among them."""
    folder = tmp_path / "my-gateway"
    assert CliRunner().invoke(build(), ["init", str(folder)]).exit_code == Exit.OK
    (folder / "manifests" / "crm.yaml").write_text(MANIFEST)
    config = folder / "countersign.yaml"
    config.write_text(config.read_text().replace("servers: {}\n", SERVERS))
    return folder / "policies"


def add(folder: Path, *rules: str) -> Path:
    for number, each in enumerate(rules):
        (folder / f"p{number}.rego").write_text(f"package policies.p{number}\n\n{each}\n")
    return folder


SUMS = "import data.countersign.lib.sums\n\n" + DENY
LABELS = "import data.countersign.lib.labels\n\n" + DENY


def test_names_that_no_manifest_has_are_told(gateway: Path) -> None:
    rules = (
        DENY + 'input.resource.id == "crm.exprot"',
        'tools := {"crm.find", "crm.fnid"}\n\n' + DENY + "input.resource.id in tools",
        DENY + 'input.resource.server == "crn"',
        DENY + 'input.context.run.counts["crm.expotr"] > 3',
        SUMS + 'sums.run("crm.export#/row") > 5000',
        SUMS + 'sums.day("crm.find#/limit") > 5000',
        'key := "crm.export#/row"\n\n' + DENY + "input.context.run.sums[key] > 5000",
        DENY + 'object.get(input.context.family.sums, "crm.export#/row", 0) > 5000',
        LABELS + 'labels.run_has("pi")',
        LABELS + 'labels.tool_has("pii-data")',
        DENY + '"pij" in input.context.run.labels',
        DENY + '{\n\tsome label in input.resource.labels\n\tlabel == "pij"\n}',
    )
    found = check(add(gateway, *rules))
    assert sorted((file, row, code) for file, row, code, _ in found) == sorted(
        [
            ("p0.rego", 3, "tool_unknown"),
            ("p1.rego", 3, "tool_unknown"),
            ("p2.rego", 3, "server_unknown"),
            ("p3.rego", 3, "tool_unknown"),
            ("p4.rego", 5, "sum_unknown"),
            ("p5.rego", 5, "sum_unknown"),
            ("p6.rego", 3, "sum_unknown"),
            ("p7.rego", 3, "sum_unknown"),
            ("p8.rego", 5, "label_unknown"),
            ("p9.rego", 5, "label_unknown"),
            ("p10.rego", 3, "label_unknown"),
            ("p11.rego", 5, "label_unknown"),
        ]
    )
    said = {file: text for file, _, _, text in found}
    assert "did you mean `crm.export`?" in said["p0.rego"]
    assert "did you mean `crm.export#/rows`?" in said["p4.rego"]
    assert "is 0 whatever is spent; list `/limit` under `sums` of `crm.find`" in said["p5.rego"]
    assert "did you mean `pii`?" in said["p8.rego"]


def test_names_that_somebody_gives_are_nothing_odd(gateway: Path) -> None:
    rules = (
        DENY + '{\n\tinput.resource.id == "crm.export"\n\tinput.resource.server != "crm"\n}',
        SUMS + 'sums.run("crm.export#/rows") > 5000',
        LABELS + 'labels.run_has("pii")',
        LABELS + 'labels.run_has("bulk")',
        'obligation contains {"type": "add_label", "labels": ["bulk"]} if input.phase == "result"',
    )
    assert check(add(gateway, *rules)) == []


def test_labels_that_are_known_only_later_may_be_any(gateway: Path) -> None:
    adds = 'obligation contains {"type": "add_label", "labels": [input.resource.server]}'
    assert check(add(gateway, LABELS + 'labels.run_has("bulk")', adds)) == []


def test_effects_that_no_tool_has_are_told(gateway: Path) -> None:
    head = "# METADATA\n# custom:\n#   applies_to:\n#     effects: [privilege]\n"
    (gateway / "mine.rego").write_text(f"{head}package policies.mine\n\n{DENY}true\n")
    ((file, row, code, text),) = check(gateway)
    assert (file, row, code) == ("mine.rego", 3, "package_unheard")
    assert "no manifest gives a tool one of these `effects`" in text


# --- settings -----------------------------------------------------------------------------------


def test_settings_that_nothing_reads_are_told_with_their_row(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "policies",
        DENY + "input.context.args.n == data.settings.mine.most",
        high_risk={"exept": ["crm.export"]},
        egres={"unknown": "deny"},
        mine={"most": 3, "mots": 4},
        money_limits={"per_call": {"hold": 1, "dney": 2}, "servers": {"crm": {}}},
    )
    found = check(folder)
    assert [(file, code) for file, _, code, _ in found] == [("data.json", "setting_unknown")] * 4
    assert [row for _, row, _, _ in found] == [4, 8, 13, 18]
    said = [text for *_, text in found]
    assert said[0] == "nothing reads the setting `high_risk.exept`; did you mean `except`?"
    assert said[1] == "nothing reads the setting `egres`; did you mean `egress`?"
    assert said[2] == "nothing reads the setting `mine.mots`; did you mean `most`?"
    assert said[3] == "nothing reads the setting `money_limits.per_call.dney`; did you mean `deny`?"


def test_settings_of_another_type_are_told(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "policies",
        DENY + "false",
        egress={"internal_domains": "acme.example"},
        pace={"calls_per_run": "200"},
        personal_data={"roles": "support", "servers": ["crm"]},
        loops=3,
    )
    found = check(folder)
    assert [(row, code) for _, row, code, _ in found] == [
        (4, "setting_type"),
        (7, "setting_type"),
        (10, "setting_type"),
        (15, "setting_type"),
    ]
    said = [text for *_, text in found]
    assert said[0] == (
        "`egress.internal_domains` is a text, and what reads it wants a list; "
        'write ["acme.example"]'
    )
    assert "wants a number; write a number, or leave it out" in said[1]
    assert "`loops` is a number, and what reads it wants an object" in said[3]
    (folder / "data.json").write_text('{"settings": []}')
    assert [code for _, _, code, _ in check(folder)] == ["setting_type"]
    own = write(tmp_path / "own", DENY + "input.context.args.n in data.settings.mine", mine=[3])
    assert check(own) == []


def test_every_setting_as_shipped_is_known(gateway: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/policy-pack.md").read_text()
    shipped = page.partition("```json\n")[2].partition("```")[0]
    (gateway / "data.json").write_text(shipped)
    assert check(gateway) == []
