"""The forms of an export, against the schemas that their readers have."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.canonical import encode_record
from gateway.core.log.exports import (
    COLUMNS,
    Line,
    csv_header,
    write_cloudevent,
    write_csv,
    write_jsonl,
)
from gateway.core.log.exports_ocsf import build_event, write_ocsf
from gateway.core.log.merkle import hash_leaf

pytestmark = pytest.mark.req("AUD-09")

SCHEMAS = Path(__file__).parent / "schemas"
OCSF = json.loads((SCHEMAS / "ocsf_1.8.0_api_activity.json").read_text())
is_ocsf = jsonschema_rs.validator_for(OCSF)
is_cloudevent = jsonschema_rs.validator_for(
    json.loads((SCHEMAS / "cloudevents_1.0.json").read_text()), validate_formats=True
)
HEAD = {
    "v": 1,
    "log": "gateway.example.com:8443/audit",
    "prev": "0" * 64,
    "boot": "b",
    "ts": 1_700_000_000_123_456,
}
ACTOR = {"agent": "bot", "client": "launcher", "run": "r1", "root": "r1", "jti": "j", "depth": 0}
TOOL = {"id": "shop.refund", "server": "shop", "def": "sha256:00", "effect": "money"}
INPUT = {"rev": "sha256:11", "input": {"c": "x", "bytes": 1}}


def record(kind: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {**HEAD, "type": kind, "seq": 7, "op": "op-1", **fields}


def decided(outcome: str, *reasons: str) -> dict[str, Any]:
    return {"decision": {"outcome": outcome, "reasons": list(reasons)}, "policy": INPUT}


PERMIT, DENY, HOLD = decided("permit", "shop:ok"), decided("deny", "shop:no"), decided("hold")
CALL = {"actor": ACTOR, "tool": TOOL}
HELD = {"approval": "a1", "agent": "bot", "run": "r1", "tool": {"id": "shop.refund"}}
RUN = {"agent": "bot", "client": "launcher", "run": "r1"}
RECORDS = [
    record("genesis", seq=0, key="k", profile="countersign.audit/v1", deployment={}),
    record("boot", seq=1, key="k", cut=None, open_intents=0),
    record("clock.step", behind_us=200_000),
    record("call.intent", **CALL, surface="mcp", **PERMIT),
    record("call.intent", actor=ACTOR, tool={**TOOL, "effect": "read"}, **PERMIT),
    record("call.outcome", intent=7, status="ok", delivery="sent", latency_us=5),
    record("call.outcome", intent=7, status="failed", delivery="unknown", reason="timeout"),
    record("call.outcome", intent=7, status="tool_error", delivery="sent"),
    record("call.refused", stage="authenticate", reason="token_missing", count=3),
    record("call.refused", stage="decide", reason="no", count=1, **CALL, **DENY),
    record("call.orphan", intent=7, effect="unknown"),
    record("approval.request", **HELD, state="PENDING", **HOLD),
    record("approval.vote", **HELD, decision="approve", voter={"c": "x", "bytes": 3}),
    record("run.create", **RUN, **PERMIT),
    record("token.refused", agent="bot", client="launcher", reason="issue_held", **HOLD),
    record("token.revoke", jti="j", reason="command"),
    record("policy.activate", rev="sha256:11", packages=["shop"]),
    record("tools.list", actor=ACTOR, policy={"rev": "sha256:11"}, shown=3),
    record("audit.export", format="csv", digest="00"),
    record("something.new", agent=5, tool="x", decision=True, reason=["y"]),
]


def line_of(fields: dict[str, Any]) -> Line:
    return Line(encode_record(fields), fields)


LINES = [line_of(fields) for fields in RECORDS]
IDS = [f"{fields['type']}-{number}" for number, fields in enumerate(RECORDS)]


def rows(*lines: Line) -> list[dict[str, str]]:
    data = csv_header() + b"".join(map(write_csv, lines))
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


@pytest.mark.parametrize("line", LINES, ids=IDS)
def test_an_ocsf_event_fits_the_class_api_activity(line: Line) -> None:
    event = orjson.loads(write_ocsf(line))
    errors = [f"{error.instance_path}: {error.message}" for error in is_ocsf.iter_errors(event)]
    assert errors == []
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    for name, captions in OCSF["x-captions"].items():
        of = event.get(f"{name}_id", event.get("activity_id") if name == "activity_name" else None)
        if name in event and of != 99:
            assert event[name] == captions[str(of)]


def test_an_ocsf_event_says_what_was_decided_and_done() -> None:
    refused = build_event(LINES[9])
    assert (refused["activity_id"], refused["activity_name"]) == (99, "money")
    assert (refused["action"], refused["disposition"], refused["status"]) == (
        *("Denied", "Blocked"),
        "Failure",
    )
    assert refused["actor"] == {"app_name": "bot", "app_uid": "bot", "session": {"uid": "r1"}}
    assert refused["api"]["operation"] == "shop.refund"
    assert refused["status_detail"] == "shop:no no"
    assert refused["policy"]["uid"] == "sha256:11"
    assert refused["time"] == 1_700_000_000_123
    assert [build_event(line)["status"] for line in LINES[5:8]] == ["Success", "Unknown", "Failure"]
    assert build_event(LINES[4])["type_uid"] == 600_302
    assert build_event(LINES[11])["disposition"] == "Delayed"


@pytest.mark.parametrize("line", LINES, ids=IDS)
def test_a_cloudevent_fits_its_schema_and_holds_the_line(line: Line) -> None:
    written = write_cloudevent(line)
    event = orjson.loads(written)
    is_cloudevent.validate(event)
    assert event["specversion"] == "1.0"
    assert event["time"] == "2023-11-14T22:13:20.123456Z"
    assert event["source"] == "gateway.example.com%3A8443/audit"
    assert all(name.isalnum() and name.islower() for name in event)
    assert written.endswith(b',"data":' + line.raw + b"}\n")


@pytest.mark.parametrize("line", LINES, ids=IDS)
def test_each_row_can_be_proven_by_its_leaf(line: Line) -> None:
    leaf = hash_leaf(line.raw).hex()
    event, cloud = orjson.loads(write_ocsf(line)), orjson.loads(write_cloudevent(line))
    (row,) = rows(line)
    seq = line.record["seq"]
    assert write_jsonl(line) == line.raw + b"\n"
    assert event["metadata"]["uid"] == event["unmapped"]["leaf"] == leaf
    assert hash_leaf(event["raw_data"].encode()).hex() == leaf
    assert (event["unmapped"]["log"], event["unmapped"]["seq"]) == (HEAD["log"], seq)
    assert cloud["leaf"] == leaf
    assert cloud["sequence"] == f"{seq:020d}"
    assert (row["log"], row["seq"], row["leaf"]) == (HEAD["log"], str(seq), leaf)


def test_a_row_of_csv_says_the_same_in_every_column() -> None:
    row = rows(LINES[9])[0]
    assert list(row) == list(COLUMNS)
    assert row["time"] == "2023-11-14T22:13:20.123456Z"
    assert (row["agent"], row["client"], row["run"]) == ("bot", "launcher", "r1")
    assert (row["tool"], row["effect"], row["decision"]) == ("shop.refund", "money", "deny")
    assert row["reasons"] == "shop:no no"
    assert rows(line_of({"seq": 1, "type": "x"}))[0]["time"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_is_no_formula(start: str) -> None:
    hostile = f"{start}cmd|' /C calc'!A0"
    (row,) = rows(line_of(record("call.refused", actor={**ACTOR, "agent": hostile})))
    assert row["agent"] == f"'{hostile}"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_every_text_comes_back_from_csv(text: str) -> None:
    written = write_csv(line_of(record("x", op=text)))
    assert written.endswith(b"\r\n")
    (row,) = rows(line_of(record("x", op=text)))
    assert row["op"].removeprefix("'") == text.removeprefix("'")
    assert not row["op"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
