from __future__ import annotations

import pytest

from tests.unit.config.conftest import Load, Mistakes, load, mistakes, write

__all__ = ["load", "mistakes", "write"]

pytestmark = pytest.mark.req("TOK-01")
HASH = "sha256:" + "2" * 64


def test_agents_name_whom_they_may_delegate_to(load: Load) -> None:
    config = load("clients: [{kind: agent, id: a, may_delegate_to: [b]}, {kind: agent, id: b}]")
    agent = config.client_registry().agent("a")
    assert agent is not None
    assert agent.may_delegate_to == ("b",)
    assert [client.id for client in config.file_clients()] == ["a", "b"]
    assert (config.registry.approver_delay_s, config.registry.proposal_ttl_s) == (3_600, 86_400)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clients: [{kind: agent, id: a, may_delegate_to: [b]}]", "there is no agent `b`"),
        ("clients: [{kind: agent, id: a, may_delegate_to: [a]}]", "hands nothing to itself"),
        ("registry: {approver_delay_s: -1}", "registry.approver_delay_s"),
        ("registry: {proposal_ttl_s: 1}", "registry.proposal_ttl_s"),
        (f"humans: [{{id: a, groups: [admin], secret_hash: {HASH}}}]", "`admin` is a role"),
    ],
)
def test_what_does_not_fit_is_said(
    mistakes: Mistakes,
    text: str,
    said: str,
) -> None:
    (mistake,) = mistakes(text)
    assert said in mistake


def test_people_of_policy_are_roles(load: Load) -> None:
    config = load(
        f"humans: [{{id: a, roles: [policy_author, policy_publisher], secret_hash: {HASH}}}]"
    )
    assert config.humans[0].roles == ("policy_author", "policy_publisher")
