"""Writing answers: MCP on both wires, and REST."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.approvals.approval import State
from gateway.core.calls.answer import Answer, Completed, Pending, Refused
from gateway.core.calls.call import FilteredResult, Outcome, RecordedOutcome
from gateway.core.calls.filtering import withhold
from gateway.core.entry import Entry
from gateway.core.limits import Limits
from gateway.core.refusal import KINDS, Refusal
from gateway.protocol import mcp_reply, rest
from gateway.protocol.mcp import RequestId, Wire
from gateway.protocol.output_schema import widen
from tests.unit.approvals.conftest import build_request
from tests.unit.connectors.calls import OP, build_intent, build_tool
from tests.unit.core.test_strict_json import JSON

IDS = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**53), 2**53)
ENTRY = Entry(type="call.outcome", op=OP, fields={})


def completed(filtered: FilteredResult) -> Completed:
    outcome = Outcome(intent=build_intent(), status="ok", delivery="sent", entry=ENTRY)
    return Completed(RecordedOutcome(outcome, 1, b""), filtered)


def result_of(raw: bytes, *, is_error: bool = False) -> Completed:
    return completed(FilteredResult(result=raw, error=None, is_error=is_error))


def mcp_answer(answer: Answer, wire: Wire = "modern", request_id: RequestId = 1) -> Any:  # noqa: ANN401 - any JSON
    return orjson.loads(mcp_reply.build_answer(request_id, answer, wire, plain=False).body)


@given(IDS, st.dictionaries(st.sampled_from(["content", "a"]), JSON), st.sampled_from([b"", b" "]))
def test_a_result_is_spliced_in_as_it_came(
    request_id: RequestId,
    result: dict[str, Any],
    space: bytes,
) -> None:
    raw = space + orjson.dumps(result) + space
    legacy = mcp_reply.build_result(request_id, raw, "legacy")
    assert raw in legacy
    assert orjson.loads(legacy) == {"jsonrpc": "2.0", "id": request_id, "result": result}
    modern = orjson.loads(mcp_reply.build_result(request_id, raw, "modern"))
    assert modern["result"] == {"resultType": "complete", **result}
    assert modern["id"] == request_id


def test_a_result_type_that_is_there_is_left_alone() -> None:
    raw = b'{"resultType":"complete","content":[]}'
    assert raw in mcp_reply.build_result(1, raw, "modern")


@pytest.mark.req("GW-06")
@pytest.mark.parametrize("code", sorted(KINDS))
@pytest.mark.parametrize("wire", ["modern", "legacy"])
@pytest.mark.parametrize("request_id", [0, "", "a"])
def test_every_refusal_answers_to_its_own_id_on_either_wire(
    code: str, wire: Wire, request_id: RequestId
) -> None:
    reply = mcp_reply.build_refusal(
        request_id, Refusal("resolve", code, "/amount"), wire, op="op-1"
    )
    body = orjson.loads(reply.body)
    assert (body["jsonrpc"], body["id"], reply.code) == ("2.0", request_id, code)
    kind = KINDS[code]
    if kind.rpc is None:
        assert reply.status == 200
        assert body["result"]["isError"] is True
        assert kind.text in body["result"]["content"][0]["text"]
        assert body["result"]["_meta"]["countersign/refusal"]["op"] == "op-1"
    else:
        told = {"code": code, "stage": "resolve", "op": "op-1"}
        assert body["error"] == {
            "code": kind.rpc,
            "message": f"{kind.text}: /amount",
            "data": {"countersign/refusal": told},
        }
        assert reply.status == (
            200 if wire == "legacy" else 400 if kind.rpc == -32602 else kind.status
        )


def test_a_refusal_without_an_id_says_so() -> None:
    error = orjson.loads(
        mcp_reply.build_refusal(None, Refusal("read", "body_invalid"), "modern").body
    )
    assert error["id"] is None
    result = mcp_reply.build_refusal(None, Refusal("hold", "too_many_pending"), "modern")
    assert orjson.loads(result.body)["id"] == 0


@pytest.mark.req("GW-06")
def test_how_calls_end_over_mcp() -> None:
    assert mcp_answer(result_of(b'{"content":[]}'))["result"]["content"] == []
    error = completed(
        FilteredResult(result=None, error=b'{"code":-1,"message":"m"}', is_error=True)
    )
    assert mcp_answer(error)["error"] == {"code": -1, "message": "m"}
    withheld = mcp_answer(completed(withhold("result_withheld")))["result"]
    assert withheld["isError"] is True
    assert withheld["_meta"]["countersign/refusal"]["op"] == OP
    refused = mcp_answer(Refused("op-1", Refusal("decide", "my_own_code")))["result"]
    assert refused["content"][0]["text"] == (
        "refused (my_own_code): policy does not allow this call"
    )


@pytest.mark.req("GW-12")
def test_a_held_call_is_told_as_data_and_text_unless_the_tool_has_no_room_for_it() -> None:
    pending = Pending(build_request())
    result = mcp_answer(pending)["result"]
    assert result["isError"] is False
    assert result["structuredContent"]["status"] == "pending_approval"
    assert result["structuredContent"] == orjson.loads(result["content"][0]["text"])
    assert "more than 100" not in str(result)  # the reason's message is for approvers
    plain = orjson.loads(mcp_reply.build_answer(1, pending, "legacy", plain=True).body)["result"]
    assert plain["isError"] is True
    assert "structuredContent" not in plain
    without = mcp_reply.build_pending(build_request(reasons=()), plain=False)
    assert orjson.loads(without)["structuredContent"]["reason"] == "approval_needed"


OUTPUT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"a": {"type": "string"}},
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/a"}},
}


def test_a_listing_leaves_room_for_the_pending_result_where_a_call_may_be_held() -> None:
    definition = orjson.dumps({"name": "pay", "inputSchema": {}, "outputSchema": OUTPUT, "x": 1})
    tool = build_tool("pay", effect="money")
    tool = type(tool)(
        **{name: getattr(tool, name) for name in tool.__struct_fields__}
        | {"definition": definition}
    )
    listing = orjson.loads(mcp_reply.build_listing([tool], bare=False, wire="legacy"))
    first, last = listing["tools"]
    assert (first["name"], first["x"]) == ("srv__pay", 1)
    own, pending = first["outputSchema"]["anyOf"]
    assert own["properties"] == {"a": {"$ref": "#/$defs/a"}}
    assert first["outputSchema"]["$defs"] == OUTPUT["$defs"]
    assert pending["properties"]["status"] == {"const": "pending_approval"}
    assert last["name"] == "countersign_approval_status"
    bare = orjson.loads(mcp_reply.build_listing([tool], bare=True, wire="modern"))
    assert bare["tools"][0]["name"] == "pay"
    assert bare["resultType"] == "complete"


TEXT = {"type": "string"}
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    "output",
    [
        {"properties": {"b": TEXT, "a": {"$ref": "#/properties/b"}}},
        {"properties": {"a": {"$ref": "#/definitions/t"}}, "definitions": {"t": TEXT}},
        {
            "$schema": DRAFT_7,
            "properties": {"a": {"$ref": "#/definitions/t"}},
            "definitions": {"t": TEXT},
        },
        {"properties": {"a": {"$ref": "#/$defs/t"}}, "$defs": {"t": TEXT}},
        {
            "properties": {"a": {"$ref": "#/$defs/t"}, "b": TEXT},
            "$defs": {"t": {"$ref": "#/properties/b"}},
        },
        {"properties": {"a": {"$ref": "#t"}}, "$defs": {"t": {"$anchor": "t", **TEXT}}},
        {
            "$id": "https://tool.example/out",
            "properties": {"a": {"$ref": "#/$defs/t"}},
            "$defs": {"t": TEXT},
        },
        {"properties": {"a": TEXT, "$ref": TEXT}, "examples": [{"$ref": "#/properties/a"}]},
        {"properties": {"a": TEXT, "next": {"$ref": "#"}}},
        {"allOf": [{"properties": {"a": {"anyOf": [{"$ref": "#/not"}]}}}], "not": TEXT},
    ],
)
def test_the_schema_of_what_may_be_held_takes_what_the_tool_s_own_takes(
    output: dict[str, Any],
) -> None:
    own = {"type": "object", **output}
    wide = widen(own)
    alone, widened = jsonschema_rs.validator_for(own), jsonschema_rs.validator_for(wide)
    shown: list[dict[str, Any]] = [
        {},
        {"a": "x"},
        {"a": 5},
        {"a": "x", "b": 5},
        {"next": {"a": 5}},
        {"next": {"status": "pending_approval", "approval_id": "1", "a": 5}},
    ]
    for value in shown:
        assert widened.is_valid(value) == alone.is_valid(value), value
    assert widened.is_valid({"status": "pending_approval", "approval_id": "1"})
    assert wide.get("$schema") == own.get("$schema")
    assert wide["anyOf"][0].get("examples") == own.get("examples")


def test_a_reading_tool_keeps_its_output_schema() -> None:
    tool = build_tool("look")
    assert mcp_reply.has_pending_form(tool)
    definition = orjson.dumps({"name": "look", "inputSchema": {}, "outputSchema": OUTPUT})
    fields = {name: getattr(tool, name) for name in tool.__struct_fields__}
    reading = type(tool)(**fields | {"definition": definition})
    assert not mcp_reply.has_pending_form(reading)
    listing = orjson.loads(mcp_reply.build_listing([reading], bare=True, wire="legacy"))
    assert listing["tools"][0]["outputSchema"] == OUTPUT


def test_the_gateway_agrees_on_a_version_it_knows() -> None:
    assert orjson.loads(mcp_reply.build_initialize("2025-06-18"))["protocolVersion"] == "2025-06-18"
    strange: list[object] = ["1999-01-01", None, 5, ["2025-11-25"], {}]
    for unknown in strange:
        agreed = orjson.loads(mcp_reply.build_initialize(unknown))
        assert agreed["protocolVersion"] == "2025-11-25"
    assert orjson.loads(mcp_reply.build_discover())["supportedVersions"] == ["2026-07-28"]


# --- REST


@pytest.mark.req("GW-07")
@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"5",
        b'{"argument":{}}',
        b'{"arguments":[]}',
        b'{"arguments":null}',
        b'{"arguments":{},"claimed":5}',
        b'{"arguments":{"a":1,"a":2}}',
        b'{"arguments":{},"arguments":{}}',
        b'{"arguments":{"a":NaN}}',
    ],
)
def test_a_body_without_a_clear_meaning_is_refused(body: bytes) -> None:
    assert isinstance(rest.read_call(body, Limits()), Refusal)


def test_a_foreign_member_is_named_but_not_repeated_at_length() -> None:
    refusal = rest.read_call(b'{"%b":1}' % (b"x" * 10_000), Limits())
    assert isinstance(refusal, Refusal)
    assert len(refusal.detail) < 200


@pytest.mark.req("GW-07")
@given(st.dictionaries(st.text(max_size=3).filter(str.isascii), JSON, max_size=3))
def test_rest_arguments_keep_their_bytes(arguments: dict[str, Any]) -> None:
    raw = orjson.dumps(arguments, option=orjson.OPT_INDENT_2)
    read = rest.read_call(b'{"claimed":{"a":1}, "\\u0061rguments": %b }' % raw, Limits())
    assert not isinstance(read, Refusal)
    kept, claimed = read
    assert (kept.raw, kept.value, claimed) == (raw, arguments, {"a": 1})


def test_no_body_means_no_arguments() -> None:
    for body in (b"", b"{}"):
        read = rest.read_call(body, Limits())
        assert not isinstance(read, Refusal)
        assert (read[0].raw, read[0].value, read[1]) == (b"{}", {}, {})


@pytest.mark.req("GW-07")
def test_how_calls_end_over_rest() -> None:
    reply = rest.build_answer(result_of(b'{"content":[]}'), "op-1")
    assert (reply.status, reply.media_type) == (200, b"application/json")
    assert orjson.loads(reply.body) == {
        "id": "op-1",
        "status": "completed",
        "result": {"content": []},
    }
    failed = rest.build_answer(result_of(b"{}", is_error=True), "op-1")
    assert orjson.loads(failed.body)["status"] == "failed"
    error = completed(FilteredResult(result=None, error=b'{"code":1}', is_error=True))
    assert orjson.loads(rest.build_answer(error, "op-1").body)["error"] == {"code": 1}
    withheld = rest.build_answer(completed(withhold("result_withheld")), "op-1")
    assert (withheld.status, withheld.code) == (403, "result_withheld")
    problem = rest.build_answer(Refused("op-1", Refusal("resolve", "tool_unknown")), "op-1")
    assert (problem.status, problem.media_type) == (404, b"application/problem+json")
    assert orjson.loads(problem.body) == {
        "type": "urn:countersign:refusal:tool_unknown",
        "title": "no such tool",
        "status": 404,
        "code": "tool_unknown",
        "stage": "resolve",
        "instance": "/v1/calls/op-1",
    }


@pytest.mark.req("GW-07", "GW-12")
@pytest.mark.parametrize(
    ("state", "status", "told"),
    [
        ("PENDING", 202, "pending_approval"),
        ("APPROVED", 202, "pending_approval"),
        ("CLAIMED", 202, "pending_approval"),
        ("DISPATCHED", 202, "pending_approval"),
        ("EXECUTED", 200, "completed"),
        ("FAILED", 200, "failed"),
        ("DENIED", 200, "failed"),
        ("UNKNOWN", 200, "unknown"),
    ],
)
def test_a_held_call_is_202_until_it_ends(state: State, status: int, told: str) -> None:
    result = b'{"content":[]}' if state == "EXECUTED" else None
    reply = rest.build_held(build_request(state=state, result=result))
    body = orjson.loads(reply.body)
    assert (reply.status, body["status"], body["state"]) == (status, told, state.lower())
    assert reply.location == "/v1/calls/op-1"
    assert ("result" in body) == (state == "EXECUTED")
    pending = rest.build_answer(Pending(build_request(reasons=())), "other")
    assert orjson.loads(pending.body)["reason"] == "approval_needed"


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    ("state", "outcome", "delivery"),
    [
        ("FAILED", "not_sent", "not_sent"),
        ("FAILED", "failed", "sent"),
        ("FAILED", "tool_error", None),
        ("UNKNOWN", "failed", None),
        ("EXECUTED", "ok", None),
    ],
)
def test_who_asks_after_a_call_without_an_answer_is_told_whether_it_may_have_run(
    state: State, outcome: str, delivery: str | None
) -> None:
    body = orjson.loads(rest.build_held(build_request(state=state, outcome=outcome)).body)
    assert body.get("delivery") == delivery


def test_tools_are_listed_with_their_effect() -> None:
    body = orjson.loads(rest.build_tools((build_tool("look"),)))
    assert body["tools"][0]["name"] == "srv__look"
    assert body["tools"][0]["effect"] == "read"
