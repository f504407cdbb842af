"""Requests that cannot be read, or ask for what is not there: over the wire, on every surface."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.core.refusal import KINDS
from tests.e2e.callers import Agent, build_call, call_with
from tests.e2e.conftest import Acme
from tests.e2e.served import Served
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-06", "GW-07")

NOTE = b'"customer_id":"cus_1001"'
DEEP = b"[" * 2_000 + b"]" * 2_000
ARGUMENTS = {
    "the wrong type": (b'{"customer_id":1001,"body":"canary"}', "arguments_invalid"),
    "a missing argument": (b"{%b}" % NOTE, "arguments_invalid"),
    "an extra field": (b'{%b,"body":"canary","bcc":"x"}' % NOTE, "arguments_invalid"),
    "a duplicate key": (b'{%b,"body":"canary","body":"y"}' % NOTE, "body_invalid"),
    "not a number": (b'{%b,"body":NaN}' % NOTE, "body_invalid"),
    "infinity": (b'{%b,"body":-Infinity}' % NOTE, "body_invalid"),
    "a lone surrogate": (b'{%b,"body":"\\ud800"}' % NOTE, "body_invalid"),
    "an integer beyond 2^53": (b'{%b,"body":9007199254740993}' % NOTE, "body_invalid"),
    "invalid UTF-8": (b'{%b,"body":"\xff\xfe"}' % NOTE, "body_invalid"),
    "2,000 levels": (b'{%b,"body":%b}' % (NOTE, DEEP), "body_invalid"),
    "5 MB": (b'{%b,"body":"%b"}' % (NOTE, b"x" * 5_000_000), "body_too_large"),
    "300 KB": (b'{%b,"body":"%b"}' % (NOTE, b"x" * 300_000), "arguments_too_large"),
    "no object": (b"[]", "params_invalid"),
}


@pytest.fixture
def agent(house: Served) -> Agent:
    return house.agent()


@pytest.fixture
def nothing_happens(acme: Acme, stub: Stub) -> Iterator[None]:
    """Fail where a row or a call has come in during the test."""
    before = acme.counts(), stub.calls.copy()
    yield
    assert (acme.counts(), stub.calls) == before


def send(agent: Agent, surface: str, tool: str, arguments: bytes) -> tuple[int, str, str]:
    """Send a call with these bytes as arguments; return HTTP status, code and text."""
    if surface == "rest":
        answer = agent.rest_raw(tool, b'{"arguments":' + arguments + b"}")
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == answer.status_code
        return answer.status_code, problem["code"], problem["title"]
    if surface == "modern":
        reply = agent.post(call_with(tool, arguments), tool)
    else:
        reply = agent.post_legacy(call_with(tool, arguments, modern=False))
    text = json.dumps(reply.body)
    assert KINDS[reply.code].text in text
    return reply.status, reply.code, KINDS[reply.code].text


@pytest.mark.parametrize("surface", ["modern", "legacy", "rest"])
@pytest.mark.parametrize("case", ARGUMENTS)
@pytest.mark.usefixtures("nothing_happens")
def test_bad_arguments_are_refused_with_one_record(
    house: Served, agent: Agent, surface: str, case: str
) -> None:
    arguments, code = ARGUMENTS[case]
    if surface == "legacy":
        agent.post_legacy(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    with house.adding() as added:
        status, told, text = send(agent, surface, "acme__notes_add", arguments)
    kind = KINDS[code]
    assert (told, text) == (code, kind.text)
    answered = kind.rpc is None or (surface, code) == ("legacy", "params_invalid")
    assert status == (200 if answered and surface != "rest" else kind.status)
    assert [(r["type"], r["reason"]) for r in added] == [("call.refused", code)]
    assert added[0]["actor"]["agent"] == "helper"
    assert "canary" not in json.dumps(added)


@pytest.mark.parametrize(("surface", "status"), [("modern", 400), ("legacy", 200), ("rest", 404)])
@pytest.mark.usefixtures("nothing_happens")
def test_an_unknown_tool_is_refused_with_one_record(
    house: Served, agent: Agent, surface: str, status: int
) -> None:
    agent.post_legacy(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    with house.adding() as added:
        assert send(agent, surface, "acme__refunds", b"{}")[:2] == (status, "tool_unknown")
    assert [(r["stage"], r["reason"]) for r in added] == [("resolve", "tool_unknown")]
    assert set(added[0]["asked"]) == {"c", "bytes"}


@pytest.mark.usefixtures("nothing_happens")
def test_a_header_that_names_another_tool_is_refused(house: Served, agent: Agent) -> None:
    body = build_call("acme__notes_add", {"customer_id": "cus_1001", "body": "canary"})
    with house.adding() as added:
        reply = agent.post(body, "acme__orders_get")
    assert (reply.status, reply.body["error"]["code"]) == (400, -32020)
    assert reply.body["id"] == 7
    assert [(r["stage"], r["reason"]) for r in added] == [("read", "header_mismatch")]


@pytest.mark.usefixtures("nothing_happens")
def test_the_old_wire_does_not_hide_another_tool_behind_a_header(
    house: Served, agent: Agent
) -> None:
    agent.post_legacy(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    agent.auth["Mcp-Name"] = "acme__orders_get"
    body = call_with("acme__notes_add", b'{%b,"body":"x"}' % NOTE, modern=False)
    with house.adding() as added:
        assert agent.post_legacy(body).code == "header_mismatch"
    assert [record["reason"] for record in added] == ["header_mismatch"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\x00", b'{"jsonrpc":"2.0"}'])
@pytest.mark.usefixtures("nothing_happens")
def test_what_is_no_message_is_refused_with_one_record(
    house: Served, agent: Agent, body: bytes
) -> None:
    with house.adding() as added:
        reply = agent.post(body, "acme__orders_get")
    assert reply.status == 400
    assert [(r["type"], r["stage"]) for r in added] == [("call.refused", "read")]


@pytest.mark.usefixtures("nothing_happens")
def test_a_page_of_another_origin_is_refused(house: Served, agent: Agent) -> None:
    body = build_call("acme__orders_get", {"order_id": "ord_5001"})
    with house.adding() as added:
        reply = agent.post(body, "acme__orders_get", Origin="https://evil.example")
    assert reply.status == 403
    assert [record["reason"] for record in added] == ["origin_forbidden"]
