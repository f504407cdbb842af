"""Opening a value is a record with a purpose, and shows no more than it must (AUD-06)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.core.entry import Entry, Opening
from tests.unit.audit_admin.conftest import Desk

pytestmark = pytest.mark.req("AUD-06")
ROUTE = "/v1/audit/openings"
ARGS = b'{"iban":"DE1","note":"rent"}'
INPUT = b'{"resource":{"sensitive":["/note"]},"context":{"args":%b,"now_ns":1}}' % ARGS


async def ask(
    desk: Desk, seq: int, path: str = "args", who: str = "aud", **more: object
) -> httpx.Response:
    return await desk.post(who, ROUTE, seq=seq, path=path, purpose="case 7", **more)


def value_of(answer: httpx.Response) -> Any:  # noqa: ANN401 - JSON
    assert answer.status_code == 200, answer.text
    return json.loads(answer.json()["value"])


async def test_an_opening_is_on_record_with_its_purpose_before_it_is_shown(desk: Desk) -> None:
    seq = await desk.keep()
    answer = await ask(desk, seq)
    record = desk.records()[-1]
    assert (record["type"], record["what"], record["records"]) == ("audit.read", "opening", 1)
    assert (record["first"], record["last"], record["path"]) == (seq, seq, "args")
    assert record["masked"] is True
    assert desk.log.read_opening(record["seq"], "by") == b"aud"
    assert desk.log.read_opening(record["seq"], "purpose") == b"case 7"
    shown = answer.json()
    assert shown["record"] == record["seq"]
    assert shown["commitment"] == desk.log.read_record(seq)["args"]  # type: ignore[index]
    assert answer.headers["cache-control"] == "no-store"


async def test_nothing_is_shown_that_could_not_be_recorded(desk: Desk) -> None:
    seq = await desk.keep()
    desk.log.overload()
    answer = await ask(desk, seq)
    assert answer.status_code == 503
    assert b"iban" not in answer.content
    assert (await desk.post("ada", "/v1/audit/redactions")).status_code == 400


async def test_what_reviewers_call_sensitive_is_masked(desk: Desk) -> None:
    seq = await desk.keep(args=ARGS)
    assert value_of(await ask(desk, seq)) == {"iban": "[masked]", "note": "rent"}


async def test_what_they_called_sensitive_when_it_was_recorded_is_masked_too(desk: Desk) -> None:
    seq = await desk.keep(args=ARGS, policy__input=INPUT)
    masked = {"iban": "[masked]", "note": "[masked]"}
    assert value_of(await ask(desk, seq)) == masked
    assert value_of(await ask(desk, seq, "policy.input"))["context"]["args"] == masked


@pytest.mark.req("POL-10")
async def test_inputs_of_questions_are_masked_by_the_tools_that_they_name(desk: Desk) -> None:
    asked = b'{"phase":"call","resource":{"id":"pay.transfer","sensitive":["/note"]}'
    asked += b',"context":{"args":%b}}' % ARGS
    seq = await desk.keep(inputs__q0=asked, inputs__q1=b"{}", asked__q2=b'{"args":{"iban":1}}')
    shown = value_of(await ask(desk, seq, "inputs.q0"))["context"]["args"]
    assert shown == {"iban": "[masked]", "note": "[masked]"}
    for path in ("inputs.q1", "asked.q2"):
        assert value_of(await ask(desk, seq, path)) == "[masked]"


async def test_all_arguments_of_a_tool_that_nobody_knows_are_masked(desk: Desk) -> None:
    seq = await desk.keep(args=ARGS)
    desk.sensitive.clear()
    assert value_of(await ask(desk, seq)) == "[masked]"


async def test_an_admin_who_asks_sees_all_and_the_record_says_so(desk: Desk) -> None:
    seq = await desk.keep(args=ARGS)
    answer = await ask(desk, seq, who="ada", unmasked=True)
    assert value_of(answer) == {"iban": "DE1", "note": "rent"}
    assert desk.records()[-1]["masked"] is False
    assert value_of(await ask(desk, seq, who="ada"))["iban"] == "[masked]"


async def test_only_admins_see_what_is_masked(desk: Desk) -> None:
    seq = await desk.keep(args=ARGS)
    before = len(desk.records())
    answer = await ask(desk, seq, unmasked=True)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")
    assert len(desk.records()) == before


@pytest.mark.parametrize("who", ["ann", "otto"])
async def test_others_open_nothing(desk: Desk, who: str) -> None:
    assert (await ask(desk, await desk.keep(), who=who)).status_code == 403


async def test_a_stranger_opens_nothing(desk: Desk) -> None:
    answer = await ask(desk, await desk.keep(), who="mallory")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("seq", "path"), [(99, "args"), (2, "tool.id"), (2, "x.y"), (0, "args")])
async def test_what_is_not_there_is_not_found_and_not_recorded(
    desk: Desk, seq: int, path: str
) -> None:
    await desk.keep()
    answer = await ask(desk, seq, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "opening_not_found")
    assert not desk.records("audit.read")


async def test_what_was_erased_is_gone(desk: Desk) -> None:
    seq = await desk.keep()
    entry = Entry(type="redact", op="o", fields={}, event_id="e")
    await desk.log.redact(entry, desk.log.key_id("olga"))
    answer = await ask(desk, seq)
    assert (answer.status_code, answer.json()["code"]) == (410, "opening_erased")
    assert "erased" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seq": 1, "path": "args"},
        {"seq": -1, "path": "args", "purpose": "x"},
        {"seq": 1, "path": "", "purpose": "x"},
        {"seq": 1, "path": "args", "purpose": " "},
        {"seq": 1, "path": "args", "purpose": "x" * 2001},
        {"seq": "1", "path": "args", "purpose": "x"},
        {"seq": 1, "path": "args", "purpose": "x", "who": "me"},
    ],
)
async def test_a_request_without_a_record_a_path_and_a_purpose_is_refused(
    desk: Desk, body: dict[str, object]
) -> None:
    answer = await desk.post("aud", ROUTE, **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "request_invalid")


async def outcome(
    desk: Desk, result: bytes = b'{"content":[]}', *, seen: bytes = b"", **fields: object
) -> int:
    """Record how a call ended. `seen`: what policy was asked of the result."""
    openings = [Opening("result", result, "olga")]
    if seen:
        openings.append(Opening("policy.input", seen, "olga"))
    known: dict[str, object] = {"intent": await desk.keep(), "status": "ok"} | fields
    entry = Entry(type="call.outcome", op="1", fields=known, openings=tuple(openings))
    return (await desk.log.record(entry)).seq


async def show(desk: Desk, seq: int) -> Any:  # noqa: ANN401 - JSON
    return value_of(await ask(desk, seq, "result"))


def text(value: object) -> dict[str, object]:
    return {"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}


ROWS = {"rows": [{"iban": "DE1", "sum": 5}, {"iban": "DE2"}]}
HIDDEN_ROWS = {"rows": [{"iban": "[masked]", "sum": 5}, {"iban": "[masked]"}]}
RESULT = json.dumps({"structuredContent": ROWS, "content": [text(ROWS), text("it is DE1")]})
NAMING = b'{"resource":{"sensitive_out":["/rows/*/iban"]},"context":{}}'


async def test_what_reviewers_call_sensitive_in_answers_is_masked_with_what_repeats_it(
    desk: Desk,
) -> None:
    desk.sensitive_out["pay.transfer"] = ("/rows/*/iban",)
    shown = await show(desk, await outcome(desk, RESULT.encode()))
    assert shown["structuredContent"] == HIDDEN_ROWS
    assert json.loads(shown["content"][0]["text"]) == HIDDEN_ROWS
    assert "DE1" not in json.dumps(shown)


async def test_what_they_called_sensitive_in_answers_at_that_time_is_masked_too(
    desk: Desk,
) -> None:
    desk.sensitive_out["pay.transfer"] = ("/other",)
    by_intent = await outcome(desk, RESULT.encode(), intent=await desk.keep(policy__input=NAMING))
    by_result = await outcome(desk, RESULT.encode(), seen=NAMING)
    for _ in range(2):
        for seq in (by_intent, by_result):
            assert (await show(desk, seq))["structuredContent"] == HIDDEN_ROWS
        desk.sensitive_out.clear()  # the manifest is gone, what was recorded still counts


async def test_a_result_is_masked_whole_where_nobody_knows_what_is_sensitive_in_it(
    desk: Desk,
) -> None:
    desk.sensitive_out.clear()
    for unnamed in (b"{", b'{"resource":{"sensitive_out":1}}'):
        assert await show(desk, await outcome(desk, seen=unnamed)) == "[masked]"
    desk.sensitive_out["pay.transfer"] = ()
    for intent in ("2", 99, await desk.keep()):
        shown = "[masked]" if intent in {"2", 99} else {"content": []}
        assert await show(desk, await outcome(desk, intent=intent)) == shown


@pytest.mark.parametrize(
    ("pointers", "result"),
    [
        (("/iban",), b'{"code":-32000,"message":"no account DE1"}'),
        (("/iban",), b'["DE1"]'),
        (("/iban",), b"DE1"),
        (("iban",), b'{"structuredContent":{"iban":"DE1"}}'),
    ],
)
async def test_what_is_no_result_and_what_is_no_pointer_shows_nothing(
    desk: Desk, pointers: tuple[str, ...], result: bytes
) -> None:
    desk.sensitive_out["pay.transfer"] = pointers
    assert await show(desk, await outcome(desk, result)) == "[masked]"


async def test_an_admin_who_asks_sees_all_of_a_result(desk: Desk) -> None:
    desk.sensitive_out["pay.transfer"] = ("/rows/*/iban",)
    seq = await outcome(desk, RESULT.encode())
    answer = await ask(desk, seq, "result", who="ada", unmasked=True)
    assert value_of(answer) == json.loads(RESULT)


async def test_a_result_of_which_policy_hid_a_part_is_masked(desk: Desk) -> None:
    cases: list[tuple[dict[str, Any], object]] = [
        ({"status": "ok"}, {"content": []}),
        ({"status": "ok", "obligations": ["annotate", "limit_result"]}, {"content": []}),
        ({"status": "ok", "obligations": ["redact"]}, "[masked]"),
        ({"status": "ok", "obligations": ["mask", "annotate"]}, "[masked]"),
        ({"status": "withheld"}, "[masked]"),
    ]
    for fields, shown in cases:
        seq = await outcome(desk, **fields)
        assert await show(desk, seq) == shown, fields


async def test_who_did_it_is_shown_as_it_is(desk: Desk) -> None:
    seq = await desk.keep(voter=b"ann", reason=b"looks right")
    assert (await ask(desk, seq, "voter")).json()["value"] == "ann"


async def test_bytes_that_are_no_text_come_in_base64(desk: Desk) -> None:
    seq = await desk.keep(asked=b"\xff\x00")
    shown = (await ask(desk, seq, "asked")).json()
    assert (shown["value"], shown["encoding"]) == ("/wA=", "base64")
