"""Rules that wait for a time show in no replay of the past; that they are there is told."""

from __future__ import annotations

from typing import Any, Final

import pytest

from gateway.adapters.authoring.clock_readers import tell_clock
from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.cli.impact_table import say_clock

pytestmark = pytest.mark.req("POL-08")

CALM: Final = """package policies.{name}

permit contains {{"code": "reads"}} if input.resource.effect == "read"
"""
LATER: Final = """
permit contains {"code": "later"} if {
	input.resource.effect == "money"
	input.context.now_ns > 4000000000000000000
}
"""
HOURS: Final = """
hold contains {"code": "night"} if {
	input.phase == "call"
	data.countersign.lib.clock.local("UTC")[1] < 360
}
"""
BROAD: Final = """
deny contains {"code": "odd"} if {
	input.phase == "call"
	some name, _ in input.context
	name == "odd"
}
"""


def bundle(data: dict[str, Any] | None = None, **more: str) -> Bundle:
    sources = {f"{name}.rego": CALM.format(name=name) + text for name, text in more.items()}
    return build_bundle(
        sources, {"authority": {"policies": {name: ["*"] for name in more}}, **(data or {})}
    )


def test_packages_that_read_the_time_are_named_however_they_get_at_it() -> None:
    found = bundle(calm="", later=LATER, hours=HOURS, broad=BROAD)
    assert tell_clock(found) == {"reads": ["broad", "hours", "later"]}
    assert tell_clock(bundle(calm="")) == {"reads": []}


@pytest.mark.parametrize(
    ("before", "changed"),
    [
        (bundle(calm="", house=""), ["house"]),
        (bundle(calm=""), ["house"]),
        (bundle(calm="", house=LATER.replace("4", "5")), ["house"]),
        (bundle({"opening": 9}, calm="", house=LATER), ["house"]),
        (bundle(calm="# more\n", house=LATER), []),
    ],
    ids=["newly", "new", "another time", "other data", "another package"],
)
def test_who_reads_it_newly_or_otherwise_is_told(before: Bundle, changed: list[str]) -> None:
    told = tell_clock(bundle(calm="", house=LATER), before)
    assert told == {"reads": ["house"], "changed": changed}
    lines = say_clock(told)
    assert "These packages read the time: house." in lines
    assert ("WARNING: new or changed among them: house." in lines) == bool(changed)


def test_where_nobody_reads_it_nothing_is_said() -> None:
    assert say_clock({"reads": [], "changed": []}) == []
    assert say_clock(None) == []
