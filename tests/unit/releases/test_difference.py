from __future__ import annotations

import pytest

from gateway.core.releases.difference import Difference, compare
from tests.unit.releases.made import release

pytestmark = pytest.mark.req("POL-07")


def test_one_release_does_not_differ_from_itself() -> None:
    assert compare(release(), release()) == []


def test_rego_is_shown_as_text() -> None:
    found = compare(
        release(b"package policies.house\na := 1\n"), release(b"package policies.house\n")
    )
    assert [(one.kind, one.place, one.change) for one in found] == [
        ("rego", "policies/house.rego", "changed")
    ]
    assert "-a := 1" in found[0].lines


def test_manifests_endpoints_roles_and_data_are_told_by_place() -> None:
    after = release(
        manifests={"mail": b"id: mail\n"},
        endpoints={"prod": {"shop": {"url": "https://other.example/mcp"}}},
        roles={"prod": {"humans": {"pia": {"roles": ["admin"]}}, "clients": {}}},
    )
    found = compare(release(), after)
    assert [(one.kind, one.place, one.change) for one in found] == [
        ("endpoint", "/prod/shop/url", "changed"),
        ("role", "/prod/humans", "removed"),
        ("role", "/prod/humans/pia/roles", "added"),
        ("manifest", "manifests/mail.yaml", "added"),
        ("manifest", "manifests/shop.yaml", "removed"),
    ]
    assert found[0].lines == (
        '-"https://shop.example/mcp"',
        '+"https://other.example/mcp"',
    )


def test_a_member_whose_name_has_a_slash_is_told_by_its_pointer() -> None:
    after = release(endpoints={"prod": {"shop": {"url": "https://shop.example/mcp", "a/b~": 1}}})
    assert compare(release(), after) == [
        Difference("endpoint", "/prod/shop/a~1b~0", "added", ("+1",))
    ]
