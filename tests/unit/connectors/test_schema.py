from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.schema import close, compile_schema

pytestmark = pytest.mark.req("GW-08")

DRAFT7 = "http://json-schema.org/draft-07/schema#"


def obj(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - any keyword
    return {"type": "object", **more}


def accepts(schema: dict[str, Any], arguments: dict[str, Any]) -> bool:
    return compile_schema(schema).failure(arguments) is None


def test_what_a_silent_schema_does_not_name_is_refused() -> None:
    schema = obj(properties={"amount": {"type": "integer"}})
    assert accepts(schema, {"amount": 1})
    assert compile_schema(schema).failure({"amount": 1, "to": "me"}) == "/to: not in the schema"
    assert not accepts(obj(), {"a": 1})


@pytest.mark.parametrize("open_", [{"additionalProperties": True}, {"unevaluatedProperties": {}}])
def test_what_a_schema_says_is_left_as_it_says(open_: dict[str, Any]) -> None:
    assert accepts(obj(**open_), {"anything": 1})


def test_a_schema_that_is_closed_already_is_asked_once_and_any_other_twice() -> None:
    inner = obj(properties={"b": {}}, additionalProperties=False)
    shut = obj(properties={"a": inner}, additionalProperties=False)
    assert len(compile_schema(shut).validators) == 1
    assert not accepts(shut, {"a": {"c": 1}})
    silent = obj(properties={"a": obj(properties={"b": {}})}, additionalProperties=False)
    assert len(compile_schema(silent).validators) == 2
    assert not accepts(silent, {"a": {"c": 1}})


def test_the_failure_says_where_and_which_rule_but_no_value() -> None:
    schema = obj(properties={"a": obj(properties={"b": {"maximum": 5}})})
    assert compile_schema(schema).failure({"a": {"b": 777_777}}) == "/a/b: maximum"


@pytest.mark.parametrize(
    ("more", "arguments", "told"),
    [
        ({"required": ["order_id"]}, {}, "/order_id: required"),
        ({}, {"amount": "12"}, "/amount: type integer or null"),
        ({"additionalProperties": False}, {"amout": 1}, "/amout: not in the schema"),
        ({}, {"to": {"nam": "x", "mail": 3}}, "/to/name: required; /to/mail: type string"),
        ({}, {"list": [1, "b", 2, 3, 4]}, "/list/0: type string; /list/2: type string; /list/3: "),
        ({}, {"amount": 2.5, "none": 1}, "/amount: type integer or null; /none: not allowed"),
    ],
)
def test_an_agent_is_told_what_to_mend(
    more: dict[str, Any], arguments: dict[str, Any], told: str
) -> None:
    person = obj(properties={"name": {}, "mail": {"type": "string"}}, required=["name"])
    properties = {
        "amount": {"type": ["integer", "null"]},
        "to": person,
        "list": {"items": {"type": "string"}},
        "none": False,
    }
    failure = compile_schema(obj(properties=properties, **more)).failure(arguments)
    assert failure is not None
    assert failure.startswith(told)
    assert failure.count(";") <= 2


@pytest.mark.parametrize("draft", ["draft/2019-09", "draft-07", "draft-06", "draft-04"])
def test_an_agent_is_told_so_whatever_the_dialect(draft: str) -> None:
    scheme = "https" if "2019" in draft else "http"
    schema = obj(properties={"a": {"type": "string"}}, required=["a"])
    schema["$schema"] = f"{scheme}://json-schema.org/{draft}/schema"
    check = compile_schema(schema)
    assert check.failure({}) == "/a: required"
    assert check.failure({"a": 1}) == "/a: type string"
    assert check.failure({"a": "x", "b": 1}) == "/b: not in the schema"


@pytest.mark.parametrize(
    ("schema", "inside"),
    [
        (obj(properties={"a": obj(properties={"x": {}})}), lambda value: {"a": value}),
        (obj(properties={"a": {"items": {"properties": {"x": {}}}}}), lambda v: {"a": [v]}),
        (obj(properties={"a": {"prefixItems": [{"properties": {"x": {}}}]}}), lambda v: {"a": [v]}),
        (obj(additionalProperties={"properties": {"x": {}}}), lambda v: {"any": v}),
        (obj(patternProperties={"^a": {"properties": {"x": {}}}}), lambda v: {"a": v}),
        (
            obj(
                properties={"a": {"$ref": "#/$defs/M"}},
                **{"$defs": {"M": {"properties": {"x": {}}}}},
            ),
            lambda v: {"a": v},
        ),
        (
            obj(
                properties={"a": {"anyOf": [{"$ref": "#/$defs/M"}, {"type": "null"}]}},
                **{"$defs": {"M": {"type": "object", "properties": {"x": {}}}}},
            ),
            lambda v: {"a": v},
        ),
        (
            obj(
                properties={"a": {"$ref": "#/$defs/M"}},
                **{"$defs": {"M": {"properties": {"m": {"properties": {"x": {}}}}}}},
            ),
            lambda v: {"a": {"m": v}},
        ),
        (
            obj(
                properties={"a": {"allOf": [{"properties": {"x": {}}}, {"properties": {"y": {}}}]}}
            ),
            lambda v: {"a": v},
        ),
        (
            obj(
                properties={"a": {"dependentSchemas": {"x": {"properties": {"x": {}}}}}},
            ),
            lambda v: {"a": v},
        ),
        (
            obj(properties={"a": {"if": {"required": ["x"]}, "then": {"properties": {"x": {}}}}}),
            lambda v: {"a": v},
        ),
        (
            {"$schema": DRAFT7, **obj(properties={"a": {"items": [{"properties": {"x": {}}}]}})},
            lambda v: {"a": [v]},
        ),
        (
            {
                "$schema": DRAFT7,
                **obj(
                    properties={"a": {"$ref": "#/definitions/M"}},
                    definitions={"M": {"properties": {"x": {}}}},
                ),
            },
            lambda v: {"a": v},
        ),
    ],
)
def test_objects_inside_are_closed_too(schema: dict[str, Any], inside: Any) -> None:  # noqa: ANN401 - a function
    assert accepts(schema, inside({"x": 1}))
    assert not accepts(schema, inside({"x": 1, "unseen": 1}))


M = {"type": "object", "properties": {"x": {}}}
DRAFT2019 = "https://json-schema.org/draft/2019-09/schema"


@pytest.mark.parametrize(
    ("more", "schema"),
    [
        (
            {"properties": {"b": {"anyOf": [M, {"type": "null"}]}}},
            {"$ref": "#/properties/b/anyOf/0"},
        ),
        ({"$defs": {"M": M}}, {"$ref": "#/%24defs/M"}),
        ({"$defs": {"M": M}}, {"$dynamicRef": "#/$defs/M"}),
        ({"$defs": {"M": {"$dynamicAnchor": "M", **M}}}, {"$dynamicRef": "#M"}),
        ({"$defs": {"M": {"$anchor": "M", **M}}}, {"$ref": "#M"}),
        (
            {"$defs": {"M": {"type": "string"}}},
            {"$id": "https://a.example/b", "$ref": "#/$defs/M", "$defs": {"M": M}},
        ),
        ({"components": {"schemas": {"M": M}}}, {"$ref": "#/components/schemas/M"}),
    ],
)
def test_objects_are_closed_however_they_are_referred_to(
    more: dict[str, Any], schema: dict[str, Any]
) -> None:
    whole = obj(**more)
    whole["properties"] = {**whole.get("properties", {}), "a": schema}
    assert accepts(whole, {"a": {"x": 1}})
    assert not accepts(whole, {"a": {"x": 1, "unseen": 1}})


def test_objects_within_what_is_referred_to_are_closed_wherever_it_stands() -> None:
    schemas = {"N": {"type": "object", "properties": {"m": M}}}
    refers = {"a": {"$ref": "#/components/schemas/N"}}
    schema = obj(properties=refers, components={"schemas": schemas})
    assert accepts(schema, {"a": {"m": {"x": 1}}})
    assert not accepts(schema, {"a": {"m": {"x": 1, "unseen": 1}}})


def test_the_items_of_2019_are_closed() -> None:
    listed = {"type": "array", "items": [M], "additionalItems": M}
    schema = {"$schema": DRAFT2019, **obj(properties={"a": listed})}
    assert accepts(schema, {"a": [{"x": 1}, {"x": 1}]})
    assert not accepts(schema, {"a": [{"unseen": 1}]})
    assert not accepts(schema, {"a": [{}, {"unseen": 1}]})


def test_what_is_referred_to_and_names_nothing_stays_open() -> None:
    anything = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    refers = {"$ref": "#/properties/b/anyOf/0"}
    assert accepts(obj(properties={"a": refers, "b": anything}), {"a": {"anything": 1}})


def test_an_inner_object_that_names_nothing_stays_open() -> None:
    assert accepts(obj(properties={"a": {"type": "object"}}), {"a": {"anything": 1}})
    assert accepts(obj(properties={"a": True}), {"a": {"anything": 1}})


def test_a_schema_that_contains_itself_is_closed() -> None:
    schema = obj(
        properties={"next": {"$ref": "#/$defs/N"}},
        **{"$defs": {"N": {"anyOf": [{"$ref": "#/$defs/N2"}]}, "N2": {"$ref": "#/$defs/N"}}},
    )
    assert close(schema)["properties"]["next"] == {"$ref": "#/$defs/N"}
    node = obj(properties={"next": {"$ref": "#"}})
    assert accepts(node, {"next": {"next": {}}})
    assert not accepts(node, {"next": {"other": {}}})


def test_closing_inside_a_choice_lets_nothing_more_through() -> None:
    branch = {"properties": {"a": obj(properties={"x": {}})}}
    other = {"properties": {"a": obj(properties={"y": {}})}}
    schema = obj(oneOf=[branch, other])
    assert not accepts(schema, {"a": {"x": 1}})  # both branches take it, so the upstream refuses


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (None, "not of type `object`"),
        (True, "not of type `object`"),
        ({}, "not of type `object`"),
        ({"type": "array"}, "not of type `object`"),
        (obj(properties={"a": {"$ref": "https://evil.example/s"}}), "only `#…`"),
        (obj(properties={"a": {"$ref": 7}}), "only `#…`"),
        (obj(allOf=[{"$dynamicRef": "file:///etc/passwd"}]), "only `#…`"),
        ({"$schema": "https://evil.example/s", **obj()}, "unknown dialect"),
        (obj(properties={"a": {"type": "nonsense"}}), "not a valid JSON Schema"),
        (obj(properties={"a": {"$ref": "#/$defs/none"}}), "not a valid JSON Schema"),
        (obj(properties={"a": {"pattern": "("}}), "not a valid JSON Schema"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(schema: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        compile_schema(schema)


def test_what_a_reviewer_demands_is_told_from_what_the_server_says() -> None:
    with pytest.raises(ValueError, match="`in` of its manifest is not of type `object`; add"):
        compile_schema(obj(), {"properties": {"a": {"maximum": 1}}})


def test_a_reference_within_data_is_none() -> None:
    schema = obj(properties={"a": {"default": {"$ref": "https://evil.example/s"}}})
    assert accepts(schema, {"a": 1})


@pytest.mark.parametrize(
    ("dialect", "schema", "good", "bad"),
    [
        (DRAFT7, obj(properties={"id": {}, "items": {}}), {"id": 1, "items": 2}, {"other": 1}),
        (
            DRAFT7,
            obj(properties={"a": {}, "b": {}}, dependencies={"a": ["b"]}),
            {"a": 1, "b": 1},
            {"a": 1},
        ),
        (
            DRAFT7,
            obj(properties={"a": {"items": [{"const": 1}], "additionalItems": False}}),
            {"a": [1]},
            {"a": [1, 2]},
        ),
        (
            "http://json-schema.org/draft-04/schema#",
            obj(properties={"a": {"minimum": 1, "exclusiveMinimum": True}}),
            {"a": 2},
            {"a": 1},
        ),
        ("http://json-schema.org/draft-06/schema#", obj(properties={"a": {}}), {"a": 1}, {"b": 1}),
        (
            "https://json-schema.org/draft/2019-09/schema",
            obj(properties={"a": {}}),
            {"a": 1},
            {"b": 1},
        ),
    ],
)
def test_older_dialects_are_closed_and_keep_their_meaning(
    dialect: str, schema: dict[str, Any], good: dict[str, Any], bad: dict[str, Any]
) -> None:
    schema = {"$schema": dialect, **schema}
    assert accepts(schema, good)
    assert not accepts(schema, bad)


def test_a_pattern_cannot_stall_the_gateway() -> None:
    schema = obj(properties={"a": {"pattern": r"^(a|a)*(?=c)$"}})
    assert compile_schema(schema).failure({"a": "a" * 64}) == "/a: pattern"


def test_a_reviewer_may_demand_more() -> None:
    check = compile_schema(
        obj(properties={"amount": {"type": "integer"}}),
        obj(properties={"amount": {"maximum": 500}}),
    )
    assert check.failure({"amount": 500}) is None
    assert check.failure({"amount": 501}) == "/amount: maximum"
    assert check.failure({"amount": "x"}) == "/amount: type integer"


names = st.sampled_from(["a", "b", "c"])
schemas = st.recursive(
    st.sampled_from([{}, {"type": "object"}, {"type": "integer"}, True]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(names, inner, max_size=2)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"not": inner}),
        *(
            st.fixed_dictionaries({keyword: st.lists(inner, min_size=1, max_size=2)})
            for keyword in ("allOf", "anyOf", "oneOf")
        ),
        st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
        st.fixed_dictionaries(
            {"properties": st.dictionaries(names, inner), "required": st.just(["a"])}
        ),
    ),
    max_leaves=6,
)
values = st.recursive(
    st.integers(0, 1),
    lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=6,
)


@given(schemas.filter(lambda s: isinstance(s, dict)), st.dictionaries(names, values))
def test_closing_never_accepts_what_the_upstream_refuses(
    schema: dict[str, Any], arguments: dict[str, Any]
) -> None:
    schema = {**schema, "type": "object"}
    if accepts(schema, arguments):
        assert jsonschema_rs.Draft202012Validator(schema).is_valid(arguments)


@given(st.dictionaries(names, schemas, max_size=3), st.dictionaries(names, values))
def test_a_closed_object_holds_only_what_is_named(
    properties: dict[str, Any], arguments: dict[str, Any]
) -> None:
    if accepts(obj(properties=properties), arguments):
        assert arguments.keys() <= properties.keys()
