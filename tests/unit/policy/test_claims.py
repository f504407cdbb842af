"""What an agent says about itself tightens an answer and never loosens it, whatever policies do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.regorus.regorus_index import describe_subset
from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, Evaluator
from tests.effort import share

pytestmark = pytest.mark.req("POL-12")

STRICTNESS = ("permit", "hold", "deny")
TAG, PLAIN, GENERIC = 1, 1, 2
SAYS = {
    "permit": '{"code": "yes"}',
    "deny": '{"code": "no"}',
    "hold": '{"code": "wait", "approval": {"ttl": "%s", "stages": [{"any_of": [%s]}]}}',
    "obligation": '{"type": "annotate", "note": "%s"}',
}
CONDITIONS = (
    "true",
    "input.context.claimed",
    "sure",
    "not sure",
    'input.context.claimed.intent == "audit"',
    'object.get(input.context.claimed, "intent", "none") == "none"',
    "count(input.context.claimed) == 0",
    'object.get(input, ["context", "claimed", "sure"], false) == false',
    'input.resource.effect == "read"',
)
WHO = '{"approve": %d, "deny": 1, "who": {"groups": ["%s"]}}'


@st.composite
def rules(draw: st.DrawFn) -> str:
    kind = draw(
        st.sampled_from(["permit", "permit", "permit", "deny", "hold", "hold", "obligation"])
    )
    item = SAYS[kind]
    if kind == "hold":
        ttl, count = draw(st.sampled_from(["5m", "900s", "1h"])), draw(st.integers(1, 3))
        item %= (ttl, WHO % (count, draw(st.sampled_from(["ops", "finance"]))))
    elif kind == "obligation":
        item %= draw(st.sampled_from(["a", "b"]))
    return f"{kind} contains {item} if {draw(st.sampled_from(CONDITIONS))}"


PHASES = st.sampled_from(["call", "list", "resume"])
packages = st.lists(st.lists(rules(), min_size=1, max_size=4), min_size=1, max_size=3)
claims = st.fixed_dictionaries(
    {},
    optional={
        "sure": st.sampled_from([True, False, None, 1]),
        "intent": st.sampled_from(["audit", "none", "", 7]),
        "confidence": st.sampled_from([0, 0.5, 1, "1"]),
    },
)


def load(found: list[list[str]]) -> Evaluator:
    sources = {
        f"p{number}.rego": "\n\n".join(
            [
                f"package policies.p{number}",
                "default sure := false",
                "sure if input.context.claimed.sure == true",
                *lines,
                'permit contains {"code": "never"} if input.never',
            ]
        )
        + "\n"
        for number, lines in enumerate(found)
    }
    authority = {"policies": {f"p{number}": ["*"] for number in range(len(found))}}
    bundle: Bundle = build_bundle(sources, {"authority": authority})
    evaluator = Evaluator()
    command = {"do": "load", "tag": TAG, "modules": bundle.modules(), "data": bundle.data}
    subset = describe_subset(bundle, frozenset(bundle.packages))
    for each in (
        {**command, "samples": []},
        {"do": "subset", "index": PLAIN, **subset},
        {"do": "subset", "index": GENERIC, **subset, "voices": {}},
    ):
        kind, payload = evaluator.answer(0, CONTROL, json.dumps(each).encode())
        assert (kind, payload) in ((ANSWER, b"{}"), (ANSWER, b'{"faults": []}')), payload
    return evaluator


def ask(evaluator: Evaluator, claimed: dict[str, Any], phase: str) -> dict[str, Any]:
    document = {
        "version": 1,
        "phase": phase,
        "resource": {"id": "shop.act", "server": "shop", "effect": "read"},
        "context": {"args": {"claimed": {}}, "claimed": claimed},
    }
    answers = [evaluator.answer(TAG, index, json.dumps(document).encode()) for index in (1, 2)]
    assert all(kind == ANSWER for kind, _ in answers), answers
    plain, generic = (json.loads(raw) for _, raw in answers)
    assert plain == generic  # put together by the worker, or by the entry point: the same
    answer: dict[str, Any] = plain
    return answer


def is_met_by(wanted: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether whoever meets the conditions of `answer` has met those of `wanted`."""
    stages = all(stage in answer["approval"]["stages"] for stage in wanted["approval"]["stages"])
    return stages and int(answer["approval"]["ttl"][:-1]) <= int(wanted["approval"]["ttl"][:-1])


@settings(max_examples=share(60))
@given(
    packages, st.lists(claims, min_size=2, max_size=4), st.sampled_from(["call", "list", "resume"])
)
def test_no_claim_ever_loosens_an_answer(
    found: list[list[str]], asked: list[dict[str, Any]], phase: str
) -> None:
    evaluator = load(found)
    silent = ask(evaluator, {}, phase)
    for claimed in asked:
        answer = ask(evaluator, claimed, phase)
        assert STRICTNESS.index(answer["outcome"]) >= STRICTNESS.index(silent["outcome"])
        if answer["outcome"] == "deny":
            continue
        assert all(each in answer["obligations"] for each in silent["obligations"])
        if silent["outcome"] == "hold":
            assert is_met_by(silent, answer)


def test_a_claim_may_tighten() -> None:
    evaluator = load(
        [
            ['permit contains {"code": "yes"}', 'deny contains {"code": "unsure"} if not sure'],
        ]
    )
    assert ask(evaluator, {}, "call")["outcome"] == "deny"
    assert ask(evaluator, {"sure": True}, "call")["outcome"] == "deny"  # it claims what helps it
    evaluator = load(
        [
            ['permit contains {"code": "yes"}', 'deny contains {"code": "sure"} if sure'],
        ]
    )
    assert ask(evaluator, {}, "call")["outcome"] == "permit"
    assert ask(evaluator, {"sure": True}, "call")["reasons"] == [{"code": "sure", "policy": "p0"}]


def test_holds_with_and_without_a_claim_must_both_be_met() -> None:
    hold = SAYS["hold"]
    evaluator = load(
        [
            [
                'permit contains {"code": "yes"}',
                f"hold contains {hold % ('1h', WHO % (2, 'finance'))} if not sure",
                f"hold contains {hold % ('5m', WHO % (1, 'ops'))} if sure",
            ],
        ]
    )
    answer = ask(evaluator, {"sure": True}, "call")
    groups = [stage["any_of"][0]["who"]["groups"] for stage in answer["approval"]["stages"]]
    assert groups == [["finance"], ["ops"]]
    assert answer["approval"]["ttl"] == "300s"
