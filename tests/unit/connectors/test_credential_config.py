from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.auth_binding import UpstreamAuth
from gateway.config.settings import Config, load_config
from gateway.core.errors import ConfigurationError
from gateway.wiring.broker import build_endpoint, find_bindings, load_manifests

pytestmark = pytest.mark.req("TOK-09")

OAUTH = {
    "kind": "oauth_client_credentials",
    "token_url": "https://idp.example/token",
    "client_id": "gw",
    "client_secret_from": "vault:kv/crm#secret",
}


def load(folder: Path, auth: dict[str, Any] | None, **settings: Any) -> Config:  # noqa: ANN401 - sections
    (folder / "policies").mkdir(exist_ok=True)
    manifest = {
        "id": "crm",
        "transport": "http",
        "egress": ["crm.example", "idp.example"],
        "auth": {"value_from": "env:OF_THE_MANIFEST"},
        "tools": [],
    }
    (folder / "crm.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    server = {"transport": "http", "url": "https://crm.example/mcp", "manifest": "crm.yaml"}
    if auth is not None:
        server["auth"] = auth  # type: ignore[assignment]
    path = folder / "countersign.yaml"
    path.write_text(json.dumps({"servers": {"crm": server}, **settings}), encoding="utf-8")
    return load_config(path, {})


def problem(folder: Path, auth: dict[str, Any] | None, **settings: Any) -> str:  # noqa: ANN401 - sections
    with pytest.raises(ConfigurationError) as caught:
        load(folder, auth, **settings)
    return str(caught.value)


def test_what_is_configured_wins_over_the_manifest(tmp_path: Path) -> None:
    config = load(tmp_path, OAUTH)
    found = find_bindings(config, load_manifests(config))
    assert found == {"crm": UpstreamAuth(**OAUTH)}  # type: ignore[arg-type]


def test_the_manifests_binding_holds_where_nothing_is_configured(tmp_path: Path) -> None:
    config = load(tmp_path, None)
    assert build_endpoint(config.servers["crm"]).auth is None
    found = find_bindings(config, load_manifests(config))
    assert found == {"crm": UpstreamAuth(value_from="env:OF_THE_MANIFEST")}


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        ({}, "servers.crm.auth.value_from: is missing"),
        ({"value_from": "canary"}, "a secret itself does not belong here"),
        ({"kind": "magic", "value_from": "env:A"}, "servers.crm.auth.kind"),
        ({**OAUTH, "token_url": "http://idp.example/"}, "must be https"),
        ({**OAUTH, "user": "a"}, "servers.crm.auth.user: means nothing"),
    ],
)
def test_a_binding_with_a_mistake_is_told_with_its_place(
    tmp_path: Path, auth: dict[str, Any], text: str
) -> None:
    told = problem(tmp_path, auth)
    assert text in told
    assert "canary" not in told


def test_a_token_endpoint_that_no_reviewer_allowed_is_refused(tmp_path: Path) -> None:
    config = load(tmp_path, {**OAUTH, "token_url": "https://evil.example/token"})
    with pytest.raises(ConfigurationError, match="not in its manifest's `egress`"):
        find_bindings(config, load_manifests(config))


@pytest.mark.parametrize(
    ("vault", "text"),
    [
        ({"address": "http://vault.example:8200"}, "secrets would cross the network in the clear"),
        ({"address": "vault.example"}, "is no URL"),
        ({"token_from": "hvs.canary"}, "credentials.vault.token_from"),
        ({"token_from": "vault:kv/a#b"}, "credentials.vault.token_from"),
    ],
)
def test_a_vault_that_cannot_be_trusted_is_refused(
    tmp_path: Path, vault: dict[str, str], text: str
) -> None:
    told = problem(tmp_path, None, credentials={"vault": vault})
    assert text in told
    assert "canary" not in told
