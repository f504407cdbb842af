"""Items that nobody would understand are refused where they are written out."""

from __future__ import annotations

import pytest

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-06")


def gate(rule: str) -> None:
    authority = {"authority": {"policies": {"a": ["*"]}}} if "permit" in rule else {}
    build_bundle({"a.rego": f"package policies.a\n{rule}\n"}, authority)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ('permit contains {"code": "Not A Code"}', "a.rego:2:26: the code `Not A Code` cannot be"),
        ('deny contains {\n\t"message": "x",\n}', "a.rego:2:15: the item has no `code`"),
        ('hold contains {"code": ""} if input.phase', "cannot be told to an agent"),
        ('obligation contains {"type": "redakt", "pointers": ["/x"]}', "did you mean `redact`?"),
        ('obligation contains {"type": "levitate"}', "use one of add_label, annotate"),
        ('obligation contains {"pointers": ["/x"]}', "the obligation has no `type`"),
    ],
)
def test_an_item_that_nobody_understands_is_refused(rule: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        gate(rule)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        'permit contains {"code": "ok"}',
        'deny contains {"code": sprintf("no_%s", [input.phase]), "message": "x"}',
        "hold contains item if item := input.context.args.item",
        'obligation contains {"type": "redact", "pointers": ["/x"]}',
        'obligation contains {"type": input.phase}',
        'other contains {"a": 1}',
    ],
)
def test_what_is_understood_or_computed_loads(rule: str) -> None:
    gate(rule)
