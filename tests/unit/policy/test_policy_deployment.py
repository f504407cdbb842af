"""What policies name and a deployment does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.authoring.policy_deployment import Deployment, find_mismatches
from gateway.adapters.authoring.policy_review import read_parsed
from gateway.adapters.policy.policy_ast import Fault, parse_module
from gateway.adapters.policy.policy_bundle import build_bundle, default_pack, load_bundle_dir
from gateway.adapters.policy.policy_package import Source

pytestmark = pytest.mark.req("POL-06")

AUTHORITY = {"authority": {"policies": {"a": ["billing"]}}}
BILLING = Deployment(
    "countersign.yaml",
    frozenset({"billing", "crm"}),
    (("billing.refund", "billing", "money"), ("crm.find", "crm", "read")),
    (frozenset({"approver"}), frozenset({"approver", "finance"})),
)


def warnings(rules: str, scope: str = "", **data: Any) -> list[tuple[int, str, str]]:  # noqa: ANN401
    head = f"# METADATA\n# custom:\n#   applies_to:\n#     {scope}\n" if scope else ""
    text = f'{head}package policies.a\n\npermit contains {{"code": "ok"}}\n{rules}\n'
    bundle = build_bundle({"a.rego": text}, {**AUTHORITY, **data})
    module = parse_module("a.rego", text)
    assert not isinstance(module, Fault)
    found = find_mismatches(bundle, [Source("a.rego", text, module)], BILLING)
    assert {each.severity for each in found} <= {"warning"}
    return [(each.row, each.code, str(each)) for each in found]


def hold(groups: str, more: str = "") -> str:
    seats = f'{{"any_of": [{{{more}"who": {{"groups": [{groups}]}}}}]}}'
    return f'hold contains {{"code": "ask", "approval": {{"stages": [{seats}]}}}}'


def test_a_hold_for_people_who_are_there_is_nothing_odd() -> None:
    assert warnings(hold('"finance", "approver"', '"approve": 2, ')) == []
    assert warnings('hold contains {"code": "ask"}') == []
    assert warnings("x := 1", "tools: [billing.*, crm.find]") == []


def test_a_hold_for_a_group_that_nobody_has_is_told() -> None:
    ((row, code, text),) = warnings(hold('"legal"'))
    assert (row, code) == (4, "approver_unknown")
    assert text.startswith("a.rego:4:")
    assert "nobody in countersign.yaml has the role or group `legal`" in text
    ((_, _, text),) = warnings(hold('"finanse"'))
    assert text.endswith("did you mean `finance`?")


def test_a_hold_for_more_votes_than_people_is_told() -> None:
    ((row, code, text),) = warnings(hold('"finance"', '"approve": 2, '))
    assert (row, code) == (4, "approvers_too_few")
    assert "2 votes of `finance` are asked for, and 1 may" in text


def test_groups_are_found_wherever_they_are_written() -> None:
    rules = (
        'spec := {"stages": [{"any_of": [{"who": {"groups": ["legal", name]}}]}]}\n'
        'name := "x"\nhold contains {"code": "ask", "approval": spec}\n'
        'other := {"who": {"groups": name}, "approve": 3}'
    )
    assert [(row, code) for row, code, _ in warnings(rules)] == [(4, "approver_unknown")]


NOBODY = Deployment("c.yaml", frozenset({"billing"}), (("billing.refund", "billing", "money"),), ())


def test_the_usual_conditions_are_looked_at_too() -> None:
    bundle, sources = load_bundle_dir(default_pack()), read_parsed(default_pack())
    (found,) = find_mismatches(bundle, sources, NOBODY)
    assert (found.code, found.row) == ("approver_unknown", 0)
    assert "`approver`" in found.message
    text = 'package policies.a\n\nhold contains {"code": "ask"} if input.phase == "call"\n'
    bare = build_bundle({"a.rego": text}, {"authority": {"policies": {}}})
    module = parse_module("a.rego", text)
    assert not isinstance(module, Fault)
    (found,) = find_mismatches(bare, [Source("a.rego", text, module)], NOBODY)
    assert (found.file, found.row) == ("a.rego", 3)


def test_groups_of_the_settings_are_looked_at() -> None:
    rules = (
        "import data.countersign.lib.approvals\n"
        'hold contains {"code": "ask", "approval": approvals.standard}'
    )
    text = f"package policies.a\n\n{rules}\n"
    module = parse_module("a.rego", text)
    assert not isinstance(module, Fault)
    data = {**AUTHORITY, "settings": {"approval": {"groups": ["legal"]}}}
    bundle = build_bundle({"a.rego": text}, data)
    (found,) = find_mismatches(bundle, [Source("a.rego", text, module)], BILLING)
    assert (found.file, found.code) == ("data.json", "approver_unknown")


@pytest.mark.parametrize(
    ("scope", "code", "words"),
    [
        ("tools: [billing.refnd]", "tool_unknown", "did you mean `billing.refund`?"),
        ("tools: [billing.refund, shop.*]", "tool_unknown", "`applies_to` names `shop.*`"),
        ("servers: [biling]", "server_unknown", "did you mean `billing`?"),
        (
            "{tools: [crm.*], effects: [money]}",
            "package_unheard",
            "no tool of countersign.yaml is what `policies.a` is about",
        ),
        ("{tools: [billing.*], servers: [crm]}", "package_unheard", "never all of them"),
    ],
)
def test_a_package_about_what_is_not_there_is_told(scope: str, code: str, words: str) -> None:
    ((_, found, text),) = warnings("", scope)
    assert found == code
    assert words in text


def test_what_is_about_effects_that_no_tool_has_is_told() -> None:
    ((row, code, text),) = warnings("", "effects: [delete, privilege]")
    assert (row, code) == (3, "package_unheard")
    assert text.endswith(
        "no manifest gives a tool one of these `effects`; did a review say another?"
    )
    assert warnings("", "effects: [delete, money]") == []


def test_what_is_about_runs_alone_waits_for_no_tool() -> None:
    assert warnings("", "{effects: [delete], phases: [issue]}") == []
    assert warnings("", "phases: [issue]") == []
    assert warnings("", "{tools: [billing.refund], phases: [list]}") == []


def test_what_is_left_out_of_high_risk_must_be_there_and_permitted() -> None:
    def left_out(*tools: str, scope: str = "") -> list[str]:
        settings = {"high_risk": {"except": list(tools)}}
        return [code for _, code, _ in warnings("", scope, settings=settings)]

    assert left_out("billing.refund") == []
    assert left_out("billing.refnd") == ["tool_unknown"]
    assert left_out("billing.refund", scope="tools: [crm.find]") == ["nobody_permits"]
    assert warnings("", settings={"high_risk": {"except": "all"}}) == []
    assert warnings("", settings=["high_risk"]) == []


def test_authority_over_a_server_that_is_not_there_is_told() -> None:
    ((row, code, text),) = warnings("", authority={"policies": {"a": ["biling", "*"]}})
    assert (row, code) == (0, "server_unknown")
    assert text.startswith("authority.json: `a` may permit on `biling`")


def test_modules_that_cannot_be_parsed_are_left_to_the_gate(tmp_path: Path) -> None:
    (tmp_path / "broken.rego").write_text("package {")
    assert read_parsed(tmp_path) == []
