from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.audit.build import CASES, build_corpus
from tests.integration.audit_corpus.corpus import Answer, find_difference, read_cases

KINDS = {
    *("not_canonical", "edited", "torn", "wrong_log", "deleted", "inserted", "reordered"),
    *("wrong_key", "out_of_epoch", "missing", "truncated", "forked", "rewound", "semantic"),
}
SPEC = Path(__file__).parents[3] / "docs/spec/audit-log-v1.md"


def _rules() -> set[str]:
    """Return the rules of the table in section 6.2 of the format."""
    table = SPEC.read_text().split("### 6.2")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {row.split("`")[1] for row in rows}


@pytest.mark.req("AUD-12")
def test_the_corpus_is_what_its_generator_writes() -> None:
    assert CASES.read_bytes() == build_corpus()


@pytest.mark.req("AUD-12")
def test_the_corpus_has_every_kind_of_finding_every_rule_and_valid_logs() -> None:
    cases = read_cases()
    expected = [case["expect"] for case in cases]
    assert len(cases) >= 400
    assert {one["kind"] for one in expected if one["kind"]} == KINDS
    assert {one["rule"] for one in expected if "rule" in one} == _rules()
    assert sum(one["exit"] == 0 for one in expected) >= 30
    assert {one["exit"] for one in expected} == {0, 1, 2, 3, 4}
    assert max(Counter(case["name"] for case in cases).values()) == 1


EXPECT = {"exit": 1, "kind": "semantic", "rule": "token_scope", "seq": 7, "also": ["run_ended"]}
FOUND = {"kind": "semantic", "rule": "token_scope", "seq": 7}


@pytest.mark.parametrize(
    ("code", "findings", "told"),
    [
        (1, [FOUND], ""),
        (1, [FOUND, FOUND | {"rule": "run_ended"}], ""),
        (4, [FOUND], "exit 4, not 1"),
        (1, [], "found nothing"),
        (1, [FOUND | {"seq": 6}], "token_scope@6"),
        (1, [FOUND | {"rule": "event_twice"}], "event_twice@7"),
        (1, [FOUND | {"seq": 6}, FOUND], "token_scope@6"),
        (1, [FOUND, FOUND | {"seq": 9}], "token_scope@9"),
    ],
)
def test_an_answer_that_is_not_the_expected_one_is_told(
    code: int, findings: list[dict[str, Any]], told: str
) -> None:
    difference = find_difference(EXPECT, Answer(code, findings))
    assert told in difference
    assert bool(told) == bool(difference)


def test_a_finding_in_a_valid_log_is_told() -> None:
    expect = {"exit": 0, "kind": None, "seq": None}
    assert find_difference(expect, Answer(0, [])) == ""
    assert "in a valid log" in find_difference(expect, Answer(0, [FOUND]))
