"""What packages said before is kept where they would say it again, and changes no answer."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.regorus.regorus_index import describe_subset
from gateway.adapters.regorus.regorus_plain import pick, weave
from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, Evaluator
from tests.effort import share

pytestmark = pytest.mark.req("POL-13")
TAG: Final = 1
KEEPING, WHOLE = 1, 0

# --- any packages -------------------------------------------------------------------------------

CONDITIONS: Final = [
    'input.resource.effect == "money"',
    'input.subject.id == "a"',
    '"pii" in input.context.run.labels',
    "input.context.run",
    "is_number(input.context.args.n)",
    "abs(input.context.args.n) == 1",  # fails for a text
    "to_number(input.subject.owner) == 1",
    'input.environment == "prod"',
    "data.policies.p0.shared == 1",
    'input.context.claimed != {"x": 1}',
]
rules = st.tuples(
    st.sampled_from(["permit", "permit", "deny", "hold", "obligation"]),
    st.sampled_from(CONDITIONS),
)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    condition = draw(st.sampled_from(CONDITIONS[:-2]))
    sources = {"p0.rego": f"package policies.p0\n\nshared := 1 if {condition}\n"}
    owned = {}
    for name in ("p1", "p2", "p3"):
        written = draw(st.lists(rules, min_size=1, max_size=2, unique=True))
        lines = [f"package policies.{name}", ""]
        for place, (kind, condition) in enumerate(written):
            member = '{"type": "annotate"}' if kind == "obligation" else f'{{"code": "c{place}"}}'
            lines += [f"{kind} contains {member} if {condition}", ""]
        sources[f"{name}.rego"] = "\n".join(lines)
        if any(kind == "permit" for kind, _ in written):
            owned[name] = draw(st.sampled_from([["*"], ["shop"]]))
    return build_bundle(sources, {"authority": {"policies": owned}})


documents = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 2]),
        "phase": st.sampled_from(["call", "call", "result", "list"]),
        "resource": st.fixed_dictionaries(
            {"server": st.sampled_from(["shop", "bank"])},
            optional={"effect": st.sampled_from(["money", "read"])},
        ),
        "context": st.fixed_dictionaries(
            {"args": st.sampled_from([{}, {"n": 1}, {"n": 2}, {"n": "x"}, {"n": "1"}, 7, None])},
            optional={
                "run": st.sampled_from([{}, {"labels": ["pii"]}, {"labels": []}, {"labels": 1}, 1]),
                "claimed": st.sampled_from([{}, {}, {"x": 1}, {"x": 2}]),
            },
        ),
    },
    optional={
        "environment": st.sampled_from(["prod", "dev"]),
        "subject": st.fixed_dictionaries(
            {"id": st.sampled_from(["a", "b"])}, optional={"owner": st.sampled_from(["1", "z"])}
        ),
    },
)


def load(bundle: Bundle) -> Evaluator:
    """Load all packages twice: as one engine that answers by the entry point, and as a subset."""
    evaluator = Evaluator()
    subset = describe_subset(bundle, frozenset(bundle.packages))
    command = {"do": "load", "tag": TAG, "modules": bundle.modules(), "data": bundle.data}
    for each in (command | {"samples": []}, {"do": "subset", "index": KEEPING, **subset}):
        kind, payload = evaluator.answer(0, CONTROL, json.dumps(each).encode())
        assert kind == ANSWER
        assert payload in (b"{}", b'{"faults": []}')
    return evaluator


def ask(evaluator: Evaluator, number: int, document: dict[str, Any]) -> object:
    kind, payload = evaluator.answer(TAG, number, json.dumps(document).encode())
    return json.loads(payload) if kind == ANSWER else kind


@settings(max_examples=share(60))
@given(bundles(), st.lists(documents, min_size=20, max_size=40))
def test_what_is_kept_changes_no_answer(bundle: Bundle, asked: list[dict[str, Any]]) -> None:
    evaluator = load(bundle)
    for document in asked:
        assert ask(evaluator, KEEPING, document) == ask(evaluator, WHOLE, document)


SHOP: Final = {
    "reads.rego": """package policies.reads

permit contains {"code": "read_only"} if input.resource.effect == "read"
""",
    "small.rego": """package policies.small

deny contains {"code": "large"} if abs(input.context.args.n) > 5
""",
}


def question(number: int, effect: str = "read") -> dict[str, Any]:
    resource = {"server": "shop", "effect": effect}
    return {"version": 1, "phase": "call", "resource": resource, "context": {"args": {"n": number}}}


def test_packages_that_read_what_differs_seldom_are_told_from_the_others() -> None:
    bundle = build_bundle(SHOP, {"authority": {"policies": {"reads": ["*"]}}})
    subset = describe_subset(bundle, frozenset({"reads", "small"}))
    assert subset["packages"] == ["reads", "small"]
    assert subset["steady"]["packages"] == ["reads"]
    assert subset["steady"]["paths"] == [("resource", "effect")]
    assert subset["steady"]["others"]["packages"] == ["small"]
    assert subset["steady"]["others"]["paths"] == [("context", "args", "n")]
    assert "steady" not in describe_subset(bundle, frozenset({"small"}))
    assert describe_subset(bundle, frozenset({"reads"}))["steady"]["others"]["packages"] == []


@pytest.mark.parametrize("kept", [1, 2, 1024])
def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("gateway.adapters.regorus.regorus_subset._KEPT_MAX", kept)
    evaluator = load(build_bundle(SHOP, {"authority": {"policies": {"reads": ["*"]}}}))
    for effect in ("read", "money", "delete", "read", "update", "read"):
        for number in (1, 9):
            document = question(number, effect)
            assert ask(evaluator, KEEPING, document) == ask(evaluator, WHOLE, document)


def test_a_package_that_fails_on_an_empty_input_answers_others() -> None:
    fails = 'abs(object.get(input, ["context", "args", "n"], "none")) == 1'
    sources = SHOP | {
        "fails.rego": f'package policies.fails\n\ndeny contains {{"code": "x"}} if {fails}\n'
    }
    evaluator = load(build_bundle(sources, {"authority": {"policies": {"reads": ["*"]}}}))
    for number in (1, 2, 2):
        document = question(number)
        found = ask(evaluator, KEEPING, document)
        assert found == ask(evaluator, WHOLE, document)
        assert isinstance(found, dict)


def test_what_is_too_long_to_be_kept_is_asked_again() -> None:
    evaluator = load(build_bundle(SHOP, {"authority": {"policies": {"reads": ["*"]}}}))
    for _ in range(2):
        document = question(1, "read" * 5000)
        assert ask(evaluator, KEEPING, document) == ask(evaluator, WHOLE, document)


rows = st.lists(st.sampled_from(["[]", "[1.10]", '[{"code":"ü"},  7]', '["[,]"]']), max_size=6)


@given(rows, st.data())
def test_rows_that_are_taken_out_are_put_back_where_they_were(
    written: list[str], data: st.DataObject
) -> None:
    order = tuple(data.draw(st.lists(st.booleans(), min_size=len(written), max_size=len(written))))
    said = f"[{','.join(written)}]"
    others = pick([not each for each in order], said)
    assert weave(order, pick(order, said), others) == said
