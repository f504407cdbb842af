"""AuthZEN requests read and answers told, as the specification's own examples have them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import RequestError
from gateway.core.limits import Limits
from gateway.protocol.authzen import (
    EVALUATIONS_MAX,
    Questions,
    Told,
    build_metadata,
    build_reply,
    is_json,
    read_questions,
)
from tests.effort import share
from tests.unit.authzen.spec_payloads import BOXED, MALFORMED, SINGLE

pytestmark = pytest.mark.req("POL-10")
LIMITS = Limits()


def read(body: object, *, boxcar: bool = False) -> Questions:
    return read_questions(orjson.dumps(body), boxcar=boxcar, limits=LIMITS)


@pytest.mark.parametrize("name", SINGLE)
def test_examples_of_the_specification_are_read(name: str) -> None:
    body = SINGLE[name]
    (item,) = read(body).items
    assert (item.subject_type, item.subject) == (body["subject"]["type"], body["subject"]["id"])
    assert item.action == body["action"]["name"]
    assert (item.resource_type, item.resource) == (body["resource"]["type"], body["resource"]["id"])


@pytest.mark.parametrize("name", BOXED)
def test_boxed_examples_are_read_with_their_defaults(name: str) -> None:
    body, expected = BOXED[name]
    questions = read(body, boxcar=True)
    assert questions.boxed
    assert [(one.subject, one.action, one.resource) for one in questions.items] == expected


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("extra", [{}, {"evaluations": []}])
def test_without_evaluations_the_boxcar_endpoint_is_the_single_one(
    name: str, extra: dict[str, Any]
) -> None:
    questions = read({**SINGLE[name], **extra}, boxcar=True)
    assert not questions.boxed
    assert questions.items == read(SINGLE[name]).items


def test_the_single_endpoint_does_not_look_at_evaluations() -> None:
    assert not read({**SINGLE["todo interop"], "evaluations": [{}]}).boxed


@pytest.mark.parametrize("name", MALFORMED)
def test_what_lacks_a_member_or_has_a_wrong_type_is_refused(name: str) -> None:
    for body, boxcar in ((MALFORMED[name], False), ({"evaluations": [MALFORMED[name]]}, True)):
        with pytest.raises(RequestError) as refused:
            read(body, boxcar=boxcar)
        assert refused.value.code == "request_invalid"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"evaluations": {}},
        {"evaluations": ["x"]},
        {"evaluations": [SINGLE["todo interop"]] * (EVALUATIONS_MAX + 1)},
        {"evaluations": [SINGLE["todo interop"]], "options": []},
        {"evaluations": [SINGLE["todo interop"]], "options": {"evaluations_semantic": "any"}},
        {"evaluations": [SINGLE["todo interop"]], "options": {"evaluations_semantic": ["x"]}},
    ],
)
def test_boxes_that_are_none_are_refused(body: object) -> None:
    with pytest.raises(RequestError):
        read(body, boxcar=True)


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b'{"subject":1,"subject":2}', b"\xff", b"NaN"])
def test_what_is_no_json_of_one_meaning_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestError):
        read_questions(raw, boxcar=False, limits=LIMITS)


def test_a_context_of_its_own_replaces_the_default_as_a_whole() -> None:
    body = {
        **SINGLE["todo interop"],
        "context": {"run": "r", "args": {"a": 1}},
        "evaluations": [{}, {"context": {"args": {"b": 2}}}],
    }
    first, second = read(body, boxcar=True).items
    assert (first.run, first.arguments) == ("r", {"a": 1})
    assert (second.run, second.arguments) == ("", {"b": 2})


@pytest.mark.parametrize(
    ("semantic", "ends"),
    [
        ("execute_all", {True: False, False: False}),
        ("deny_on_first_deny", {True: False, False: True}),
        ("permit_on_first_permit", {True: True, False: False}),
    ],
)
def test_semantics_say_when_a_box_ends(semantic: str, ends: dict[bool, bool]) -> None:
    body = {"evaluations": [SINGLE["todo interop"]], "options": {"evaluations_semantic": semantic}}
    questions = read(body, boxcar=True)
    assert {permitted: questions.ends_with(permitted) for permitted in (True, False)} == ends


def test_obligations_are_told_in_the_shape_of_their_profile() -> None:
    told = Told(permitted=True, obligations=({"type": "redact", "pointers": ["/iban"]},))
    reply = orjson.loads(build_reply(Questions(()), [told], "op-1"))
    assert reply == {
        "decision": True,
        "context": {
            "op": "op-1",
            "obligations": [{"id": "1", "type": "redact", "properties": {"pointers": ["/iban"]}}],
        },
    }


def test_the_metadata_name_what_there_is_and_nothing_else() -> None:
    assert orjson.loads(build_metadata("https://gw.example")) == {
        "policy_decision_point": "https://gw.example",
        "access_evaluation_endpoint": "https://gw.example/access/v1/evaluation",
        "access_evaluations_endpoint": "https://gw.example/access/v1/evaluations",
    }


@pytest.mark.parametrize(
    ("given_type", "fits"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json-patch+json", False),
        ("text/plain", False),
        (None, False),
    ],
)
def test_only_json_is_json(given_type: str | None, *, fits: bool) -> None:
    assert is_json(given_type) is fits


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["subject", "action", "resource", "context", "evaluations", "options"]), JSON
)


@settings(max_examples=share(150), deadline=None)
@given(body=MEMBERS | JSON, boxcar=st.booleans())
def test_whatever_comes_is_read_whole_or_refused(body: object, *, boxcar: bool) -> None:
    try:
        questions = read(body, boxcar=boxcar)
    except RequestError:
        return
    for item in questions.items:
        assert all((item.subject, item.action, item.resource))
