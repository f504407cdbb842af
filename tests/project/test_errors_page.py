"""`docs/errors.md` lists every code that a call can be refused with, and no call has another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.core.refusal import KINDS

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (-\d+|tool result) \| (.+) \|$", re.MULTILINE)

ELSEWHERE = {
    # raised while the gateway starts, or told to an operator at the command line
    "configuration_invalid",
    "ledger_rewound",
    "policy_bundle_altered",
    "policy_bundle_missing",
    "policy_bundle_unwritable",
    "policy_invalid",
    "policy_selftest_failed",
    # told while the gateway starts, or to publishers (docs/releases.md)
    "release_altered",
    "release_invalid",
    "release_missing",
    "release_no_shadow",
    "release_none",
    "release_publishers",
    "release_unsigned",
    "release_unwritable",
    "step_up_required",
    # told to people at the admin API (docs/approvals.md)
    "approval_assurance",
    "approval_conflict",
    "approval_forbidden",
    "role_missing",
    # told to who asks for a token, as `temporarily_unavailable`, or to people (docs/token-keys.md)
    "key_ring_unavailable",
    "signer_unavailable",
    # told to people who sign in, and to who asks for a token for them (docs/sign-in.md)
    "claim_invalid",
    "form_foreign",
    "passkey_invalid",
    "provider_answer_invalid",
    "provider_unavailable",
    "registry_own_change",
    "sign_in_again",
    "sign_in_busy",
    "sign_in_often",
    "sign_in_refused",
    "sign_in_unknown",
    # told to nobody: two requests for one run at the same time, and a mistake of our own
    "approval_illegal_move",
    "run_exists",
}
"""Codes of errors that no agent's call meets."""


def test_the_page_lists_the_codes_in_their_order_with_status_and_text() -> None:
    listed = ROW.findall((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))
    assert listed == [
        (code, str(kind.status), str(kind.rpc or "tool result"), kind.text)
        for code, kind in KINDS.items()
    ]


def test_every_code_of_an_error_is_one_that_a_refusal_can_tell() -> None:
    raised = {
        code
        for folder in ("gateway", "connectors")
        for path in (ROOT / folder).rglob("*.py")
        if "cli" not in path.parts
        for code in codes_of(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert raised - KINDS.keys() == ELSEWHERE


def codes_of(tree: ast.Module) -> Iterator[str]:
    """Yield the literal codes of errors that are made, and the default codes of error classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if not given or not ast.unparse(node.func).endswith(("Error", "error")):
                continue
        elif isinstance(node, ast.AnnAssign | ast.Assign) and "default_code" in _targets(node):
            given = [node.value] if node.value is not None else []
        else:
            continue
        yield from (str(value.value) for value in given if isinstance(value, ast.Constant))


def _targets(node: ast.AnnAssign | ast.Assign) -> str:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
    return " ".join(map(ast.unparse, targets))
