"""Numbers that engines keep differently, and functions of bits."""

from __future__ import annotations

import json
from typing import Any

import pytest
import regorus

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.adapters.regorus.engine_shims import install_shims
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-05")


def refused(rule: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        build_bundle({"t.rego": f"package policies.t\n\n{rule}\n"}, {})
    return str(raised.value)


def evaluate(expression: str, given: str) -> Any:  # noqa: ANN401 - JSON
    engine = regorus.Engine()
    install_shims(engine)
    engine.add_policy("t.rego", f"package t\n\nv := input.v\n\nx := [{expression}]\n")
    engine.set_input_json(f'{{"v": {given}}}')
    return json.loads(engine.eval_rule_as_json("data.t.x"))[0]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("x := json.marshal(1000.0)", "t.rego:3:19: OPA writes this number with its point"),
        ('x := sprintf("%d", [1e3])', "t.rego:3:21: OPA writes this number with its point"),
        ("x := -2.0", "as a whole number"),
        ("x := 0.1234567890123456789", "t.rego:3:6: OPA keeps all digits"),
        ("x := bits.lsh(1, input.context.args.n)", "t.rego:3:6: `bits.lsh` by many places"),
        ("x := bits.lsh(1, 4611686018427387904)", "write the number of places out, 0 to 53"),
        ("x := bits.lsh()", "write the number of places out, 0 to 53"),
    ],
)
def test_numbers_that_engines_keep_differently_are_refused(rule: str, said: str) -> None:
    assert said in refused(rule)


@pytest.mark.parametrize("rule", ["x := [1000, -1]", "x := 1.50 + 2.5e-1", "x := bits.lsh(1, 53)"])
def test_numbers_that_engines_keep_alike_are_let_through(rule: str) -> None:
    build_bundle({"t.rego": f"package policies.t\n\n{rule}\n"}, {})


@pytest.mark.parametrize(
    ("expression", "given", "expected"),
    [
        ("bits.and(v, 4)", "7", 4),
        ("bits.and(v, 4)", "6.0", 4),
        ("bits.or(v, 4)", "-8", -4),
        ("bits.xor(v, 5)", "3", 6),
        ("bits.negate(v)", "5", -6),
        ("bits.rsh(v, 200)", "-5", -1),
        ("bits.rsh(v, 1)", "5", 2),
        ("bits.lsh(v, 2)", "5", 20),
    ],
)
def test_bits_are_those_of_whole_numbers(expression: str, given: str, expected: int) -> None:
    assert evaluate(expression, given) == expected


@pytest.mark.parametrize(
    "given", ["18446744073709551620", "9007199254740992", "1.5", '"1"', "null"]
)
@pytest.mark.parametrize(
    "expression",
    [*(f"bits.{name}(v, 4)" for name in ("and", "or", "xor", "lsh", "rsh")), "bits.negate(v)"],
)
def test_bits_of_other_things_are_an_error_that_denies(expression: str, given: str) -> None:
    with pytest.raises(RuntimeError):
        evaluate(expression, given)


@pytest.mark.parametrize("expression", ["bits.rsh(1, v)", "bits.lsh(1, v)"])
def test_no_move_is_backwards(expression: str) -> None:
    with pytest.raises(RuntimeError):
        evaluate(expression, "-1")


@pytest.mark.parametrize("value", ["-v", "-input.n", "-count([1])", "[1, -v][1]"])
def test_a_minus_before_what_is_not_written_out_fails_and_is_refused(value: str) -> None:
    assert "write `0 - x`" in refused(f"r := {value} if v := 5")
    with pytest.raises(RuntimeError):
        evaluate(value, "5")


def test_a_minus_before_a_number_is_let_through() -> None:
    build_bundle({"t.rego": "package policies.t\n\nr := -5 - -1\n"}, {})
    assert evaluate("-5 - v", "1") == -6
