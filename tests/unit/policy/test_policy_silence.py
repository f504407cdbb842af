"""Packages that say nothing over a bundle's data are left out of engines, and only those."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    default_pack,
    load_bundle_dir,
)

pytestmark = pytest.mark.req("POL-13")


def build(body: str, data: dict[str, Any] | None = None, *, head: str = "") -> Bundle:
    return build_bundle({"a.rego": f"package policies.a\n{head}\n{body}\n"}, data or {})


def rule(first: str) -> str:
    return (
        f'deny contains {{"code": "no"}} if {{\n\t{first}\n\tinput.resource.effect == "money"\n}}'
    )


@pytest.mark.parametrize(
    "first",
    [
        "data.settings.a.on",
        "data.settings.a.on == true",
        "some x in data.settings.a.list\n\tx == input.resource.id",
        "count(data.settings.a.list) > 0",
        "limit := data.settings.a.limit\n\tlimit == 5",
        "names := data.settings.a[input.resource.server]\n\tinput.resource.id in names",
        '"x" in data.settings.a.list',
    ],
)
def test_a_rule_that_begins_with_data_that_is_not_there_is_silent(first: str) -> None:
    assert build(rule(first)).silent == {"a"}
    assert build(rule(first), {"settings": {"b": {}}}).silent == {"a"}
    assert build(rule(first), {"settings": 5}).silent == {"a"}
    whole = {"on": True, "list": ["x"], "limit": 5, "shop": []}
    assert build(rule(first), {"settings": {"a": whole}}).silent == set()


@pytest.mark.parametrize(
    "body",
    [
        rule("not data.settings.a.on"),
        rule("every x in data.settings.a.list { x }"),
        rule("input.phase == data.settings.a.phase") + "\n" + rule("input.phase == 1"),
        rule("data.settings.a.on == 1 with data.settings.a.on as 1"),
        rule("xs := [x | some x in data.settings.a.list]\n\tcount(xs) == 0"),
        rule('input.phase == "call"\n\tdata.settings.a.on'),
        'deny contains {"code": "no"}',
        "on if data.settings.a.on\n" + rule("on"),
        "default on := 1\n" + rule("on == 1"),
    ],
)
def test_a_rule_that_may_speak_is_heard(body: str) -> None:
    assert build(body).silent == set()


def test_one_speaking_file_of_a_package_is_enough() -> None:
    files = {
        "a.rego": "package policies.a\n" + rule("data.settings.a.on") + "\n",
        "b.rego": "package policies.a\n" + rule('input.phase == "call"') + "\n",
    }
    assert build_bundle(files, {}).silent == set()
    assert build_bundle({"a.rego": files["a.rego"]}, {}).silent == {"a"}


def test_functions_do_nothing_by_themselves() -> None:
    assert build("f(x) if x == input.n\n" + rule("data.settings.a.on")).silent == {"a"}


def test_a_local_name_is_no_document() -> None:
    assert build(rule("s.a.on"), head="import data.settings as s").silent == set()


def test_what_is_off_in_the_default_pack_costs_nothing() -> None:
    bundle = load_bundle_dir(default_pack())
    assert bundle.silent == {"calendar", "duties", "grants", "personal_data"}
