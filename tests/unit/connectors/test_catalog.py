from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connectors.catalog import Catalog, ToolStatus
from connectors.listing import definition_digest, read_offers
from connectors.memory import build_definition
from gateway.core.canonical import digest_of
from gateway.core.catalog import Review
from tests.unit.connectors.calls import build_manifest

pytestmark = pytest.mark.req("GW-08")

AS_A_TASK = b'{"name":"t","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}}'
REFUND = build_definition("refund", {"type": "object", "properties": {"amount": {}}})


def review(raw: bytes = REFUND, **more: Any) -> Review:  # noqa: ANN401 - any key of a Review
    offers, _ = read_offers([raw])
    (offer,) = offers.values()
    given = {"name": offer.name, "effect": "money", "definition_digest": offer.digest}
    return Review(**{**given, **more})


def catalog_of(
    *reviews: Review, offered: list[bytes] | None = None, prefix: bool = True
) -> Catalog:
    catalog = Catalog()
    catalog.review(build_manifest(*reviews), prefix=prefix)
    if offered is not None:
        catalog.offer("srv", offered)
    return catalog


def states(catalog: Catalog) -> dict[str, str]:
    return {status.name: status.state for status in catalog.states()}


def only(catalog: Catalog) -> ToolStatus:
    (status,) = catalog.states()
    return status


def test_a_reviewed_and_pinned_tool_is_callable() -> None:
    catalog = catalog_of(review(reviewed_by="Ann"), offered=[REFUND])
    tool = catalog.view().find("srv__refund", None)
    assert tool is not None
    assert tool == catalog.view().find("refund", "srv")
    assert catalog.view().callable_tools(None) == catalog.view().callable_tools("srv") == (tool,)
    assert (tool.id, tool.definition) == ("srv.refund", REFUND)
    assert only(catalog).usable
    assert only(catalog).reviewed_by == "Ann"


def test_the_policy_input_gets_what_the_reviewer_said() -> None:
    said = review(
        labels=("pii",),
        sensitive=("/to",),
        sensitive_out=("/iban",),
        idempotency="key",
        undo="unrefund",
    )
    tool = catalog_of(said, offered=[REFUND]).view().find("refund", "srv")
    assert tool is not None
    assert tool.resource == {
        "type": "tool",
        "id": "srv.refund",
        "server": "srv",
        "effect": "money",
        "reversible": True,
        "idempotency": "key",
        "sensitive": ["/to"],
        "sensitive_out": ["/iban"],
        "labels": ["pii"],
        "sinks": [],
        "texts": [],
        "sums": [],
        "definition_digest": tool.definition_digest,
    }


@pytest.mark.parametrize(
    ("more", "reversible"),
    [({}, False), ({"effect": "read"}, True), ({"reversible_by": "unrefund"}, True)],
)
def test_what_leaves_nothing_behind_or_can_be_undone_is_reversible(
    more: dict[str, Any], *, reversible: bool
) -> None:
    tool = catalog_of(review(**more), offered=[REFUND]).view().find("refund", "srv")
    assert tool is not None
    assert tool.resource["reversible"] is reversible


def test_an_unreviewed_tool_is_neither_listed_nor_callable_but_shown() -> None:
    catalog = catalog_of(offered=[REFUND])
    assert catalog.view().callable_tools(None) == ()
    assert catalog.view().find("srv__refund", None) is None
    assert catalog.view().find("refund", "srv") is None
    status = only(catalog)
    assert (status.state, status.effect, status.usable) == ("unreviewed", "unreviewed", False)
    assert status.live_digest is not None


def test_a_tool_without_an_approved_digest_is_not_callable() -> None:
    catalog = catalog_of(review(definition_digest=None), offered=[REFUND])
    assert states(catalog) == {"refund": "unpinned"}
    assert catalog.view().callable_tools(None) == ()


def test_a_changed_definition_is_quarantined_until_it_is_as_it_was() -> None:
    catalog = catalog_of(review(), offered=[REFUND])
    before = catalog.view()
    assert catalog.offer("srv", [build_definition("refund")])
    assert states(catalog) == {"refund": "quarantined"}
    assert catalog.view().callable_tools(None) == ()
    assert catalog.view().version != before.version
    assert before.find("refund", "srv") is not None  # a call under way keeps its snapshot
    assert catalog.offer("srv", [REFUND])
    assert catalog.view().version == before.version


def test_a_changed_definition_that_would_end_whoever_compiles_it_is_quarantined() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(5_000)}
    schema = {"type": "object", "$ref": "#/$defs/d0", "$defs": {**chain, "d5000": {}}}
    catalog = catalog_of(review(), offered=[REFUND])
    assert catalog.offer("srv", [build_definition("refund", schema)])
    assert states(catalog) == {"refund": "quarantined"}
    assert catalog.view().callable_tools(None) == ()


def test_the_order_of_keys_is_no_change() -> None:
    turned = orjson.dumps(dict(reversed(orjson.loads(REFUND).items())))
    assert turned != REFUND
    assert states(catalog_of(review(), offered=[turned])) == {"refund": "callable"}


def test_until_a_server_is_listed_its_tools_are_missing() -> None:
    catalog = catalog_of(review())
    assert states(catalog) == {"refund": "missing"}
    catalog.offer("srv", [])
    assert states(catalog) == {"refund": "missing"}


def test_an_unchanged_listing_is_nothing_new() -> None:
    catalog = catalog_of(review(), offered=[REFUND])
    view = catalog.view()
    assert not catalog.offer("srv", [REFUND])
    assert catalog.view() is view


def test_a_server_without_a_manifest_is_not_taken() -> None:
    with pytest.raises(KeyError):
        Catalog().offer("srv", [])


def test_a_new_review_changes_the_version() -> None:
    catalog = catalog_of(review(), offered=[REFUND])
    before = catalog.view().version
    catalog.review(build_manifest(review(labels=("pii",))))
    assert catalog.view().version != before


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (build_definition("a.b"), "no tool name"),
        (build_definition("x" * 60), "no tool name"),
        (build_definition("countersign_x"), "no tool name"),
        (build_definition("a\r\nb"), "no tool name"),
        (b'{"name":"t"}', "inputSchema"),
        (AS_A_TASK, "only as a task"),
        (build_definition("t", {"type": "array"}), "inputSchema"),
        (build_definition("t", {"type": "object", "x-mcp-header": "A"}), "misplaced"),
    ],
)
def test_a_tool_that_cannot_be_offered_says_why(raw: bytes, problem: str) -> None:
    catalog = catalog_of(review(raw), offered=[raw])
    assert catalog.view().callable_tools(None) == ()
    assert problem in str(only(catalog).problem)
    assert not only(catalog).usable


@pytest.mark.parametrize(
    "raw",
    [b"[]", b"7", b"{}", b'{"name":""}', b'{"name":7}', b'{"name":"a","name":"a"}', b'{"n":1e999}'],
)
def test_a_definition_that_cannot_be_read_is_shown_without_a_name(raw: bytes) -> None:
    catalog = catalog_of(offered=[raw])
    status = only(catalog)
    assert status.name.startswith("?")
    assert status.problem is not None
    assert status.live_digest is None


def test_two_tools_of_one_name_are_neither_of_them_callable() -> None:
    other = build_definition("refund")
    catalog = catalog_of(review(), offered=[REFUND, other, REFUND])
    assert catalog.view().callable_tools(None) == ()
    assert states(catalog) == {"refund": "quarantined"}
    assert "two tools" in str(only(catalog).problem)


def test_without_a_prefix_the_wire_name_is_the_bare_name() -> None:
    catalog = catalog_of(review(), offered=[REFUND], prefix=False)
    assert catalog.view().find("refund", None) is not None
    assert catalog.view().find("srv__refund", None) is None


def test_names_that_would_lead_to_two_tools_lead_to_none() -> None:
    catalog = catalog_of(review(), offered=[REFUND], prefix=False)
    other = replace(build_manifest(review()), id="other")
    catalog.review(other, prefix=False)
    catalog.offer("other", [REFUND])
    assert catalog.view().callable_tools(None) == ()
    assert catalog.view().find("refund", "srv") is None
    assert ["prefix: true" in str(status.problem) for status in catalog.states()] == [True, True]
    catalog.review(other, prefix=True)
    assert [tool.wire_name for tool in catalog.view().callable_tools(None)] == [
        "other__refund",
        "refund",
    ]


keywords = st.sampled_from(
    [
        "type", "properties", "patternProperties", "items", "prefixItems", "allOf", "anyOf",
        "$ref", "$defs", "$schema", "$id", "additionalProperties", "unevaluatedProperties", "not",
        "if", "then", "dependentSchemas", "dependencies", "x-mcp-header", "required", "enum",
        "pattern", "exclusiveMinimum", "definitions", "default",
    ]
)  # fmt: skip
scalars = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "#", "#/", "#/$defs/a", "object", "(", "a", 2**60]
)
junk: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=4),
    max_leaves=12,
)


@given(junk, st.sampled_from(["", "http://json-schema.org/draft-07/schema#"]))
def test_nothing_that_an_upstream_offers_can_break_the_catalog(value: object, dialect: str) -> None:
    schema = {"type": "object", **value} if isinstance(value, dict) else value
    if dialect and isinstance(schema, dict):
        schema["$schema"] = dialect
    raw = orjson.dumps({"name": "t", "inputSchema": schema})
    offers, _ = read_offers([raw])
    reviewed = [review(raw)] if offers else []
    catalog = catalog_of(*reviewed, offered=[raw])
    for tool in catalog.view().callable_tools(None):
        tool.schema.failure({"a": 1})


def test_the_digest_is_of_the_canonical_form() -> None:
    definition = {"name": "a", "inputSchema": {"type": "object"}}
    assert definition_digest(definition) == digest_of(definition)


def test_arguments_are_checked_against_the_reviewers_schema_too() -> None:
    narrow = {"type": "object", "properties": {"amount": {"maximum": 500}}}
    tool = catalog_of(review(input_schema=narrow), offered=[REFUND]).view().find("refund", "srv")
    assert tool is not None
    assert tool.schema.failure({"amount": 501}) == "/amount: maximum"
