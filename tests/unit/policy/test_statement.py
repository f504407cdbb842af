"""Statements about policies: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

from typing import Any, Final

import pytest

from gateway.core.policy.sentences import TEMPLATES, read_sentence
from gateway.core.policy.statement import (
    Facts,
    StatementError,
    ToolFacts,
    equal_to,
    read_condition,
    read_statement,
)

pytestmark = pytest.mark.req("POL-09")

FACTS: Final[Facts] = {
    "bank.pay": ToolFacts("money", ("/amount",)),
    "bank.fee": ToolFacts("money", ("/fee",)),
    "shop.count": ToolFacts("update", ("/n",)),
}


def document(**args: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "phase": "call",
        "environment": "prod",
        "subject": {"id": "ann", "roles": ["clerk"]},
        "resource": {"id": "bank.pay", "server": "bank", "effect": "money", "labels": []},
        "context": {
            "args": args,
            "claimed": {"intent": "pay"},
            "token": {"allowed_values": {"to": ["x"]}},
            "run": {
                "calls": 3,
                "counts": {"bank.pay": 2},
                "sums": {"bank.pay#/amount": 4_000, "bank.fee#/fee": 10, "shop.count#/n": 7},
                "labels": ["untrusted"],
            },
        },
    }


VALUES: Final[list[tuple[str, Any, bool | None]]] = [
    ("effect", "money", True),
    ("effect", ["read", "money"], True),
    ("tool", "matches bank.*", True),
    ("args[/amount]", "> 5", True),
    ("args[/amount]", "> 6", False),
    ("args[/amount]", ">= 6", True),
    ("args[/amount]", "<= 5.5", False),
    ("args[/amount]", 6, True),
    ("args[/amount]", "!= 6", False),
    ("args[/amount]", "in 5, 6", True),
    ("args[/amount]", "not in 5, 6", False),
    ("args[amount]", "< 7", True),
    ("args[/nothing]", "is absent", True),
    ("args[/amount]", "is present", True),
    ("args[/flag]", 1, False),
    ("args[/flag]", True, True),
    ("args[/text]", "> 5", False),
    ("args[/text]", "not <= 5", True),
    ("args[/text]", "is not a number", None),
    ("args[/text]", "not is number", True),
    ("args[/none]", "is null", True),
    ("args[/none]", None, True),
    ("args[/text]", "like ' KP'", True),
    ("args[/text]", "kp", False),
    ("args[/text]", "= ' Kp '", True),
    ("args[/text]", "ends with 'p '", True),
    ("args[/list]", "has 2", True),
    ("args[/list]", "lacks 2", False),
    ("args[/list]", "is list", True),
    ("run.labels", "has untrusted", True),
    ("roles", "lacks boss", True),
    ("run.calls", "> 2", True),
    ("run.counts[bank.pay]", ">= 2", True),
    ("run.counts[tool]", ">= 2", True),
    ("run.counts[bank.other]", 0, True),
    ("run.sums", 4_000, True),
    ("run.sums[bank.fee]", 10, True),
    ("call.sums", 6, True),
    ("run.sums + call.sums", "> 4,005", True),
    ("run.sums + args[/amount]", 4_006, True),
    ("run.sums + args[/text]", "> 0", False),
    ("moved", 4_016, True),
    ("claimed[/intent]", "pay", True),
    ("allowed[to]", "has x", True),
    ("allowed[from]", "lacks x", True),
    ("input./context/run/calls", 3, True),
]


@pytest.mark.parametrize(("left", "right", "expected"), VALUES)
def test_a_condition_means_what_it_says(left: str, right: object, expected: bool | None) -> None:  # noqa: FBT001
    asked = document(amount=6, flag=True, text=" Kp ", none=None, list=[1, 2])
    if expected is None:
        with pytest.raises(StatementError):
            read_condition(left, right)
    else:
        assert read_condition(left, right).holds(asked, FACTS) is expected


SENTENCES: Final[list[tuple[str, set[str], dict[str, Any]]]] = [
    (
        "no agent can move more than 10,000 in a run without a hold",
        {"permit"},
        {"effect": "money", "moved": "> 10,000"},
    ),
    (
        "Nobody may move more than 5 in a run through bank.pay".replace("Nobody", "nobody"),
        {"permit", "approved"},
        {"tool": "bank.pay", "run.sums + call.sums": "> 5"},
    ),
    (
        "no agent may move more than 1.5 in one call.",
        {"permit", "approved"},
        {"effect": "money", "call.sums": "> 1.5"},
    ),
    (
        "no agent can move more than 9 in one call through bank.pay without a hold",
        {"permit"},
        {"tool": "bank.pay", "call.sums": "> 9"},
    ),
    ("no agent can call bank.pay", {"permit", "approved"}, {"tool": "bank.pay"}),
    (
        "no agent can call bank.pay in prod without a hold",
        {"permit"},
        {"tool": "bank.pay", "environment": "prod"},
    ),
    (
        "no agent can call bank.pay more than 3 times in a run",
        {"permit", "approved"},
        {"tool": "bank.pay", "run.counts[tool]": ">= 3"},
    ),
    (
        "no agent can call bank.pay with /to/country like kp without a hold",
        {"permit"},
        {"tool": "bank.pay", "args[/to/country]": "like kp"},
    ),
    (
        "no agent can use delete  tools in prod",
        {"permit", "approved"},
        {"effect": "delete", "environment": "prod"},
    ),
    (
        "no agent can use external_send tools after reading untrusted data",
        {"permit", "approved"},
        {"effect": "external_send", "run.labels": "has untrusted"},
    ),
    (
        "only ann, bob can call bank.pay",
        {"permit", "approved"},
        {"tool": "bank.pay", "agent": "not in ann, bob"},
    ),
]


@pytest.mark.parametrize(("sentence", "outcomes", "when"), SENTENCES)
def test_a_sentence_is_read_as_its_template_says(
    sentence: str, outcomes: set[str], when: dict[str, Any]
) -> None:
    found = read_sentence(sentence, "x")
    assert found.outcomes == outcomes
    assert {each.left: each.right for each in found.conditions} == when


def test_every_template_has_a_sentence_above() -> None:
    assert len(SENTENCES) >= len(TEMPLATES) == 9


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "no agent can",
        "no agent can steal",
        "no agent can move more than many in a run",
        "no agent can move more than 10,000 in a run or two",
        "no agent can use evil tools",
        "please: no agent can call bank.pay",
        "only can call bank.pay",
    ],
)
def test_any_other_sentence_is_refused_with_all_templates(sentence: str) -> None:
    with pytest.raises(StatementError) as refused:
        read_sentence(sentence, "x")
    assert all(template in str(refused.value) for template in TEMPLATES)


WRONG: Final[list[object]] = [
    "text",
    {},
    {"never": {}},
    {"never": {"outcome": "permit"}},
    {"never": {"when": {}}},
    {"never": {"when": []}},
    {"never": {"when": {"effect": "money"}}, "always": {}},
    {"never": {"outcome": "explode", "when": {"effect": "money"}}},
    {"never": {"outcome": "permit", "when": {"effekt": "money"}}},
    {"never": {"outcome": "permit", "when": {"args[/a": 1}}},
    {"never": {"outcome": "permit", "when": {"run.labels[x]": 1}}},
    {"never": {"outcome": "permit", "when": {"": 1}}},
    {"never": {"outcome": "permit", "when": {1: 1}}},
    {"never": {"outcome": "permit", "when": {"moved": "> ten"}}},
    {"never": {"outcome": "permit", "when": {"moved": "> nan"}}},
]


@pytest.mark.parametrize("given", WRONG)
def test_a_statement_that_means_nothing_is_refused(given: object) -> None:
    with pytest.raises(StatementError):
        read_statement(given, "x")


def test_a_statement_is_broken_only_by_its_outcomes_and_where_all_holds() -> None:
    body = {"outcome": ["hold", "goes"], "when": {"effect": "money", "moved": "> 4,015"}}
    found = read_statement({"id": "cap", "text": "a cap", "never": body}, "x")
    assert (found.id, found.text) == ("cap", "a cap")
    for goes in ("permit", "approved", "hold"):
        assert found.is_broken(goes, document(amount=6), FACTS)
    assert not found.is_broken("deny", document(amount=6), FACTS)
    assert not found.is_broken("permit", document(amount=5), FACTS)


def test_what_a_statement_fixes_is_known_where_it_names_values() -> None:
    when = {
        "effect": ["money"],
        "environment": "in prod, test",
        "agent": "not in ann",
        "tool": "= a.b",
    }
    found = read_statement({"never": {"when": when}}, "x")
    assert found.fixed("effect") == ("money",)
    assert found.fixed("environment") == ("prod", "test")
    assert found.fixed("agent") is None
    assert found.fixed("tool") == ("a.b",)
    assert found.fixed("owner") is None
    assert equal_to("> 5") is None
    assert equal_to(5) == (5,)
    assert equal_to("like x") is None
