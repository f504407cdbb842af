"""Who may permit what: owners, their packages and their servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.adapters.policy.policy_bundle import build_bundle, restore_bundle
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-12")

PERMITS = 'package policies.%s\n\npermit contains {"code": "yes"} if input.phase == "call"\n'
TEAM = {"packages": ["refunds", "payouts"], "servers": ["billing", "bank"]}


def sources(*names: str) -> dict[str, str]:
    return {f"{name}.rego": PERMITS % name for name in names}


def build(authority: object, *names: str) -> dict[str, list[str]]:
    bundle = build_bundle(sources(*names), {"authority": authority})
    policies: dict[str, list[str]] = json.loads(bundle.data)["authority"]["policies"]
    assert restore_bundle(dict(bundle.files)).revision == bundle.revision
    return policies


def refused(authority: object, *names: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build_bundle(sources(*names), {"authority": authority})
    return str(caught.value)


def test_packages_may_permit_on_the_servers_of_their_owner() -> None:
    found = build({"owners": {"payments": TEAM}}, "refunds", "payouts")
    assert found == {"refunds": ["billing", "bank"], "payouts": ["billing", "bank"]}


def test_a_package_may_be_given_fewer() -> None:
    authority = {"owners": {"payments": TEAM}, "policies": {"payouts": ["bank"]}}
    assert build(authority, "refunds", "payouts")["payouts"] == ["bank"]


def test_a_package_gets_no_more_than_its_owner_has() -> None:
    authority = {"owners": {"payments": TEAM}, "policies": {"payouts": ["bank", "crm"]}}
    told = refused(authority, "refunds", "payouts")
    assert "`payouts` may permit no more than its owner `payments`; remove `crm`" in told


def test_a_name_gives_no_authority_once_there_are_owners() -> None:
    authority = {"owners": {"payments": TEAM}, "policies": {"guest": ["billing"]}}
    told = refused(authority, "refunds", "payouts", "guest")
    assert "guest.rego:3:1: `permit` of `policies.guest` can never count" in told
    assert "name the package under its owner in authority.json" in told


def test_a_package_has_one_owner() -> None:
    other = {"packages": ["refunds"], "servers": ["*"]}
    told = refused({"owners": {"payments": TEAM, "other": other}}, "refunds", "payouts")
    assert "`refunds` has several owners (`other`, `payments`); leave it to one" in told


@pytest.mark.parametrize(
    "authority",
    [
        {"owners": []},
        {"owners": {"payments": {"packages": ["refunds"]}}},
        {"owners": {"payments": {**TEAM, "more": 1}}},
        {"teams": {"payments": TEAM}},
        [],
        "*",
    ],
)
def test_a_malformed_authority_is_refused(authority: Any) -> None:  # noqa: ANN401 - any JSON
    assert "authority.json: is missing or malformed" in refused(authority, "refunds")


def test_an_owner_of_everything_is_one_too() -> None:
    team = {"packages": ["refunds"], "servers": ["*"]}
    authority = {"owners": {"platform": team}, "policies": {"refunds": ["billing"]}}
    assert build(authority, "refunds") == {"refunds": ["billing"]}
