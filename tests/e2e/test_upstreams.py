"""Upstreams that are slow, false or gone: a clear error, and an outcome that is honest about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.served import Served
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-13", "GW-09")


@pytest.fixture(scope="module")
def gone() -> Iterator[Stub]:
    """A stub that is there when the gateway starts, and not afterwards."""
    running = Stub()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gateway(build_site: Build, start_here: Start, stub: Stub, gone: Stub, acme: Acme) -> Served:
    """A gateway with little patience and little room for answers."""
    site = build_site(
        urls={"stub": stub.url, "gone": gone.url, "acme": acme.url},
        listings={"gone": gone.listing()},
        limits={"upstream_timeout_ms": 700, "result_max_bytes": 100_000},
    )
    served = start_here(site, step="never").wait_ready()
    gone.stop()
    return served


@pytest.mark.parametrize(
    ("tool", "code", "delivery"),
    [
        ("stub__html", "upstream_protocol", "sent"),
        ("stub__other_id", "upstream_protocol", "sent"),
        ("stub__garbage", "upstream_protocol", "sent"),
        ("stub__huge", "result_too_large", "sent"),
        ("stub__hang_up", "upstream_unavailable", "unknown"),
        ("stub__broken", "upstream_unavailable", "unknown"),
        ("stub__slow", "upstream_timeout", "unknown"),
        ("gone__echo", "upstream_unavailable", "not_sent"),
    ],
)
@pytest.mark.parametrize("surface", ["mcp", "rest"])
def test_an_answer_that_cannot_be_used_is_told_and_recorded_as_what_it_is(
    gateway: Served, stub: Stub, *, surface: str, tool: str, code: str, delivery: str
) -> None:
    name, status = tool.partition("__")[2], 504 if code == "upstream_timeout" else 502
    stub.released.clear()
    agent, before = gateway.agent(), stub.calls[name]
    with gateway.adding() as added:
        if surface == "mcp":
            reply = agent.call(tool)
            assert (reply.status, reply.code) == (200, code)
        else:
            answer = agent.rest(tool)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.json()["delivery"] == delivery
            assert agent.get(answer.json()["instance"]).json() == answer.json()
    stub.released.set()
    assert [record["type"] for record in added] == ["call.intent", "call.outcome"]
    outcome = added[1]
    assert (outcome["status"], outcome["delivery"]) == ("failed", delivery)
    assert outcome["reason"] == code
    assert stub.calls[name] == before + (0 if tool.startswith("gone") else 1)


def test_what_was_not_sent_is_not_counted(gateway: Served) -> None:
    agent = gateway.agent(
        grants=[
            {"server": "gone", "tool": "echo", "max_calls": 1},
            {"server": "stub", "tool": "hang_up", "max_calls": 1},
        ]
    )
    assert [agent.call("gone__echo").code for _ in range(2)] == ["upstream_unavailable"] * 2
    codes = [agent.call("stub__hang_up").code for _ in range(2)]
    assert codes == ["upstream_unavailable", "calls_exhausted"]


def test_others_are_served_while_one_upstream_hangs(gateway: Served, acme: Acme) -> None:
    before = acme.rows("notes")
    reply = gateway.agent().call("acme__notes_add", {"customer_id": "cus_1001", "body": "well"})
    assert not reply.result["isError"]
    assert acme.rows("notes") == before + 1
