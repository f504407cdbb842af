from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.policy_bundle import MAIN_PATH, Bundle, build_bundle, find_rego_root
from gateway.adapters.regorus.regorus_index import describe_subset, is_mirrored
from gateway.adapters.regorus.regorus_plain import Voices, build_reader, combine
from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, FAULT, Evaluator
from gateway.core.errors import ConfigurationError
from tests.effort import share

pytestmark = pytest.mark.req("GW-11")

TAG = 1
PLAIN, GENERIC = 1, 2
SETS = ("permit", "deny", "hold", "obligation")


def load(bundle: Bundle, heard: frozenset[str], *, main: str | None = None) -> Evaluator:
    """Load a bundle with the same packages twice: with plain answers, and without."""
    if main is not None:
        files = tuple(
            (path, main.encode() if path == MAIN_PATH else raw) for path, raw in bundle.files
        )
        bundle = Bundle(revision=bundle.revision, files=files, packages=bundle.packages)
    modules = bundle.modules()
    command = {"do": "load", "tag": TAG, "modules": modules, "data": bundle.data, "samples": []}
    subset = describe_subset(bundle, heard)
    evaluator = Evaluator()
    for each in (
        command,
        {"do": "subset", "index": PLAIN, **subset},
        {"do": "subset", "index": GENERIC, **subset, "voices": {}},
    ):
        kind, payload = evaluator.answer(0, CONTROL, json.dumps(each).encode())
        assert kind == ANSWER, payload
        assert payload in (b"{}", b'{"faults": []}')
    return evaluator


def both(evaluator: Evaluator, document: dict[str, Any]) -> tuple[Any, Any]:
    found = [evaluator.answer(TAG, index, json.dumps(document).encode()) for index in (1, 2)]
    plain, generic = (
        (kind, json.loads(raw, parse_float=str) if kind == ANSWER else raw) for kind, raw in found
    )
    return plain, generic


# --- any members ------------------------------------------------------------------------------

codes = st.sampled_from(['"ok"', '"no"', '"Not A Code"', "7", "null", '{"x"}', '""'])
texts = st.sampled_from(["", "short", "a" * 65, "ß" * 130, "€" * 90, "🙂" * 70, "a" * 255 + "ß🙂"])
numbers = ["0", "1", "1.0", "1.10", "123456789012345678901234567890", "1e3", "0.1000000000000001"]
values = st.one_of(
    st.sampled_from(
        [*numbers, "null", "true", "set()", "{1, [2]}", '{"b": 1, "a": {"x"}}', "[{}]"]
    ),
    texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
)
approvals = st.sampled_from([
    "null", "{}", '{"ttl": "5m"}', '{"stages": []}', '{"stages": {1}}', '{"execute": "on_redeem"}',
    '{"stages": [{"any_of": [{"who": {"groups": ["a"]}}]}]}',
    '{"stages": {{"any_of": [{"who": {"groups": ["a"]}}]}}}',
])  # fmt: skip


def written(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in members.items()) + "}"


reasons = st.fixed_dictionaries(
    {}, optional={"code": codes, "message": values, "extra": values}
).map(written)
members = {
    "permit": st.one_of(reasons, values),
    "deny": st.one_of(reasons, values),
    "hold": st.fixed_dictionaries({"code": codes}, optional={"approval": approvals}).map(written),
    "obligation": st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(['"redact"', '"x"', "1"]), "at": values}
    ).map(written),
}


@st.composite
def packages(draw: st.DrawFn) -> dict[str, dict[str, list[str]]]:
    """Package → set → its members, in Rego. Holds and denies are kept rare."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "in"]])):
        likely = st.sampled_from([*SETS, "permit", "permit", "obligation"])
        found[name] = {
            each: draw(st.lists(members[each], max_size=3))
            for each in draw(st.sets(likely, max_size=3))
        }
    return found


def write(name: str, sets: dict[str, list[str]]) -> str:
    rules = [f"{each} contains {item}" for each, items in sets.items() for item in items]
    # A set that is defined and empty.
    rules += [f'{each} contains "never" if input.never' for each in sets]
    return "\n\n".join([f"package policies.{name}", *rules, "unused := 1"]) + "\n"


authorities = st.dictionaries(
    st.sampled_from(["a", "b"]), st.sampled_from([["*"], ["shop"], ["bank", "shop"], ["bank"]])
)
documents = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 1, 1.0, 2, "1", None]),
        "phase": st.sampled_from(["issue", "list", "call", "result", "resume", "call", "x", 1]),
        "resource": st.fixed_dictionaries(
            {}, optional={"server": st.sampled_from(["shop", "shop", "bank", "", None, 7])}
        ),
    }
)


@settings(max_examples=share(200))
@given(packages(), authorities, st.lists(documents, min_size=4, max_size=8))
def test_a_plain_answer_is_that_of_the_entry_point(
    said: dict[str, dict[str, list[str]]],
    authority: dict[str, list[str]],
    asked: list[dict[str, Any]],
) -> None:
    bundle = bundle_of(
        {name: write(name, sets) for name, sets in said.items()},
        {"policies": {name: servers for name, servers in authority.items() if name in said}},
    )
    evaluator = load(bundle, frozenset(said))
    for document in asked:
        plain, generic = both(evaluator, document)
        assert plain == generic


waits = st.fixed_dictionaries(
    {"code": codes},
    optional={
        "approval": st.sampled_from([
            "{}", '{"ttl": "5m"}', '{"ttl": "300s"}', '{"ttl": "5 m"}', '{"execute": "on_redeem"}',
            '{"stages": [{"any_of": [{"who": {"groups": ["a"]}}]}]}',
            '{"stages": [{"any_of": [{"who": {"groups": {"a"}}}]}], "ttl": "2h"}',
            '{"stages": {{"any_of": [{"who": {"groups": ["a"]}}]}}}',
            '{"stages": [{"any_of": [{"who": {"groups": ["b"]}, "approve": 1}]}]}',
            '{"stages": [{"any_of": [{"who": {"groups": ["b"]}, "approve": 1.0}]}]}',
            '{"stages": [{"any_of": [{"approve":1,"deny":1,"who":{"groups":["approver"]}}]}]}',
            '{"stages": [1, true, null]}', '{"stages": []}', '{"stages": "[1]"}', '{"sod": true}',
        ])
    },
).map(written)  # fmt: skip
holding = st.fixed_dictionaries(
    {"a": st.fixed_dictionaries({"permit": st.just(['{"code": "ok"}'])})},
    optional={
        name: st.fixed_dictionaries({"hold": st.lists(waits, min_size=1, max_size=3)})
        for name in ("b", "c")
    },
)


@settings(max_examples=share(150))
@given(holding, authorities, st.lists(documents, min_size=2, max_size=4))
def test_plain_holds_are_those_of_the_entry_point(
    said: dict[str, dict[str, list[str]]],
    authority: dict[str, list[str]],
    asked: list[dict[str, Any]],
) -> None:
    granted = {name: servers for name, servers in authority.items() if name in said}
    bundle = bundle_of(
        {name: write(name, sets) for name, sets in said.items()}, {"policies": granted}
    )
    evaluator = load(bundle, frozenset(said))
    for document in asked:  # what was held before is asked in another way
        plain, generic = both(evaluator, document)
        assert plain == generic


def test_a_hold_is_put_together_without_the_entry_point() -> None:
    voices = Voices({"a": ["permit"], "b": ["hold"]}, {"a": ["*"]})
    said = '[[{"code":"ok"}],[{"code":"wait","approval":{"ttl":"1h","stages":[7]}}]]'
    found = combine(voices, said, released=False, server=b'"shop"')
    assert found is not None
    answer = json.loads(found.answer)
    assert (answer["outcome"], answer["approval"]["ttl"]) == ("hold", "3600s")
    assert found.is_as("[1, 0]")
    assert not found.is_as("[1, 1]")  # its stages are a set: no conditions that can be met
    assert not found.is_as("[2, 0]")  # what is written alike is not the same


def bundle_of(sources: dict[str, str], authority: object) -> Bundle:
    """Return a bundle whose authority and items the gate need not like."""
    owned = {"authority": {"policies": {name: ["*"] for name in sources}}}
    main = (find_rego_root() / MAIN_PATH).read_text()
    texts = {f"{name}.rego": text for name, text in sources.items()}
    bundle = build_bundle(texts, owned, main=main)
    data = json.dumps({"authority": authority}).encode()
    files = tuple((path, data if path == "data.json" else raw) for path, raw in bundle.files)
    return Bundle(revision=bundle.revision, files=files, packages=bundle.packages)


def ask(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"version": 1, "phase": "call", "resource": {"server": "shop"}, "context": {}} | changes


def repeated(text: str, times: int) -> str:
    return f'concat("", ["{text}" | some _ in numbers.range(1, {times})])'


def many(count: int, each: str = "deny") -> dict[str, list[str]]:
    return {each: [f'{{"code": "n{number}"}}' for number in range(count)]}


@pytest.mark.parametrize(
    "said",
    [
        {"a": many(40)},
        {"a": many(20), "b": many(20)},
        {"a": many(40, "permit")},
        {f"p{number}": many(1, "permit") for number in range(40)},
        {f"p{number}_{'x' * 50}": many(1, "permit") for number in range(40)},
        *(
            {"a": {"deny": [f'{{"code": "no", "message": "{text}"}}']}}
            for text in ("é" * 64, "€" * 90, "ß" * 130, "a" * 254 + "ßßß", "a" * 253 + "ßßßß")
        ),
        {"a": {"deny": ['{"code": "no", "message": ' + repeated("🙂", 300) + "}"]}},
        {"a": {"permit": ['{"code": "ok", "message": ' + repeated("x", 9000) + "}"]}},
        {"a": {"permit": ['{"code": "ok"}'], "obligation": ['{"at": 0.10}', "{{}}", "{[]}"]}},
        {"a": {"obligation": ['{"b": 1}']}, "b": {"obligation": ['{"a": 1}']}},
    ],
)
@pytest.mark.parametrize("phase", ["call", "result"])
@pytest.mark.parametrize("server", ["shop", "bank"])
def test_answers_keep_their_bounds_and_their_order(
    said: dict[str, dict[str, list[str]]], phase: str, server: str
) -> None:
    bundle = bundle_of(
        {name: write(name, sets) for name, sets in said.items()},
        {"policies": {name: ["shop"] for name in said}},
    )
    evaluator = load(bundle, frozenset(said))
    plain, generic = both(evaluator, ask(phase=phase, resource={"server": server}))
    assert plain == generic


# --- what is read of the input ------------------------------------------------------------------

READING = """# METADATA
# title: Whatever the input has
package policies.reading

{head}

permit contains {{"code": "ok"}}

deny contains {{"code": "seen", "message": sprintf("%v", [{seen}])}}
"""
EXPRESSIONS = [
    "input.context.args",
    "input.context.args.amount.cents",
    'input["context"]["args"].amount',
    "input.context[`args`]",
    "input.context[part]",
    "input.context.run.counts[input.resource.id]",
    "object.get(input, [`context`, `args`, `amount`], 7)",
    "object.get(input.context, `approval`, 7)",
    "input.context.approval.id",
    "[scope | some scope in input.context.token.scopes]",
    "input.context.token",
    "input.subject.on_behalf_of.id",
    "count([1 | some _ in input.context.args])",
    "[path | walk(input.context.args, [path, _])]",
    "args.amount",
    "everything.context.args",
    "run.counts",
    "nested(input.context.family)",
    "{k: v | some k, v in input.resource}",
    "input.environment",
    "input.context",
    "input",
    "1",
]
HEAD = """import input as everything

import input.context.args

run := input.context.run

part := "args"

nested(x) := y if {
	some y in x.counts
}
"""
leaves = st.sampled_from(
    [None, 1, 0.1, "x", "ü", [], [{"cents": 3}], {}, {"cents": 4}, {"id": "i"}]
)
small = st.dictionaries(st.sampled_from(["amount", "id", "counts", "scopes", "é"]), leaves)
inputs = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "phase": st.just("call"),
        "resource": st.fixed_dictionaries({"server": st.just("shop")}, optional={"id": leaves}),
        "context": st.fixed_dictionaries(
            {},
            optional={
                "args": st.one_of(small, leaves),
                "token": st.one_of(small, leaves),
                "run": st.one_of(small, leaves),
                "family": small,
                "approval": st.one_of(st.none(), small),
            },
        ),
    },
    optional={"environment": leaves, "subject": st.fixed_dictionaries({"on_behalf_of": leaves})},
)


def reading(seen: str) -> Evaluator:
    source = READING.format(head=HEAD, seen=seen)
    used = ["import input as everything", "import input.context.args"]
    for line in used:
        if line.split()[-1].rpartition(".")[2] + "." not in seen:
            source = source.replace(line + "\n", "")
    return load(
        bundle_of({"reading": source}, {"policies": {"reading": ["*"]}}), frozenset({"reading"})
    )


@pytest.mark.parametrize("seen", EXPRESSIONS)
def test_packages_see_all_that_they_read(seen: str) -> None:
    evaluator = reading(seen)

    @settings(max_examples=share(25))
    @given(inputs)
    def check(document: dict[str, Any]) -> None:
        plain, generic = both(evaluator, document)
        assert plain == generic

    check()


def test_only_what_is_read_is_passed_on_and_as_it_is_written() -> None:
    read = build_reader([["context", "args"], ["context", "run", "id"], ["phase"]])
    document = (
        b'{"version":1,"phase":"result","resource":{"server":"shop"},"subject":{"id":"me"},'
        b'"context":{"args":{"a": 1.10,"b":12345678901234567890},"run":{"id":"r","n":1}}}'
    )
    part = (
        '{"context":{"args":{"a": 1.10,"b":12345678901234567890},"run":{"id":"r"}},'
        '"phase":"result"}'
    )
    assert read(document) == (part, True, b'"shop"')
    assert build_reader([])(document) == ("{}", True, b'"shop"')
    assert build_reader(None)(document) == (document.decode(), True, b'"shop"')


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"null",
        b'{"phase":"call","resource":{}}',
        b'{"version":1,"resource":{}}',
        b'{"version":1,"phase":"call"}',
        b'{"version":1,"phase":"call","resource":1}',
        b'{"version":2,"phase":"call","resource":{}}',
        b'{"version":1.0,"phase":"call","resource":{}}',
        b'{"version":1,"phase":"other","resource":{}}',
        b'{"version":1,"phase":"call","resource":{},"context":[]}',
        b'{"version":1,"phase":"call","resource":{},"unread":"\xff"}',
        b'{"version":1,"phase":"call","resource":{},"unread":nope}',
        b"[" * 5000,
    ],
)
def test_other_inputs_are_left_to_the_entry_point(document: bytes) -> None:
    assert build_reader([["context", "args"]])(document) is None


# --- when the entry point itself answers --------------------------------------------------------

OWNED = {"policies": {"paying": ["*"]}}
PAYING = """package policies.paying

n := input.context.args.n if is_number(input.context.args.n)

permit contains {"code": "ok"} if n < 10

hold contains {"code": "wait"} if n > 5

deny contains {"code": "no", "message": sprintf("%v", [n])} if {
	n > 8
}
"""


def outcomes(evaluator: Evaluator, *numbers: int) -> list[str]:
    questions = [json.dumps(ask(context={"args": {"n": number}})).encode() for number in numbers]
    answers = [evaluator.answer(TAG, PLAIN, question) for question in questions]
    return [json.loads(payload)["outcome"] for _, payload in answers]


def test_holds_and_others_may_come_in_any_order() -> None:
    evaluator = load(bundle_of({"paying": PAYING}, OWNED), frozenset({"paying"}))
    assert outcomes(evaluator, 1, 6, 7, 1, 9, 6, 11, 1) == [
        "permit", "hold", "hold", "permit", "deny", "hold", "deny", "permit",
    ]  # fmt: skip


def test_the_shipped_entry_point_is_the_one_that_is_mirrored() -> None:
    main = (find_rego_root() / MAIN_PATH).read_text(encoding="utf-8")
    assert is_mirrored([main])
    assert not is_mirrored([main + "\n"])
    assert not is_mirrored([main, "package countersign"])
    assert not is_mirrored([])


def test_another_entry_point_answers_for_itself() -> None:
    strict = 'package countersign\n\ndecision := {"outcome": "deny", "reasons": [], "mine": true}\n'
    bundle = bundle_of({"paying": PAYING}, OWNED)
    evaluator = load(bundle, frozenset({"paying"}), main=strict)
    assert outcomes(evaluator, 1) == ["deny"]


def test_data_cannot_speak_for_packages() -> None:
    bundle = bundle_of({"paying": PAYING}, OWNED)
    with pytest.raises(ConfigurationError, match="`countersign` is reserved"):
        build_bundle(
            {"paying.rego": PAYING},
            {
                "authority": OWNED,
                "countersign": {"voices": {"said": [[], [], [{"code": "forged"}]]}},
            },
        )
    assert outcomes(load(bundle, frozenset({"paying"})), 11) == ["deny"]


@pytest.mark.parametrize("said", ['"<undefined>"', "", "[]", "[[1], 2]", "[[],[],[],[],[]]", "nil"])
def test_what_cannot_be_read_is_left_to_the_entry_point(said: str) -> None:
    voices = Voices({"a": ["permit", "deny"]}, {"a": ["*"]})
    assert combine(voices, said, released=True, server=b"") is None


@pytest.mark.parametrize("authority", [[], {"policies": {"paying": "*"}}, {"policies": [1]}, {}])
def test_an_authority_of_another_shape_is_left_to_the_entry_point(authority: object) -> None:
    bundle = bundle_of({"paying": PAYING}, authority)
    evaluator = load(bundle, frozenset({"paying"}))
    plain, generic = both(evaluator, ask(context={"args": {"n": 1}}))
    assert plain == generic


def test_a_failure_in_a_rule_that_nobody_needs_is_still_a_failure() -> None:
    failing = PAYING + "\nunused := abs(input.context.args.text)\n"
    evaluator = load(bundle_of({"paying": failing}, OWNED), frozenset({"paying"}))
    plain, generic = both(evaluator, ask(context={"args": {"n": 1, "text": "x"}}))
    assert plain == generic
    assert plain[0] == FAULT
