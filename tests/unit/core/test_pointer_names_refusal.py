"""Pointers, names of tools, the table of refusals, and the records of the call itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway
from gateway.core import names
from gateway.core.errors import (
    ApprovalError,
    AuditError,
    CountersignError,
    CredentialError,
    PolicyError,
    RequestError,
    UpstreamError,
)
from gateway.core.pointer import MISSING, reach, resolve, split
from gateway.core.records import call_records as records
from gateway.core.refusal import KINDS, POLICY, Refusal, is_unavailable, kind_of
from tests.unit.path.world import DENY, build_claims

SOURCES = Path(gateway.__file__).parent
PARTS = st.lists(st.text(max_size=4), max_size=4)


@given(PARTS)
def test_a_pointer_splits_into_what_it_was_made_of(parts: list[str]) -> None:
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
    assert split(pointer) == tuple(parts)
    document: object = "leaf"
    for part in reversed(parts):
        document = {part: document}
    assert resolve(document, pointer) == "leaf"


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", {"a": [1, {"b": None}]}),
        ("/a/0", 1),
        ("/a/1/b", None),
        ("/a/2", MISSING),
        ("/a/-1", MISSING),
        ("/a/-", MISSING),
        ("/a/²", MISSING),
        ("/a/0/x", MISSING),
        ("/b", MISSING),
    ],
)
def test_a_pointer_leads_to_a_value_or_nowhere(pointer: str, value: object) -> None:
    assert resolve({"a": [1, {"b": None}]}, pointer) == value


@pytest.mark.parametrize(
    ("document", "reached"),
    [
        ({"a": [{"b": 1}, {"b": 2}, {"c": 3}, None]}, [1, 2]),
        ({"a": {"x": {"b": 1}, "*": {"b": 2}}}, [1, 2]),
        ({"a": [[{"b": 1}], "x", 7]}, [[{"b": 1}], "x", 7]),
        ({"a": "x"}, ["x"]),
        ({"a": [{"b": None}]}, [None]),
        ({"a": None}, []),
        ({}, []),
    ],
)
def test_what_a_pointer_reaches_is_found_in_whatever_shape_it_is(
    document: object, reached: list[object]
) -> None:
    assert list(reach(document, split("/a/*/b"))) == reached


@pytest.mark.parametrize(
    ("document", "reached"),
    [({"a": [1]}, []), ({"a": [1, 2]}, [2]), ({"a": {"1": 2}}, [2]), ({"a": {"x": 2}}, [{"x": 2}])],
)
def test_an_index_reaches_an_item_or_the_object_in_its_place(
    document: object, reached: list[object]
) -> None:
    assert list(reach(document, split("/a/1"))) == reached


def test_a_pointer_starts_with_a_slash() -> None:
    with pytest.raises(ValueError, match="start it with `/`"):
        split("amount")
    assert repr(MISSING) == "MISSING"
    everything: list[object] = [None, False, 0, "", [], {}]
    assert MISSING not in everything


SERVERS = st.from_regex(names.SERVER_ID, fullmatch=True)
TOOLS = st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True)


@pytest.mark.req("GW-06", "GW-08")
@given(SERVERS, TOOLS, SERVERS, TOOLS)
def test_no_two_tools_share_a_wire_name(server: str, tool: str, other: str, its: str) -> None:
    first = names.build_wire_name(server, tool, prefix=True)
    second = names.build_wire_name(other, its, prefix=True)
    assert (first == second) == ((server, tool) == (other, its))
    assert names.build_policy_id(server, tool) == f"{server}.{tool}"
    assert names.build_wire_name(server, tool, prefix=False) == tool


@pytest.mark.parametrize("text", ["", "Billing", "9a", "a_b", "a/b", "a\n", "a" * 33, "ä", "a.b"])
def test_what_may_not_name_a_server(text: str) -> None:
    assert not names.is_server_id(text)


@pytest.mark.req("GW-06")
@pytest.mark.parametrize(
    "text", ["", "a.b", "a b", "a\n", "a" * 65, "ä", names.STATUS_TOOL, "countersign_x"]
)
def test_what_may_not_name_a_tool(text: str) -> None:
    assert not names.is_wire_name(text)
    assert names.is_wire_name("billing__refund")


def refusal_codes() -> set[str]:
    """The literal codes of every `Refusal(stage, code)` in the gateway."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                literal = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
                found.update(str(code) for code in literal)
    return found


def test_every_refusal_of_the_gateway_is_in_the_table() -> None:
    codes = refusal_codes()
    assert {"tool_unknown", "body_too_large"} <= codes
    assert codes - KINDS.keys() == set()


@pytest.mark.parametrize(
    "error", [RequestError, CredentialError, PolicyError, AuditError, ApprovalError]
)
def test_every_error_of_the_call_path_has_a_code_in_the_table(
    error: type[CountersignError],
) -> None:
    assert error("what went wrong").code in KINDS
    assert UpstreamError("gone", delivery="unknown").code in KINDS
    assert CountersignError("oops").code in KINDS


def test_the_table_tells_statuses_that_exist_and_texts_that_say_what_to_read() -> None:
    for code, kind in KINDS.items():
        assert 400 <= kind.status < 600, code
        assert kind.text == kind.text.strip(" .")


def test_a_code_that_an_author_chose_is_told_as_a_policy_refusal() -> None:
    assert kind_of("over_my_budget", "decide") == POLICY
    assert kind_of("token_expired", "decide") == POLICY  # nobody is sent off for a new token
    assert kind_of("token_expired", "authenticate").status == 401
    assert kind_of("calls_exhausted", "decide") == KINDS["calls_exhausted"]
    assert kind_of("policy_timeout", "decide").status == 503
    assert kind_of("anything") == POLICY
    assert is_unavailable(Refusal("decide", "policy_worker_died"))
    assert not is_unavailable(Refusal("decide", "audit_unavailable"))


@pytest.mark.req("GW-13", "GW-14")
def test_no_value_stands_in_a_record_of_a_refusal() -> None:
    claims = build_claims()
    entry = records.build_refused(
        "op",
        Refusal("resolve", "arguments_invalid", "/amount"),
        claims=claims,
        name="canary-name",
        arguments=b'"canary-argument"',
        decision=DENY,
        document=b'"canary-document"',
    )
    assert "canary" not in str(entry.fields)
    assert "a detail for the log" not in str(entry.fields)
    assert {opening.path: opening.value for opening in entry.openings} == {
        "asked": b"canary-name",
        "policy.input": b'"canary-document"',
        "args": b'"canary-argument"',
    }
    assert {opening.subject for opening in entry.openings} == {"olga"}


def test_a_name_that_is_no_text_is_still_recorded() -> None:
    refusal = Refusal("resolve", "tool_unknown")
    entry = records.build_refused("op", refusal, claims=build_claims(), name="\ud800x")
    assert entry.openings[0].value == b"?x"


def test_the_data_subject_is_the_human_then_the_owner_then_the_agent() -> None:
    assert records.data_subject(build_claims()) == "olga"
    assert records.data_subject(build_claims(on_behalf_of=None)) == "otto"
    assert records.data_subject(build_claims(on_behalf_of=None, owner="")) == "refund-bot"


def test_an_orphan_is_written_once() -> None:
    entry = records.build_orphan("op-1", 7, "approval-1")
    assert entry.event_id == records.build_orphan("op-1", 7, None).event_id
    assert entry.fields == {"intent": 7, "effect": "unknown", "approval": "approval-1"}
