"""What a variable says: every kind of value, as a shell or a mounted file has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import Config, config_schema

pytestmark = pytest.mark.req("GW-04")

Load = Callable[..., Config]
Mistakes = Callable[..., list[str]]
GIT = "servers: {git: {transport: stdio, command: [x, y], manifest: shop.yaml, env: {A: b}}}\n"
SHOP = "servers: {shop: {transport: http, url: 'https://s.test', manifest: shop.yaml}}\n"
BOUNDED = (
    f"{SHOP}clients: [{{kind: launcher, id: l, secret_hash: sha256:{'0' * 64}, grants: [{{"
    "server: shop, max_calls: 1, window: {not_after: 5}, constraints: {/Amount: {max: 5}}}]}]"
)
KEYS = {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"}]}
KEYS["keys"][0]["x"] = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


def test_a_key_that_is_called_file_is_no_name_of_a_file_with_its_value(
    load: Load, tmp_path: Path
) -> None:
    config = load("", DECISION_LOG__FILE="decisions.jsonl")
    assert config.decision_log.file == tmp_path / "decisions.jsonl"
    (tmp_path / "name").write_text("other.jsonl\n")
    config = load("", DECISION_LOG__FILE_FILE=str(tmp_path / "name"))
    assert config.decision_log.file == tmp_path / "other.jsonl"


@pytest.mark.parametrize("written", ["", ", jwks_file: old.json"])
def test_keys_of_a_client_come_from_the_file_that_a_variable_names(
    load: Load, tmp_path: Path, written: str
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    text = f"clients: [{{kind: agent, id: a{written}}}]"
    agent = load(text, CLIENTS__0__JWKS_FILE="keys.json").client_registry().agent("a")
    assert agent is not None
    assert agent.jwks == tuple(KEYS["keys"])


def test_what_a_file_holds_is_read_wherever_it_lies_and_whoever_wrote_it(
    load: Load, tmp_path: Path
) -> None:
    (tmp_path / "level").write_bytes(b"\xef\xbb\xbfdebug\r\n")
    (tmp_path / "proxies").write_text("\n[10.0.0.0/24]\n")
    config = load("", LOG__LEVEL_FILE="level", SIGN_IN__TRUSTED_PROXIES_FILE="proxies")
    assert config.log.level == "debug"
    assert config.sign_in.trusted_proxies == ("10.0.0.0/24",)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("ENV__A", '{"a": 1, "a": 2}', lambda git: git.env["A"]),
        ("ENV__TOKEN", "[2026-01-01]", lambda git: git.env["TOKEN"]),
        ("COMMAND__1", "[z]", lambda git: git.command[1]),
    ],
)
def test_a_text_may_begin_like_a_list_or_a_mapping(
    load: Load, key: str, value: str, found: Callable[[Any], str]
) -> None:
    assert found(load(GIT, **{f"SERVERS__GIT__{key}": value}).servers["git"]) == value


def test_a_variable_overrides_what_an_earlier_one_said_as_a_whole(load: Load) -> None:
    config = load(GIT, SERVERS__GIT__ENV="{B: c}", SERVERS__GIT__ENV__A='{"a": 1}')
    assert config.servers["git"].env == {"B": "c", "A": '{"a": 1}'}  # type: ignore[union-attr]
    config = load("", LISTEN="[::1]:8080")
    assert config.address == ("::1", 8080)


def test_numbers_of_a_grant_can_come_from_variables(load: Load) -> None:
    grant = "CLIENTS__0__GRANTS__0__"
    values = {"MAX_CALLS": "3", "WINDOW__NOT_AFTER": "9", "CONSTRAINTS__/AMOUNT__MAX": "0.5"}
    config = load(BOUNDED, **{f"{grant}{key}": value for key, value in values.items()})
    (launcher,) = config.clients
    (found,) = launcher.grants
    assert found.window is not None
    bounds = (found.max_calls, found.window.not_after, found.constraints["/Amount"].max)
    assert bounds == (3, 9, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("0", False), ("Off", False)],
)
def test_a_flag_can_be_said_in_the_words_that_people_use(
    load: Load, text: str, *, expected: bool
) -> None:
    assert load("", DEV=text).dev is expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LIMITS", "{1: 2}", "limits.1: unknown limit `1`; known are"),
        ("LIMITS", "{a: 1, a: 2}", "limits.a: `a` is given twice; keep one"),
        ("LIMITS", "{a: 1", "should be a mapping of keys to values, and is not YAML: expected"),
        ("CLIENTS", "[a, b", "should be a list, and is not YAML: expected"),
        ("CLIENTS", "[" * 3000, "should be a list, and is not YAML: it is nested too deep"),
        ("SIGN_IN__TRUSTED_PROXIES", "[2026-01-01]", "trusted_proxies[0]: a timestamp is not"),
        ("SIGN_IN__TRUSTED_PROXIES", "[&a x, *a]", "trusted_proxies[1]: aliases and deep"),
        ("HUMANS__0__ID", "x", "humans[0].id: there is nothing to override"),
        ("HUMANS__0", "{id: x}", "humans[0]: there is nothing to override"),
        ("CLIENTS__" + "9" * 5000, "x", "there is nothing to override"),
        ("DEV", "2", "dev: should be `true` or `false`; write one of the two"),
        ("DEV", "", "dev: should be `true` or `false`; write one of the two"),
        ("POLICY__WORKERS", "many", "policy.workers: should be a whole number; expected worker"),
        ("AUDIT", "x", "audit: should be a mapping of keys to values; expected the tamper"),
    ],
)
def test_a_variable_is_read_by_the_rules_of_the_file(
    mistakes: Mistakes, name: str, value: str, expected: str
) -> None:
    found = mistakes("clients: []", **{name: value})
    assert all(line.startswith(f"COUNTERSIGN__{name}: ") for line in found)
    assert any(expected in line for line in found), found


def test_a_key_below_a_mapping_of_another_variable_is_told_not_fallen_over(
    mistakes: Mistakes,
) -> None:
    (found,) = mistakes("", LIMITS="{1: 2}", LIMITS__BODY_MAX_BYTES="3")
    assert "unknown limit `1`" in found


def test_every_section_is_described() -> None:
    assert all("description" in value for value in config_schema()["properties"].values())
