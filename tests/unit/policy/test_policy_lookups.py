"""A limit that is looked up by what an agent says is told where no one speaks of unlisted words."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from gateway.adapters.authoring.policy_review import find_warnings
from gateway.adapters.policy.policy_bundle import find_rego_root

pytestmark = pytest.mark.req("POL-06")
HEAD: Final = """package policies.a

import data.settings
import input.context.args

amount := args.amount if is_number(args.amount)

deny contains {"code": "unclear"} if not amount

"""
DENY: Final = 'deny contains {"code": "d"} if'
PERMIT: Final = 'permit contains {"code": "p"} if'


def told(folder: Path, rules: str, head: str = HEAD) -> list[tuple[str, str]]:
    (folder / "a.rego").write_text(head + rules + "\n")
    return [(each.code, each.severity) for each in find_warnings(folder)]


CAP: Final = "cap := data.caps[args.kind]\n\n"
UNLISTED: Final = [
    f"{CAP}{DENY} amount > cap",
    f"{CAP}{DENY} cap < amount",
    f"{CAP}{DENY} amount > cap".replace("deny", "hold"),
    f"{DENY} amount > settings.caps[args.kind]",
    f"{DENY} amount > settings.caps[args.kind].most * 100",
    f"{DENY} {{\n\tcap := settings.caps[args.kind]\n\tamount > cap\n}}",
    f"{DENY} {{\n\tkind := args.kind\n\tamount > settings.caps[kind]\n}}",
    f"{CAP}above if amount > cap\n\n{DENY} above",
    f"{CAP}{DENY} amount > cap\n\n{DENY} not is_string(args.kind)",
]
LISTED: Final = [
    f"{CAP}{DENY} amount > cap\n\n{DENY} not cap",
    f"{CAP}{DENY} amount > cap\n\nlisted if cap\n\n{DENY} not listed",
    f"{CAP}{DENY} amount > cap\n\n{DENY} not args.kind in object.keys(data.caps)",
    f"{CAP}{DENY} amount > cap\n\n{PERMIT} amount <= cap",
    f"{CAP}{DENY} amount > cap\n\nsmall if amount <= cap\n\n{PERMIT} small",
    f"default cap := 5\n\n{CAP}{DENY} amount > cap",
    f"cap := object.get(data.caps, args.kind, 5)\n\n{DENY} amount > cap",
    f"{DENY} amount > settings.caps.refunds",
    f"{DENY} amount > settings.caps[input.resource.id]",
    f"{DENY} {{\n\tsome kind in {{1, 2}}\n\tamount > settings.caps[kind]\n}}",
    f"{CAP}{PERMIT} amount <= cap",
    f"{CAP}{DENY} cap == 0",
]


@pytest.mark.parametrize("rules", UNLISTED)
def test_a_limit_that_an_unlisted_word_undoes_is_told(tmp_path: Path, rules: str) -> None:
    head = HEAD if "settings" in rules else HEAD.replace("import data.settings\n", "")
    assert told(tmp_path, rules, head) == [("limit_looked_up", "warning")]


@pytest.mark.parametrize("rules", LISTED)
def test_a_limit_that_somebody_answers_for_is_not_told(tmp_path: Path, rules: str) -> None:
    head = HEAD if "settings" in rules else HEAD.replace("import data.settings\n", "")
    assert told(tmp_path, rules, head) == []


def test_the_warning_names_the_place_and_what_to_write(tmp_path: Path) -> None:
    told(tmp_path, f"{CAP}{DENY} amount > cap", HEAD.replace("import data.settings\n", ""))
    (found,) = find_warnings(tmp_path)
    assert str(found).startswith("a.rego:11:41: `data.caps[args.kind]` is no limit where")
    assert "`not cap`" in found.hint


def test_the_policies_that_are_shipped_have_no_such_limit() -> None:
    root = find_rego_root()
    for folder in (root / "policies", root.parent / "examples/acme/policies"):
        assert not [each for each in find_warnings(folder) if each.code == "limit_looked_up"]
