"""Apps in `countersign.yaml`, and what apps that name themselves may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import Config, load_config
from gateway.core.errors import ConfigurationError
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.token import Grant

pytestmark = pytest.mark.req("TOK-02")

APP: dict[str, Any] = {
    "kind": "app",
    "id": "editor",
    "agent": "bot",
    "redirect_uris": ["http://127.0.0.1/cb"],
    "grants": [{"server": "shop", "effects": ["read"]}],
}


def load(folder: Path, *clients: dict[str, Any], **more: Any) -> Config:  # noqa: ANN401
    (folder / "policies").mkdir(exist_ok=True)
    manifest = folder / "shop.yaml"
    manifest.write_text("{}")
    server = {"transport": "http", "url": "https://shop.example/mcp", "manifest": "shop.yaml"}
    said = {
        "clients": [{"kind": "agent", "id": "bot"}, *clients],
        "servers": {"shop": server},
        **more,
    }
    path = folder / "countersign.yaml"
    path.write_text(json.dumps(said))
    return load_config(path, {})


def test_an_app_is_read_with_its_defaults(tmp_path: Path) -> None:
    apps = load(tmp_path, APP).apps()
    app = apps.get("editor")
    assert app is not None
    assert (app.name, app.agent, app.secret_hash, app.dpop) == ("editor", "bot", "", False)
    assert app.grants == (Grant("shop", "*", ("read",)),)
    assert app.is_for("anybody")
    assert not apps.strangers.documents
    assert not apps.strangers.registration


def test_an_app_is_no_launcher_and_no_agent(tmp_path: Path) -> None:
    registry = load(tmp_path, APP).client_registry()
    assert registry.get("editor") is None
    assert registry.launcher("editor") is None


def test_what_an_app_may_say_of_itself(tmp_path: Path) -> None:
    secret = hash_secret("x" * 43)
    more = {"name": "Ed", "humans": ["ann"], "secret_hash": secret, "dpop": "required"}
    app = load(tmp_path, APP | more).apps().get("editor")
    assert app is not None
    assert (app.name, app.humans, app.secret_hash, app.dpop) == ("Ed", ("ann",), secret, True)


def test_apps_that_name_themselves_are_off_until_hosts_are_named(tmp_path: Path) -> None:
    documents = {
        "enabled": True,
        "allowed_hosts": ["*.apps.example"],
        "agent": "bot",
        "grants": [{"server": "shop", "effects": ["read"]}],
    }
    config = load(tmp_path, oauth={"client_id_metadata_documents": documents})
    strangers = config.apps().strangers
    assert (strangers.documents, strangers.hosts) == (True, ("*.apps.example",))
    assert (strangers.agent, strangers.grants) == ("bot", (Grant("shop", "*", ("read",)),))
    assert config.oauth.authorization_s == 28_800


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agent": "nobody"}, "there is no agent `nobody`"),
        ({"agent": "editor"}, "there is no agent `editor`"),
        ({"redirect_uris": []}, "redirect_uris"),
        ({"redirect_uris": ["http://app.example/cb"]}, "would carry the code in the clear"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "a scheme that no app may have"),
        ({"grants": [{"server": "elsewhere"}]}, "there is no server `elsewhere`"),
        ({"id": "bot"}, "`bot` is taken"),
        ({"secret_hash": "plain"}, "secret_hash"),
        ({"dpop": "maybe"}, "dpop"),
    ],
)
def test_what_cannot_be_an_app_is_told(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path, APP | changes)


@pytest.mark.parametrize(
    ("oauth", "said"),
    [
        (
            {"client_id_metadata_documents": {"enabled": True, "agent": "bot"}},
            "no host's documents are fetched",
        ),
        (
            {"client_id_metadata_documents": {"enabled": True, "allowed_hosts": ["*"]}},
            "there is no agent ``",
        ),
        ({"dynamic_registration": True}, "there is no agent ``"),
        (
            {"client_id_metadata_documents": {"grants": [{"server": "elsewhere"}]}},
            "there is no server `elsewhere`",
        ),
        ({"authorization_s": 5}, "authorization_s"),
    ],
)
def test_what_strangers_cannot_be_is_told(tmp_path: Path, oauth: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path, oauth=oauth)
