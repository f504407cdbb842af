"""What a search draws: always what the schema takes, around what somebody wrote down."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.schema import compile_schema
from gateway.adapters.authoring.search_constants import Constants, find_constants
from gateway.adapters.authoring.search_values import Arguments, Pool
from gateway.adapters.policy.policy_bundle import build_bundle
from tests.effort import share

pytestmark = pytest.mark.req("POL-09")

POLICY: Final = """package policies.a

limit := 250

people := {"ann", `Bob`}

permit contains {"code": "small", "message": "words for people"} if {
	input.context.args.amount <= limit
	is_number(input.context.args.amount)
	input.context.args.to["deep/er"] == "Acme.Example"
	input.environment == "prod"
}
"""
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "$defs": {"money": {"type": "number", "minimum": 5, "maximum": 90}},
    "properties": {
        "amount": {"$ref": "#/$defs/money"},
        "count": {"type": "integer", "minimum": 1},
        "note": {"type": "string", "minLength": 3, "examples": ["xyz"]},
        "kind": {"enum": ["a", "b", None]},
        "fixed": {"const": 7},
        "flag": {"type": "boolean"},
        "none": {"type": ["null", "string"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "one": {"oneOf": [{"const": 1}, {"const": 2}]},
        "list": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "items": {"items": {"type": "number"}},
        "inner": {"properties": {"x": {"type": "string"}}, "required": ["x"]},
        "any": {},
        "true": True,
    },
    "required": ["amount", "count"],
}


def pool(*more: object) -> Pool:
    return Pool(Constants(numbers=(250,), strings=("acme.example",)), *more)


def arguments(schema: dict[str, Any] | None, *pointers: str) -> Arguments:
    check = compile_schema(schema or {"type": "object", "additionalProperties": True})
    schemas = [] if schema is None else [schema]
    return Arguments(schemas, pointers, pool(7, "kp"), lambda found: check.failure(found) is None)


def test_constants_are_those_that_rules_and_data_name() -> None:
    data = {"authority": {"policies": {"a": ["shop"]}}, "caps": {"eu": [99, True, None]}}
    found = find_constants(build_bundle({"a.rego": POLICY}, data))
    assert set(found.numbers) == {250, 99}
    assert {"ann", "Bob", "Acme.Example", "prod", "caps", "eu"} <= set(found.strings)
    assert not {"small", "words for people", "shop"} & set(found.strings)
    assert found.arguments == (("amount",), ("to", "deep/er"))


def test_a_pool_has_the_values_their_neighbours_and_other_spellings() -> None:
    found = pool(7.5, "kp", [True], None)
    assert {249, 250, 251, 125, 500, 7.5, 7} <= set(found.numbers)
    assert {"kp", "KP", "kp ", "ACME.EXAMPLE", "x@acme.example.evil.example"} <= set(found.strings)
    assert found.named == ("kp", "acme.example")


@settings(max_examples=share(60), deadline=None)
@given(seed=st.integers())
def test_what_is_drawn_and_varied_is_what_the_schema_takes(seed: int) -> None:
    drawn, random = arguments(SCHEMA), Random(seed)  # noqa: S311
    check = compile_schema(SCHEMA)
    found = drawn.draw(random)
    assert found is not None
    assert check.failure(found) is None
    assert 5 <= found["amount"] <= 90
    varied = drawn.vary(found, random)
    assert varied is None or check.failure(varied) is None
    assert arguments(SCHEMA).draw(Random(seed)) == arguments(SCHEMA).draw(Random(seed))  # noqa: S311


def test_every_type_is_tried_where_nothing_is_known_of_an_argument() -> None:
    random, drawn = Random(1), arguments(None, "/amount", "/to/country", "/list/0")  # noqa: S311
    seen: set[type] = set()
    nested = 0
    for _ in range(400):
        found = drawn.draw(random)
        assert found is not None
        seen.add(type(found.get("amount")))
        nested += isinstance(found.get("to"), dict) and "country" in found["to"]
    assert {int, float, str, bool, list, dict, type(None)} <= seen
    assert nested > 50


def test_a_pointer_into_what_a_schema_describes_adds_nothing() -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string"}}}
    drawn = arguments(schema, "/to/country")
    assert drawn.schema["properties"]["to"] == {"type": "string"}


def test_two_schemas_of_one_tool_are_drawn_from_together() -> None:
    own = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    reviewed = {"type": "object", "properties": {"n": {"maximum": 10}}}
    drawn = Arguments([own, reviewed], (), pool(), lambda found: found["n"] <= 10)
    random = Random(2)  # noqa: S311
    assert all((drawn.draw(random) or {"n": 99})["n"] <= 10 for _ in range(50))


def test_where_nothing_fits_nothing_is_drawn() -> None:
    drawn = Arguments([SCHEMA], (), pool(), lambda _found: False)
    random = Random(3)  # noqa: S311
    assert drawn.draw(random) is None
    assert drawn.vary({"amount": 6}, random) is None
    assert Arguments([], (), pool(), lambda _found: True).vary({}, random) is None
