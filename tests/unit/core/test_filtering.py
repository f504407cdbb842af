"""Obligations on results: what is redacted is nowhere in what leaves."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.call import FilteredResult, UpstreamResult
from gateway.core.calls.filtering import REDACTED, apply_obligations, status_of, withhold
from gateway.core.policy.decision import Obligation

CANARY = "DE89-3704-CANARY"


def obliged(kind: str, **spec: Any) -> Obligation:  # noqa: ANN401 - any JSON
    return Obligation(kind, {"type": kind, **spec})


def filtered(body: object, *obligations: Obligation) -> FilteredResult:
    return apply_obligations(UpstreamResult(result=orjson.dumps(body)), obligations)


NAMES = st.sampled_from(["a", "b", "0", "1", "~", "/"])


def nest(path: list[str], leaf: object) -> object:
    for name in reversed(path):
        leaf = {name: leaf, "kept": 1}
    return leaf


def pointer_of(path: list[str]) -> str:
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


BLOCKS = st.sampled_from(
    [
        {"type": "text", "text": CANARY},
        {"type": "text", "text": f'"{CANARY}"'},
        {"type": "text", "text": f'["{CANARY}"]'},
        {"type": "text", "text": f'{{"elsewhere":"{CANARY}"}}'},
        {"type": "text", "text": "fine", "_meta": {"note": CANARY}},
        {"type": "text", "text": "fine", "annotations": {"audience": [CANARY]}},
        {"type": "image", "data": CANARY, "mimeType": "image/png"},
        {"type": "resource_link", "uri": f"db://{CANARY}", "name": CANARY},
        {"type": "resource", "resource": {"uri": "db://x", "text": CANARY}},
        {"type": CANARY},
        CANARY,
        [CANARY],
        None,
    ]
)
EXTRAS = st.dictionaries(
    st.sampled_from(["_meta", "toolResult", "resultType", "isError", CANARY]),
    st.just(CANARY) | st.just({"deep": [CANARY]}) | st.just({CANARY: 1}),
)


@pytest.mark.req("GW-11")
@given(
    st.lists(NAMES, max_size=4),
    st.lists(NAMES, max_size=2),
    st.lists(BLOCKS, max_size=3) | st.just(CANARY),
    EXTRAS,
    st.booleans(),
)
def test_a_redacted_value_survives_in_no_shape_of_result(
    path: list[str],
    deeper: list[str],
    blocks: object,
    extras: dict[str, Any],
    repeated: bool,  # noqa: FBT001 - drawn
) -> None:
    # The value stands where the pointer leads, or above it: a string where an object was expected.
    structured = nest(path, CANARY)
    content = blocks
    if repeated and isinstance(structured, dict) and isinstance(blocks, list):
        content = [*blocks, {"type": "text", "text": orjson.dumps(structured).decode()}]
    body = {**extras, "structuredContent": structured, "content": content}
    answer = filtered(body, obliged("redact", pointers=[pointer_of([*path, *deeper])]))
    assert answer.withheld is None
    assert CANARY.encode() not in (answer.result or b"")
    kept = orjson.loads(answer.result or b"")
    assert kept.keys() <= {"content", "structuredContent", "isError"}


def test_lists_are_reached_by_index_and_replaced_whole_by_name() -> None:
    rows = [{"iban": CANARY, "kept": 1}]
    body = {"structuredContent": {"rows": rows}}
    by_index = filtered(body, obliged("redact", pointers=["/rows/0/iban"]))
    assert orjson.loads(by_index.result or b"")["structuredContent"] == {
        "rows": [{"iban": REDACTED, "kept": 1}]
    }
    by_name = filtered(body, obliged("redact", pointers=["/rows/iban"]))
    assert orjson.loads(by_name.result or b"")["structuredContent"] == {"rows": REDACTED}
    beyond = filtered(body, obliged("redact", pointers=["/rows/7"]))
    assert orjson.loads(beyond.result or b"")["structuredContent"] == {"rows": rows}


def test_text_that_says_what_the_structured_content_says_is_redacted_alike() -> None:
    structured = {"iban": CANARY, "name": "Olga"}
    text = f'{{ "name": "Olga", "iban": "{CANARY}" }}'
    body = {"structuredContent": structured, "content": [{"type": "text", "text": text}]}
    answer = filtered(body, obliged("redact", pointers=["/iban"]))
    expected = {"iban": REDACTED, "name": "Olga"}
    kept = orjson.loads(answer.result or b"")
    assert kept["structuredContent"] == expected
    assert orjson.loads(kept["content"][0]["text"]) == expected
    assert answer.applied == (obliged("redact", pointers=["/iban"]),)


def test_without_structured_content_the_pointers_lead_into_json_text() -> None:
    content = [
        {"type": "text", "text": f'{{"iban":"{CANARY}","n":1}}'},
        {"type": "text", "text": f"the iban is {CANARY}"},
    ]
    answer = filtered({"content": content, "isError": False}, obliged("redact", pointers=["/iban"]))
    assert orjson.loads(answer.result or b"") == {
        "content": [
            {"type": "text", "text": f'{{"iban":"{REDACTED}","n":1}}'},
            {"type": "text", "text": REDACTED},
        ],
        "isError": False,
    }


def test_what_is_null_or_absent_stays_so() -> None:
    body = {"structuredContent": {"customer": None}}
    answer = filtered(body, obliged("redact", pointers=["/customer/iban", "/other"]))
    assert orjson.loads(answer.result or b"")["structuredContent"] == {"customer": None}


@pytest.mark.parametrize(
    "obligation",
    [
        obliged("redact"),
        obliged("redact", pointers="/iban"),
        obliged("redact", pointers=[1]),
        obliged("redact", pointers=["iban"]),
        obliged("limit_result", max_bytes=3),
        obliged("limit_result", max_bytes="many"),
        obliged("limit_result"),
        obliged("encrypt"),
    ],
)
def test_an_obligation_that_cannot_be_met_withholds(obligation: Obligation) -> None:
    answer = filtered({"structuredContent": {"iban": CANARY}}, obligation)
    assert (answer.withheld, answer.result, answer.error) == ("result_withheld", None, None)


@pytest.mark.parametrize("raw", [b"[]", b"null", b"{", b'"x"'])
def test_a_result_that_is_no_object_cannot_be_redacted(raw: bytes) -> None:
    obligation = obliged("redact", pointers=[])
    answer = apply_obligations(UpstreamResult(result=raw), [obligation])
    assert answer.withheld == "result_withheld"


def test_a_redacting_obligation_hides_errors_and_others_do_not() -> None:
    error = UpstreamResult(error=b'{"code":1,"message":"about DE89"}', is_error=True)
    assert apply_obligations(error, [obliged("redact", pointers=[])]).withheld is not None
    kept = apply_obligations(error, [obliged("annotate"), obliged("limit_result", max_bytes=99)])
    assert (kept.error, kept.withheld) == (error.error, None)
    nothing = UpstreamResult()
    assert apply_obligations(nothing, [obliged("annotate")]).withheld == "result_withheld"


def test_how_a_call_ended() -> None:
    plain = FilteredResult(result=b"{}", error=None, is_error=False)
    assert status_of(None, withhold(None)) == "failed"
    assert status_of(UpstreamResult(result=b"{}"), withhold("result_withheld")) == "withheld"
    assert status_of(UpstreamResult(result=b"{}"), plain) == "ok"
    assert status_of(UpstreamResult(result=b"{}", is_error=True), plain) == "tool_error"
    assert status_of(UpstreamResult(error=b"{}"), plain) == "tool_error"
    assert withhold(None).withheld == "internal_error"
