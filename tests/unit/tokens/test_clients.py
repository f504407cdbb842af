from __future__ import annotations

import pytest

from gateway.core.tokens.clients import Agent, ClientRegistry, Launcher, hash_secret, is_secret

pytestmark = pytest.mark.req("GW-10")

BOT = Agent(id="bot", owner="ann", secret_hash=hash_secret("bot-secret"))
SILENT = Agent(id="silent")
LAUNCHER = Launcher(id="workflow", secret_hash=hash_secret("workflow-secret"))
REGISTRY = ClientRegistry([BOT, SILENT, LAUNCHER])


def test_a_client_is_known_by_its_secret() -> None:
    assert REGISTRY.authenticate("bot", "bot-secret") is BOT
    assert REGISTRY.authenticate("workflow", "workflow-secret") is LAUNCHER


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        ("bot", "workflow-secret"),
        ("bot", ""),
        ("bot", hash_secret("bot-secret")),
        ("bot", "\ud800"),
        ("silent", ""),
        ("silent", "anything"),
        ("nobody", ""),
        ("nobody", "bot-secret"),
    ],
)
def test_nobody_is_known_by_another_secret(client_id: str, secret: str) -> None:
    assert REGISTRY.authenticate(client_id, secret) is None


def test_an_empty_hash_fits_no_secret() -> None:
    assert not is_secret("", "")
    assert not is_secret("0" * 64, "")


def test_a_launcher_is_no_agent() -> None:
    assert REGISTRY.get("bot") is BOT
    assert REGISTRY.agent("bot") is BOT
    assert REGISTRY.agent("workflow") is None
    assert REGISTRY.launcher("workflow") is LAUNCHER
    assert REGISTRY.launcher("bot") is None


def test_owners_are_those_who_answer_for_a_client() -> None:
    assert REGISTRY.owners("bot") == ("ann",)
    assert REGISTRY.owners("silent") == ()
    assert REGISTRY.owners("nobody") == ()
