"""Which rules fired on an input, and at which expression the others stopped."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.authoring.policy_explain import Explanation, Traced, explain
from gateway.adapters.policy.policy_bundle import build_bundle, default_pack, load_bundle_dir

pytestmark = pytest.mark.req("POL-06")

AUTHORITY = {"authority": {"policies": {"a": ["shop"]}}, "limits": {"most": 100}}
HEAD = "package policies.a\n"


def question(**args: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "version": 1,
        "phase": "call",
        "resource": {"id": "shop.pay", "server": "shop", "effect": "money"},
        "context": {"args": args},
    }


def explained(rules: str, document: dict[str, Any], **more: str) -> Explanation:
    sources = {
        "a.rego": HEAD + rules + "\n",
        **{f"{name}.rego": text for name, text in more.items()},
    }
    return explain(build_bundle(sources, AUTHORITY), document)


def traced(rules: str, **args: Any) -> list[Traced]:  # noqa: ANN401
    (package,) = explained(rules, question(**args)).heard
    return package.rules


LIMIT = """permit contains {"code": "too_much"} if {
	input.phase in {"call", "resume"}
	is_number(input.context.args.amount)
	input.context.args.amount > data.limits.most
}"""


def test_a_rule_that_fired_shows_its_items() -> None:
    (rule,) = traced(LIMIT, amount=500)
    assert (rule.rule, rule.file, rule.row) == ("permit", "a.rego", 2)
    assert rule.items == [{"code": "too_much"}]
    assert rule.stopped is None


def test_a_rule_that_stopped_shows_where_and_on_what_values() -> None:
    (rule,) = traced(LIMIT, amount=5)
    assert rule.items == []
    assert rule.stopped is not None
    assert (rule.stopped.row, rule.stopped.col) == (5, 2)
    assert rule.stopped.text == "input.context.args.amount > data.limits.most"
    assert rule.stopped.values == {"input.context.args.amount": [5], "data.limits.most": [100]}


def test_what_is_undefined_has_no_value() -> None:
    (rule,) = traced(LIMIT)
    assert rule.stopped is not None
    assert rule.stopped.text == "is_number(input.context.args.amount)"
    assert rule.stopped.values == {"input.context.args.amount": []}


def test_a_rule_that_stands_on_another_one_is_followed() -> None:
    rules = (
        'permit contains {"code": "ok"} if asking\n'
        'asking if {\n\tknown\n\tinput.phase == "call"\n}\n'
        'asking if input.phase == "resume"\nknown if input.resource.id == "shop.refund"'
    )
    (rule,) = traced(rules)
    assert rule.stopped is not None
    first, second = rule.stopped.below
    assert first.stopped is not None
    assert first.stopped.text == "known"
    (deeper,) = first.stopped.below
    assert deeper.stopped is not None
    assert deeper.stopped.values == {"input.resource.id": ["shop.pay"]}
    assert second.stopped is not None
    assert second.stopped.text == 'input.phase == "resume"'


def test_locals_texts_objects_and_else_are_told_as_they_are_written() -> None:
    rules = (
        'deny contains {"code": "no", "message": sprintf("%v {", [n])} if {\n'
        '\tsome item in input.context.args.items\n\tn := item.price * 2\n\t"x}" != item.name\n'
        "\tn > 10\n}\n"
        'kind := "big" if { input.context.args.big } else := "small" if input.context.args.small\n'
        'deny contains {"code": kind} if kind == "big"'
    )
    items = [{"name": "a", "price": 6}, {"name": "b", "price": 1}]
    fired, other = traced(rules, items=items, small=True)
    assert fired.items == [{"code": "no", "message": "12 {"}]
    assert other.stopped is not None
    assert other.stopped.values == {"kind": ["small"]}
    (stopped, _) = traced(rules, items=items[1:])
    assert stopped.stopped is not None
    assert stopped.stopped.text == "n > 10"
    assert stopped.stopped.values == {"n": [2]}


def test_statements_are_asked_in_an_order_in_which_they_can_be() -> None:
    body = "{\n\tn > 3\n\tis_number(n)\n\tn = input.context.args.n\n}"
    rules = f'permit contains {{"code": "no"}} if {body}'
    (rule,) = traced(rules, n=2)
    assert rule.stopped is not None
    assert rule.stopped.text == "n > 3"
    (rule,) = traced(rules, n=7)
    assert rule.items == [{"code": "no"}]


def test_imports_and_with_are_kept() -> None:
    rules = (
        "import input.context.args as given\n"
        'deny contains {"code": "no"} if {\n\tgiven.a == 1\n'
        '\tlate with input.phase as "resume"\n}\n'
        'late if input.phase == "resume"'
    )
    (rule,) = traced(rules, a=1)
    assert rule.items == [{"code": "no"}]
    (rule,) = traced(rules, a=2)
    assert rule.stopped is not None
    assert rule.stopped.values == {"given.a": [2]}


def test_packages_that_are_not_concerned_are_named() -> None:
    scoped = (
        "# METADATA\n# custom:\n#   applies_to: {phases: [result]}\npackage policies.b\n"
        'deny contains {"code": "no"}\n'
    )
    found = explained(LIMIT, question(), b=scoped)
    assert [package.package for package in found.heard] == ["a"]
    assert found.unheard == ["b"]


def test_a_permit_without_authority_is_seen() -> None:
    permit = 'permit contains {"code": "ok"}'
    (package,) = explained(permit, question()).heard
    assert package.owns
    document = question() | {"resource": {"id": "bank.pay", "server": "bank"}}
    (package,) = explained(permit, document).heard
    assert not package.owns


def test_what_fails_in_the_engine_is_named_without_a_reason() -> None:
    (rule,) = traced('deny contains {"code": "no"} if abs(input.context.args.n) == 1', n="x")
    assert rule.problem


def test_an_author_may_call_a_value_value() -> None:
    rule = 'deny contains {"code": "no"} if { some value in input.context.args.n; value == 1 }'
    (found,) = traced(rule, n=[2])
    assert not found.problem
    assert found.stopped is not None
    (found,) = traced(rule, n=[1])
    assert found.items


@pytest.mark.parametrize("phase", ["list", "call", "resume", "result", "issue"])
@pytest.mark.parametrize("effect", ["read", "money", "external_send", "unreviewed"])
def test_every_rule_of_the_default_pack_can_be_explained(phase: str, effect: str) -> None:
    document = question() | {"phase": phase}
    document["resource"] |= {"effect": effect, "sinks": ["/to"], "sums": ["/amount"], "labels": []}
    document["context"] |= {
        "args": {"to": "a@b.example", "amount": 5},
        "token": {"scopes": ["tools:call"], "allowed_values": {}},
        "run": {"labels": ["untrusted"], "recent": ["shop.pay"], "counts": {}, "sums": {}},
    }
    found = explain(load_bundle_dir(default_pack()), document)
    rules = [rule for package in found.heard for rule in package.rules]
    assert rules or phase == "result"
    assert [rule for rule in rules if rule.problem] == []
