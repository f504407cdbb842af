"""Every function that policies may call, on the embedded engine and on OPA, argument by argument.

What the embedded engine answers, OPA answers: a difference is only `engine_error`, where the
embedded engine fails, which denies. COUNTERSIGN_FAULT_FACTOR multiplies the arguments.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from typing import Any

import pytest
import regorus

from gateway.adapters.policy.policy_builtins import ALLOWED
from gateway.adapters.regorus.engine_shims import ADDED, install_shims
from tests.integration.policy.function_vectors import POOLS, TAKES, Arguments, calls
from tests.opa_server import NO_OPA, OPA

pytestmark = [
    pytest.mark.req("POL-05"),
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]
FACTOR = int(os.environ.get("COUNTERSIGN_FAULT_FACTOR", "1"))
EACH = 150 * FACTOR
SEED = 2026
MISSING = object()
ORDINARY = """
abs(-3), ceil(1.2), floor(1.8), round(2.5), round(-2.5), format_int(255, 16), to_number("19.99")
to_number("-7"), bits.lsh(1, 10), units.parse_bytes("10MB"), units.parse("2k"), lower("ÄB")
upper("äß"), substring("Ünï", 1, -1), indexof("abc", "c"), indexof_n("abab", "b")
strings.count("banana", "an"), strings.replace_n({"<": "(", ">": ")"}, "<a>")
replace("aa", "a", "b"), base64.decode("w6k="), base64url.decode("w6k"), base64.is_valid("YQ==")
urlquery.encode("a b/é"), urlquery.decode("a+b%2F"), urlquery.encode_object({"q": ["1", "2"]})
urlquery.decode_object("a=1"), semver.compare("1.2.0", "v1.10.0-rc.1"), semver.is_valid("1.2")
glob.match("*.acme.*", ["."], "a.acme.x"), glob.match("{a,b}-[0-9]*", null, "b-7x")
glob.quote_meta("a*"), regex.match(`^\\d{3}-\\w+$`, "123-ab"), regex.match(`(?i)acme`, "ACME")
regex.find_n(`[a-z]+`, "ab1cd", -1), regex.split(`,\\s*`, "a, b,c")
regex.replace("a1b2", `([a-z])(\\d)`, "$2$1")
regex.find_all_string_submatch_n(`(\\w+)@(\\w+)`, "a@b", 1), regex.is_valid(`[a-z]+`)
json.marshal({"b": [1, 2.5, "<é>"], "a": null}), json.unmarshal("{\\"a\\": [1]}")
json.is_valid("{"), json.remove({"a": {"b": 1, "c": 2}}, ["a/b"])
json.filter({"a": {"b": 1}}, ["/a/b"]), net.cidr_contains("10.0.0.0/8", "10.1.2.3")
net.cidr_contains("2001:db8::/32", "2001:db8::1")
net.cidr_contains("10.0.0.0/8", "::ffff:10.1.2.3"), net.cidr_is_valid("10.0.0.0/8")
count(net.cidr_expand("10.0.0.0/30")), time.parse_rfc3339_ns("2024-02-29T12:00:00.5+01:00")
time.parse_ns("2006-01-02", "2024-02-29"), time.add_date(1709164800000000000, 1, 0, 0)
time.date([1709164800000000000, "Europe/Berlin"]), time.clock(1709164800000000000)
time.weekday([1709164800000000000, "America/New_York"]), time.format(1709164800000000000)
time.diff(1709164800000000000, 0), time.format([1709164800000000000, "UTC", "2006-01-02"])
sprintf("%d of %v: %s", [3, "x", "ü"]), sprintf("%.2f%%", [12.345])
sprintf("%5d|%-5s|%05d", [1, "a", 7]), sprintf("%v %v %v", [["a", 1], {"k": true}, null])
sprintf("%v", [{"b", "a"}]), sprintf("%q", ["a\\n"])
"""


def ask_opa(asked: dict[str, list[Arguments]]) -> dict[str, dict[int, Any]]:
    """Return OPA's answers by call and number; in one go, for starting an OPA takes longest."""
    assert OPA is not None
    queries = (
        f"{json.dumps(call)}: [[i, z] | some i, v in input[{json.dumps(call)}]; z := {call}]"
        for call in asked
    )
    done = subprocess.run(
        [OPA, "eval", "--format=raw", "--stdin-input", "{" + ", ".join(queries) + "}"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {call: dict(found) for call, found in json.loads(done.stdout).items()}


def ask_ours(call: str, vectors: list[Arguments]) -> list[Any]:
    """Return what an engine with our functions answers, `MISSING` where it fails."""
    engine = regorus.Engine()
    install_shims(engine)
    engine.add_policy("t.rego", f"package t\n\nv := input\n\nx := [{call}]\n")
    return [_ask(engine, vector) for vector in vectors]


def _ask(engine: regorus.Engine, vector: Arguments) -> Any:  # noqa: ANN401 - JSON
    engine.set_input_json(json.dumps(vector))
    try:
        answer = engine.eval_rule_as_json("data.t.x")
    except RuntimeError:  # a panic is none, and fails the test
        return MISSING
    return MISSING if answer == '"<undefined>"' else json.loads(answer)[0]


def alike(one: object, other: object) -> bool:
    """Whether two answers are the same: `1` is no `true`, and 1 is 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def test_every_function_that_may_be_called_is_held_against_opa() -> None:
    elsewhere = {"union", "intersection", "walk", *ADDED}  # ADDED: test_shims_like_opa
    assert {*TAKES, *elsewhere} == ALLOWED


def test_what_a_function_answers_opa_answers(capsys: pytest.CaptureFixture[str]) -> None:
    asked = dict(calls(EACH, SEED))
    theirs = ask_opa(asked)
    counted: Counter[str] = Counter()
    wrong = []
    for call, vectors in asked.items():
        for number, answer in enumerate(ask_ours(call, vectors)):
            opa = theirs[call].get(number, MISSING)
            if answer is MISSING:
                counted["equal" if opa is MISSING else "engine_error"] += 1
            elif opa is not MISSING and alike(answer, opa):
                counted["equal"] += 1
            else:
                wrong.append((call, vectors[number], opa, answer))
    with capsys.disabled():
        print(f"\nfunctions: {len(asked)} calls, {dict(counted)}")  # noqa: T201 - the count is wanted
    assert wrong == []
    assert counted["equal"] > 3 * counted["engine_error"] > 0


def test_ordinary_arguments_are_answered_alike() -> None:
    found = [line.strip() for line in ORDINARY.splitlines() if line.strip()]
    expressions = [f"[{line}]" for line in found]
    theirs = ask_opa({expression: [[]] for expression in expressions})
    for expression in expressions:
        assert ask_ours(expression, [[]])[0] == theirs[expression][0], expression


def test_numbers_that_opa_itself_cannot_write_are_an_error_here() -> None:
    texts = [[text] for text in POOLS["unreadable_numbers"]]
    assert ask_ours("to_number(v[0])", texts) == [MISSING] * len(texts)
