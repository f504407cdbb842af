"""What tools answered is on record only where policy asked: who begins to ask is told."""

from __future__ import annotations

from typing import Final

import pytest

from gateway.adapters.authoring.result_watchers import tell_watchers
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.cli.impact_table import say_watchers

pytestmark = pytest.mark.req("POL-08")

CALM: Final = """package policies.calm

permit contains {"code": "reads"} if input.resource.effect == "read"
"""
WATCHES: Final = """# METADATA
# custom:
#   applies_to: {applies}
package policies.keys

deny contains {{"code": "key_in_it"}} if "key" in input.context.result.text
"""


def bundle(applies: str = "") -> Bundle:
    sources = {"calm.rego": CALM}
    if applies:
        sources["keys.rego"] = WATCHES.format(applies=applies)
    return build_bundle(sources, {"authority": {"policies": {"calm": ["*"]}}})


@pytest.mark.parametrize(
    ("applies", "before", "told"),
    [
        ("{phases: [result]}", None, ["keys"]),
        ("{tools: [shop.get]}", "", ["keys"]),
        ("{tools: [shop.get]}", "{tools: [shop.get]}", []),
        ("{tools: [shop.get]}", "{tools: [shop.put]}", ["keys"]),
        ("{phases: [call]}", "", []),
        ("", None, []),
    ],
    ids=["any", "newly", "as before", "other tools", "calls alone", "nobody"],
)
def test_who_begins_to_judge_results_is_told(
    applies: str, before: str | None, told: list[str]
) -> None:
    found = tell_watchers(bundle(applies), None if before is None else bundle(before))
    assert found == told
    assert ("WARNING: These packages judge results: keys." in say_watchers(found)) == bool(told)
