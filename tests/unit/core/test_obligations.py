"""Obligations: read strictly, met on results exactly as told, or the result is withheld."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.call import FilteredResult, UpstreamResult
from gateway.core.calls.filtering import REDACTED, apply_obligations
from gateway.core.calls.rewriting import MASKED
from gateway.core.policy.decision import OBLIGATIONS, Deny, Obligation, Permit
from gateway.core.policy.obligations import find_fault
from gateway.core.policy.policy_answer import read_answer

pytestmark = pytest.mark.req("POL-01")

GOOD: list[dict[str, Any]] = [
    {"type": "redact", "pointers": ["/a", "/rows/*/b"]},
    {"type": "mask", "pointers": ["/iban"]},
    {"type": "mask", "pointers": ["/iban"], "keep_last": 4},
    {"type": "mask", "pointers": ["/iban"], "tag": True},
    {"type": "truncate", "max_bytes": 0},
    {"type": "truncate", "max_bytes": 10, "pointers": ["/note"]},
    {"type": "limit_result", "max_bytes": 10},
    {"type": "add_label", "labels": ["pii", "from-crm"]},
    {"type": "notify", "channel": "security"},
    {"type": "require_idempotency_key"},
    {"type": "require_idempotency_key", "pointer": "/key"},
    {"type": "limit", "max_calls": 0},
    {"type": "limit", "max_calls": 256, "window": "24h"},
    {"type": "annotate", "anything": {"at": ["all"]}},
]
BAD: list[dict[str, Any]] = [
    {"type": "redact"},
    {"type": "redact", "pointers": []},
    {"type": "redact", "pointers": "/a"},
    {"type": "redact", "pointers": ["a"]},
    {"type": "redact", "pointers": ["/a"], "deep": True},
    {"type": "mask", "pointers": ["/a"], "keep_last": -1},
    {"type": "mask", "pointers": ["/a"], "keep_last": 17},
    {"type": "mask", "pointers": ["/a"], "keep_last": 4, "tag": True},
    {"type": "mask", "pointers": ["/a"], "keep_last": True},
    {"type": "truncate", "max_bytes": -1},
    {"type": "truncate", "max_bytes": 1.5},
    {"type": "limit_result", "bytes": 10},
    {"type": "add_label", "labels": []},
    {"type": "add_label", "labels": ["Loud"]},
    {"type": "add_label", "label": "pii"},
    {"type": "add_label", "labels": ["x"] * 17},
    {"type": "notify"},
    {"type": "notify", "channel": "a b"},
    {"type": "require_idempotency_key", "pointer": "key"},
    {"type": "require_idempotency_key", "header": "X"},
    {"type": "limit", "max_calls": "3"},
    {"type": "limit", "max_calls": 3, "window": "10 minutes"},
    {"type": "limit", "max_calls": 3, "window": "25h"},
    {"type": "limit", "max_calls": 257, "window": "1h"},
]


def answer(*obligations: object) -> bytes:
    body = {"outcome": "permit", "reasons": [], "obligations": list(obligations)}
    return json.dumps(body).encode()


@pytest.mark.parametrize("spec", GOOD, ids=str)
def test_an_obligation_in_the_right_words_is_understood(spec: dict[str, Any]) -> None:
    decision = read_answer(answer(spec), "r")
    assert isinstance(decision, Permit)
    assert decision.obligations == (Obligation(spec["type"], spec),)


@pytest.mark.parametrize("spec", BAD, ids=str)
def test_an_obligation_in_other_words_denies_before_anything_is_sent(spec: dict[str, Any]) -> None:
    decision = read_answer(answer(spec), "r")
    assert isinstance(decision, Deny)
    (reason,) = decision.reasons
    assert reason.code == "obligation_invalid"
    assert reason.message.startswith(f"`{spec['type']}`")
    assert apply_obligations(
        UpstreamResult(result=b"{}"), [Obligation(spec["type"], spec)]
    ).withheld or (spec["type"] in {"add_label", "notify", "require_idempotency_key", "limit"})


def test_every_type_is_tried_above() -> None:
    assert {spec["type"] for spec in GOOD} == OBLIGATIONS
    assert find_fault({"type": "levitate"}) == "it is none that the gateway can meet"


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(sorted(OBLIGATIONS - {"annotate"}))},
        optional={
            name: st.none()
            | st.booleans()
            | st.integers()
            | st.text(max_size=4)
            | st.lists(st.text(max_size=3))
            for name in ("pointers", "max_bytes", "labels", "channel", "max_calls", "window", "tag")
        },
    )
)
def test_words_of_wrong_types_never_raise_and_permit_only_what_is_understood(
    spec: dict[str, Any],
) -> None:
    decision = read_answer(answer(spec), "r")
    assert isinstance(decision, Permit) == (find_fault(spec) is None)


def result(text: str | None = None, **structured: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    body: dict[str, Any] = {"content": []}
    if structured:
        body["structuredContent"] = structured
    if structured or text is not None:
        shown = orjson.dumps(structured).decode() if text is None else text
        body["content"] = [{"type": "text", "text": shown}]
    return body


def obliged(body: object, kind: str, **spec: Any) -> FilteredResult:  # noqa: ANN401 - any JSON
    return apply_obligations(
        UpstreamResult(result=orjson.dumps(body)),
        [Obligation(kind, {"type": kind, **spec})],
        lambda text: f"<{text[::-1]}>",
    )


def shown(found: FilteredResult) -> dict[str, Any]:
    assert found.withheld is None
    assert found.result is not None
    body: dict[str, Any] = orjson.loads(found.result)
    return body


@pytest.mark.parametrize(
    ("value", "keep", "expected"),
    [
        ("DE89370400440532013000", 4, "****3000"),
        ("DE89370400440532013000", 0, "****"),
        ("short", 4, "****"),
        (12345678, 2, "****78"),
        (True, 2, MASKED),
        (["a", "b"], 2, MASKED),
        ({"a": 1}, 2, MASKED),
        (None, 2, MASKED),
    ],
)
def test_a_mask_leaves_the_last_characters_of_a_long_value(
    value: object, keep: int, expected: object
) -> None:
    body = shown(
        obliged(result(iban=value, name="Ann"), "mask", pointers=["/iban"], keep_last=keep)
    )
    assert body["structuredContent"] == {"iban": expected, "name": "Ann"}
    assert orjson.loads(body["content"][0]["text"]) == body["structuredContent"]


def test_a_mask_can_put_a_tag_in_the_place_of_each_value_of_a_list() -> None:
    rows = [{"iban": "A1", "n": 1}, {"iban": "B2"}, {"iban": "A1"}]
    body = shown(obliged(result(rows=rows), "mask", pointers=["/rows/*/iban"], tag=True))
    tags = [row["iban"] for row in body["structuredContent"]["rows"]]
    assert tags == ["tag:<1A>", "tag:<2B>", "tag:<1A>"]


def test_text_that_could_repeat_what_is_masked_goes_whole() -> None:
    body = result(text="the IBAN is DE89370400440532013000", iban="DE89370400440532013000")
    found = shown(obliged(body, "mask", pointers=["/iban"], keep_last=4))
    assert found["content"] == [{"type": "text", "text": REDACTED}]


def test_redaction_reaches_each_row_of_a_list() -> None:
    body = result(rows=[{"a": 1, "b": 2}, {"a": 3}, "odd"])
    found = shown(obliged(body, "redact", pointers=["/rows/*/a"]))
    assert found["structuredContent"]["rows"] == [
        {"a": REDACTED, "b": 2},
        {"a": REDACTED},
        REDACTED,
    ]


@pytest.mark.parametrize(
    ("pointer", "structured", "expected"),
    [
        (
            "/rows/*/iban",
            {"rows": {"r1": {"iban": "DE8937", "n": 1}, "r2": "DE8937", "r3": {}}},
            {"rows": {"r1": {"iban": REDACTED, "n": 1}, "r2": REDACTED, "r3": {}}},
        ),
        ("/rows/*/iban", {"rows": {"iban": "DE8937"}}, {"rows": {"iban": REDACTED}}),
        ("/rows/*", {"rows": {"*": "DE8937", "a": 1}}, {"rows": {"*": REDACTED, "a": REDACTED}}),
        ("/rows/0/iban", {"rows": {"r1": {"iban": "DE8937"}}}, {"rows": REDACTED}),
        ("/rows/0/iban", {"rows": {"0": {"iban": "DE8937"}}}, {"rows": {"0": {"iban": REDACTED}}}),
        ("/0/iban", {"rows": {"iban": "DE8937"}}, REDACTED),
    ],
)
def test_redaction_holds_where_a_list_turns_out_to_be_an_object(
    pointer: str, structured: dict[str, Any], expected: object
) -> None:
    body = shown(obliged(result(**structured), "redact", pointers=[pointer]))
    assert body["structuredContent"] == expected
    assert orjson.loads(body["content"][0]["text"]) == expected
    masked = obliged(result(**structured), "mask", pointers=[pointer], keep_last=4)
    assert b"DE8937" not in (masked.result or b"")


@pytest.mark.parametrize(
    ("pointer", "wrapped", "expected"),
    [
        ("/iban", {"iban": "DE8937", "n": 1}, {"iban": REDACTED, "n": 1}),
        ("/iban", [{"iban": "DE8937"}], REDACTED),
        ("/iban", "DE8937", REDACTED),
        ("/iban", {"n": 1}, {"n": 1}),
        ("/iban", None, None),
        ("/0/iban", [{"iban": "DE8937"}, {"n": 1}], [{"iban": REDACTED}, {"n": 1}]),
        ("/0/iban", {"iban": "DE8937"}, REDACTED),
        ("/*/iban", [{"iban": "DE8937"}], REDACTED),
        ("/*/iban", {"iban": {"of": "DE8937"}}, {"iban": REDACTED}),
        ("/result/*/iban", [{"iban": "DE8937", "n": 1}], [{"iban": REDACTED, "n": 1}]),
        ("/result", "DE8937", REDACTED),
    ],
)
def test_pointers_lead_below_a_lone_member_result_as_well(
    pointer: str, wrapped: object, expected: object
) -> None:
    body = shown(obliged(result(result=wrapped), "redact", pointers=[pointer]))
    assert body["structuredContent"] == {"result": expected}


def test_a_member_result_that_is_not_alone_wraps_nothing() -> None:
    body = result(result={"iban": "of the bank"}, n=1)
    found = shown(obliged(body, "redact", pointers=["/iban"]))
    assert found["structuredContent"] == body["structuredContent"]


@given(st.text(max_size=60), st.text(max_size=60), st.integers(0, 80))
def test_a_cut_text_is_the_start_of_the_text_and_within_its_bytes(
    first: str, second: str, most: int
) -> None:
    body: dict[str, Any] = {
        "content": [{"type": "text", "text": first}, {"type": "text", "text": second}],
        "structuredContent": {"all": first},
    }
    raw = orjson.dumps(body)
    found = obliged(body, "truncate", max_bytes=most)
    if len(raw) <= most:
        assert found.result == raw
        return
    *texts, note = [block["text"] for block in shown(found)["content"]]
    assert "structuredContent" not in shown(found)
    whole = "".join(texts)
    assert (first + second).startswith(whole)
    assert len(whole.encode()) <= most
    assert note == f"[cut by the gateway: {len(whole.encode())} of {len(raw)} bytes are shown]"


def test_other_blocks_stay_where_they_fit_into_what_is_left() -> None:
    image = {"type": "image", "data": "x" * 40, "mimeType": "image/png"}
    body = {"content": [image, {"type": "text", "text": "y" * 900}, image, "odd"], "isError": True}
    found = shown(obliged(body, "truncate", max_bytes=200))
    kinds = [block["type"] for block in found["content"]]
    assert kinds == ["image", "text", "text"]
    assert found["isError"] is True


def test_texts_at_pointers_are_cut_and_the_rest_stays() -> None:
    body = result(note="ü" * 10, rows=[{"t": "abcdef"}], n=5)
    found = shown(obliged(body, "truncate", max_bytes=5, pointers=["/note", "/rows/*/t", "/n"]))
    assert found["structuredContent"] == {"note": "üü", "rows": [{"t": "abcde"}], "n": 5}
    assert orjson.loads(found["content"][0]["text"]) == found["structuredContent"]
    plain = shown(obliged(result(text="plain words"), "truncate", max_bytes=5, pointers=["/note"]))
    assert plain["content"][0]["text"] == "plain"


@pytest.mark.parametrize(
    ("structured", "expected"),
    [
        ({"body": ["z" * 50, "z" * 50, 7]}, {"body": ["z" * 10, "z" * 10, 7]}),
        ({"body": {"t": "z" * 50}}, {"body": {"t": "z" * 10}}),
        ({"body": [{"t": ["z" * 50]}, None]}, {"body": [{"t": ["z" * 10]}, None]}),
        ({"result": ["z" * 50]}, {"result": ["z" * 10]}),
        (
            {"result": {"body": "z" * 50, "n": "y" * 50}},
            {"result": {"body": "z" * 10, "n": "y" * 50}},
        ),
    ],
)
def test_each_text_in_a_list_or_object_is_cut_where_a_text_should_stand(
    structured: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = shown(obliged(result(**structured), "truncate", max_bytes=10, pointers=["/body"]))
    assert body["structuredContent"] == expected
    assert orjson.loads(body["content"][0]["text"]) == expected


def test_nothing_is_left_of_texts_that_are_nested_too_deep_to_be_cut() -> None:
    deep: Any = "z" * 50
    for _ in range(200):
        deep = [deep]
    found = obliged(result(body=deep), "truncate", max_bytes=10, pointers=["/body"])
    assert shown(found)["structuredContent"]["body"]
    assert b"z" not in (found.result or b"")


@pytest.mark.parametrize("raw", [b"[]", b"no JSON", b'"text"'])
@pytest.mark.parametrize(
    "spec",
    [
        {"type": "truncate", "max_bytes": 1},
        {"type": "truncate", "max_bytes": 1, "pointers": ["/a"]},
        {"type": "mask", "pointers": ["/a"]},
    ],
    ids=str,
)
def test_what_is_no_result_is_withheld(raw: bytes, spec: dict[str, Any]) -> None:
    found = apply_obligations(UpstreamResult(result=raw), [Obligation(spec["type"], spec)])
    assert found.withheld == "result_withheld"


def test_errors_are_withheld_where_nobody_looks_into_them() -> None:
    error = UpstreamResult(error=b'{"code":1,"message":"no"}', is_error=True)
    kept: dict[str, dict[str, Any]] = {
        "truncate": {"max_bytes": 99},
        "limit_result": {"max_bytes": 99},
        "annotate": {},
    }
    for kind, spec in kept.items():
        assert apply_obligations(error, [Obligation(kind, {"type": kind, **spec})]).error
    lost: dict[str, dict[str, Any]] = {
        "truncate": {"max_bytes": 9},
        "mask": {"pointers": ["/a"]},
        "redact": {"pointers": ["/a"]},
    }
    for kind, spec in lost.items():
        assert apply_obligations(error, [Obligation(kind, {"type": kind, **spec})]).withheld
