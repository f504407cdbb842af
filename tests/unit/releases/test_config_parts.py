"""What of a configuration is in a release, what is not, and what becomes of it (POL-07)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import PublisherSection
from gateway.config.release import (
    assemble,
    build_rules,
    find_differences,
    find_parts_fault,
    overlay,
    require_two,
)
from gateway.config.settings import Config, load_config
from gateway.core.errors import ConfigurationError
from gateway.core.releases.publisher_keys import public_of
from gateway.core.releases.release import read_archive, write_archive
from tests.unit.releases.made import PAUL, PIA, PIA_AGAIN

pytestmark = pytest.mark.req("POL-07")

HASH = "sha256:" + "a" * 64
OTHER_HASH = "sha256:" + "b" * 64
POLICY = {
    "countersign/main.rego": b"package countersign\n",
    "policies/house.rego": b"package policies.house\n",
    "data.json": b"{}",
}


def write(folder: Path, **over: Any) -> Config:  # noqa: ANN401 - sections of the configuration
    """Write a deployment and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policies").mkdir(exist_ok=True)
    for name in ("shop", "desk"):
        kind = "http" if name == "shop" else "stdio"
        (folder / f"{name}.yaml").write_text(f"id: {name}\ntransport: {kind}\ntools: []\n")
    settings: dict[str, Any] = {
        "environment": "prod",
        "policy": {"path": "policies"},
        "servers": {
            "shop": {
                "transport": "http",
                "url": "https://shop.example/mcp",
                "manifest": "shop.yaml",
                "auth": {"value_from": "env:SHOP_TOKEN"},
            },
            "desk": {
                "transport": "stdio",
                "command": ["desk"],
                "env": {"DESK_SECRET": "canary"},
                "cwd": "here",
                "manifest": "desk.yaml",
            },
        },
        "humans": [{"id": "dana", "roles": ["approver"], "secret_hash": HASH}],
        "clients": [
            {"kind": "launcher", "id": "flow", "secret_hash": OTHER_HASH, "may_launch": ["bot"]},
            {"kind": "agent", "id": "bot"},
        ],
    }
    (folder / "countersign.yaml").write_text(json.dumps(settings | over))
    return load_config(folder / "countersign.yaml", {})


def test_no_secret_no_hash_and_no_path_of_this_machine_is_in_a_release(tmp_path: Path) -> None:
    archive = write_archive(assemble(POLICY, [write(tmp_path)]))
    for gone in (b"canary", b"aaaa", b"bbbb", str(tmp_path).encode()):
        assert gone not in archive
    for kept in (b"DESK_SECRET", b"env:SHOP_TOKEN", b"https://shop.example/mcp", b"approver"):
        assert kept in archive


def test_a_release_takes_the_place_of_what_the_file_says_but_for_secrets(tmp_path: Path) -> None:
    release = read_archive(write_archive(assemble(POLICY, [write(tmp_path)]))).release
    edited = write(
        tmp_path,
        servers={
            "shop": {"transport": "http", "url": "https://evil.example/", "manifest": "shop.yaml"},
            "desk": {
                "transport": "stdio",
                "command": ["evil"],
                "env": {"DESK_SECRET": "new", "LD_PRELOAD": "x"},
                "manifest": "desk.yaml",
            },
            "more": {"transport": "http", "url": "https://x.example/", "manifest": "shop.yaml"},
        },
        humans=[
            {"id": "dana", "roles": ["admin"], "secret_hash": OTHER_HASH},
            {"id": "eve", "roles": ["approver"]},
        ],
        clients=[{"kind": "agent", "id": "bot", "secret_hash": HASH, "roles": ["x"]}],
    )
    found = overlay(edited, release, tmp_path / "kept")
    assert set(found.servers) == {"shop", "desk"}
    assert found.servers["shop"].url == "https://shop.example/mcp"  # type: ignore[union-attr]
    assert found.servers["shop"].manifest == tmp_path / "kept" / "manifests" / "shop.yaml"
    desk = found.servers["desk"]
    assert (desk.command, desk.env) == (("desk",), {"DESK_SECRET": "new"})  # type: ignore[union-attr]
    assert [(one.id, one.roles, one.secret_hash) for one in found.humans] == [
        ("dana", ("approver",), OTHER_HASH)
    ]
    clients = {one.id: one for one in found.clients}
    assert set(clients) == {"bot", "flow"}
    assert clients["bot"].secret_hash == HASH
    assert clients["bot"].roles == ()  # type: ignore[union-attr]


def test_what_differs_between_the_files_and_a_release_is_told_by_its_place(tmp_path: Path) -> None:
    release = assemble(POLICY, [write(tmp_path)])
    assert find_differences(write(tmp_path), release, POLICY) == []
    edited = write(tmp_path, humans=[{"id": "dana", "roles": ["admin"]}, {"id": "eve"}])
    (tmp_path / "shop.yaml").write_text("id: shop\ntransport: http\ntools: []\n\n")
    policy = {**POLICY, "policies/more.rego": b""}
    assert find_differences(edited, release, policy) == [
        "humans.dana",
        "humans.eve",
        "manifests/shop.yaml",
        "policies/more.rego",
    ]


def test_one_release_is_for_several_environments(tmp_path: Path) -> None:
    prod = write(tmp_path / "prod")
    shop = {"shop": {"transport": "http", "url": "https://t.example/", "manifest": "shop.yaml"}}
    test = write(tmp_path / "test", environment="test", servers=shop, humans=[])
    release = assemble(POLICY, [prod, test])
    assert assemble(POLICY, [test, prod]) == release
    assert overlay(test, release, tmp_path).servers["shop"].url == "https://t.example/"  # type: ignore[union-attr]
    assert overlay(prod, release, tmp_path).servers["shop"].url == "https://shop.example/mcp"  # type: ignore[union-attr]
    assert find_differences(test, release, POLICY) == []


def test_a_release_that_says_nothing_of_this_environment_is_refused(tmp_path: Path) -> None:
    release = assemble(POLICY, [write(tmp_path)])
    other = write(tmp_path, environment="test")
    assert "nothing about `test`" in (find_parts_fault(other, release) or "")


def test_a_value_of_the_environment_that_is_missing_here_is_named(tmp_path: Path) -> None:
    release = assemble(POLICY, [write(tmp_path)])
    without = write(tmp_path, servers={})
    told = find_parts_fault(without, release) or ""
    assert told.startswith("servers.desk.env.DESK_SECRET: the release names it")


def test_parts_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    config = write(tmp_path)
    release = assemble(POLICY, [config])
    half = {"humans": {"x": 1}, "clients": {}, "oauth": {}}
    without: list[dict[str, Any]] = [{"prod": {}}, {"prod": half}]
    for roles in without:
        files = {**release.files, "deployment/roles.json": json.dumps(roles).encode()}
        broken = type(release)(release.revision, files)
        assert "cannot be read" in (find_parts_fault(config, broken) or "")


def test_two_configurations_of_one_environment_or_with_other_manifests_are_refused(
    tmp_path: Path,
) -> None:
    prod = write(tmp_path / "prod")
    with pytest.raises(ConfigurationError, match="two configurations are of `prod`"):
        assemble(POLICY, [prod, prod])
    test = write(tmp_path / "test", environment="test")
    (tmp_path / "test" / "shop.yaml").write_text("id: shop\ntransport: http\ntools:\n")
    with pytest.raises(ConfigurationError, match="differ between environments"):
        assemble(POLICY, [prod, test])
    (tmp_path / "test" / "shop.yaml").unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        assemble(POLICY, [test])


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ([], "two publishers"),
        ([("pia", PIA)], "two publishers"),
        ([("pia", PIA), ("PIA", PIA_AGAIN)], "two publishers"),
        ([("pia", PIA), ("paul", PIA)], "one each"),
        ([("pia", None)], "policy keygen"),
        ([("pia", PIA), ("paul", PAUL)], None),
    ],
)
def test_publishers_are_two_people_with_a_key_each(
    tmp_path: Path, named: list[tuple[str, Any]], fault: str | None
) -> None:
    publishers = tuple(
        PublisherSection(id=name, key="x" if key is None else public_of(key).text)
        for name, key in named
    )
    config = write(tmp_path)
    policy = config.policy.model_copy(update={"publishers": publishers})
    config = config.model_copy(update={"policy": policy})
    if fault is None:
        require_two(build_rules(config))
        return
    with pytest.raises(ConfigurationError, match=fault):
        require_two(build_rules(config))
