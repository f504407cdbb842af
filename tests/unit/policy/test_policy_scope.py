from __future__ import annotations

import json

import pytest
import regorus
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.policy_bundle import MAIN_PATH, find_rego_root
from gateway.adapters.policy.policy_scope import EFFECTS, PHASES, Scope, read_scope
from tests.effort import share

TOOLS = ["shop.act", "shop.act2", "shop-x.act", "shopXact", "bank.pay", "bank.pay.more", "a\nb"]
GLOBS = ["*", "shop.*", "*.act", "shop.act", "b*y*", "shop-x.*", "*.*.*"]


def test_a_scope_that_names_nothing_matches_everything() -> None:
    assert Scope().matches("shop.act", "shop", "read", "call")
    assert Scope().as_data() == {}


def test_every_selector_must_match() -> None:
    scope = Scope(tools=("shop.*",), phases=("call",))
    assert scope.matches("shop.act", "shop", "read", "call")
    assert not scope.matches("shop.act", "shop", "read", "list")
    assert not scope.matches("bank.act", "bank", "read", "call")


def test_a_dot_is_a_dot_and_a_star_is_anything() -> None:
    assert not Scope(tools=("shop.act",)).matches("shopXact", "s", "read", "call")
    assert Scope(tools=("shop.*",)).matches("shop.a.b\n", "s", "read", "call")
    assert not Scope(tools=("shop.act",)).matches("shop.act\n", "s", "read", "call")


def test_a_scope_is_read_as_written() -> None:
    scope, faults = read_scope({"tools": ["shop.*"], "servers": ["shop"]})
    assert scope == Scope(tools=("shop.*",), servers=("shop",))
    assert faults == []


@pytest.fixture(scope="module")
def elsewhere() -> regorus.Engine:
    engine = regorus.Engine()
    engine.add_policy("main.rego", (find_rego_root() / MAIN_PATH).read_text(encoding="utf-8"))
    engine.add_policy("a.rego", 'package policies.a\ndeny contains {"code": "heard"}\n')
    return engine


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=2).map(tuple)


@settings(max_examples=share(150))
@given(
    st.builds(
        Scope,
        tools=some(GLOBS),
        servers=some(["shop", "bank"]),
        effects=some(list(EFFECTS)),
        phases=some(list(PHASES)),
    ),
    st.tuples(
        st.sampled_from(TOOLS),
        st.sampled_from(["shop", "bank"]),
        st.sampled_from(EFFECTS),
        st.sampled_from(PHASES),
    ),
)
def test_the_resolver_and_the_entry_point_agree(
    elsewhere: regorus.Engine, scope: Scope, call: tuple[str, str, str, str]
) -> None:
    tool, server, effect, phase = call
    engine = elsewhere.clone()
    engine.add_data_json(json.dumps({"applies_to": {"a": scope.as_data()}}))
    resource = {"id": tool, "server": server, "effect": effect}
    engine.set_input_json(json.dumps({"version": 1, "phase": phase, "resource": resource}))
    answer = engine.eval_rule_as_json("data.countersign.decision")
    assert ("heard" in answer) is scope.matches(*call)
