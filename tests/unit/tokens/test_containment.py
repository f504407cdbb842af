"""What may be handed on: a child that is within its parent reaches nothing its parent does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.core.catalog import Tool
from gateway.core.constraints import is_implied, is_satisfied
from gateway.core.grants import CompiledGrants, find_ambiguity, find_excess
from gateway.core.token import Claims, Constraint, Grant

pytestmark = pytest.mark.req("GW-10")

SAME_FIXTURES: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.integers(-3, 3) | st.sampled_from([-0.5, 0.5, 1.0, 2.5])
TEXTS = st.sampled_from(["", "a", "ab", "abc", "b"])
SCALARS = NUMBERS | TEXTS | st.booleans()
VALUES = SCALARS | st.none() | st.lists(SCALARS, max_size=1)
CONSTRAINTS = st.builds(
    Constraint,
    max=st.none() | NUMBERS,
    min=st.none() | NUMBERS,
    one_of=st.none() | st.lists(SCALARS, max_size=3).map(tuple),
    prefix=st.none() | TEXTS,
)
EFFECTS = st.lists(st.sampled_from(["read", "money"]), max_size=2, unique=True).map(tuple)
GRANTS = st.builds(
    Grant,
    server=st.sampled_from(["shop", "bank"]),
    tool=st.sampled_from(["*", "get", "refund"]),
    effects=EFFECTS,
    constraints=st.dictionaries(st.sampled_from(["/a", "/b"]), CONSTRAINTS, max_size=2),
    max_calls=st.none() | st.integers(0, 2),
)
LISTS = st.lists(GRANTS, max_size=4).map(tuple).filter(lambda grants: not find_ambiguity(grants))


def test_what_meets_an_implied_constraint_meets_its_parent() -> None:
    # All pairs of a small world, not a sample: a false "implied" is an escalation.
    world = [
        Constraint(max=top, min=bottom, one_of=listed, prefix=start)
        for top in (None, 1, 2.5)
        for bottom in (None, 0, 1)
        for listed in (None, (), (1, "ab"), (True, 2.5, "a"), (0, 1))
        for start in (None, "", "a", "ab")
    ]
    values = [0, 1, 1.0, 2.5, 3, -1, True, False, "", "a", "ab", "b", None, [1]]
    accepted = {c: [n for n, v in enumerate(values) if is_satisfied(c, v)] for c in world}
    implied = 0
    for parent, child in itertools.product(world, world):
        if is_implied(parent, child):
            implied += 1
            assert set(accepted[child]) <= set(accepted[parent]), (parent, child)
    assert implied > len(world)


@given(constraint=CONSTRAINTS)
def test_a_constraint_implies_itself(constraint: Constraint) -> None:
    assert is_implied(constraint, constraint)


@given(grants=LISTS)
def test_grants_are_within_themselves(grants: tuple[Grant, ...]) -> None:
    assert find_excess(grants, grants) is None


@SAME_FIXTURES
@given(
    parent=LISTS,
    kept=st.lists(st.booleans(), min_size=4, max_size=4),
    further=LISTS,
    name=st.sampled_from(["get", "refund", "other"]),
    effect=st.sampled_from(["read", "money"]),
    arguments=st.dictionaries(st.sampled_from(["a", "b"]), VALUES),
)
@example(  # a wide child must not step around a named parent
    parent=(Grant("shop"), Grant("shop", "refund", (), {"/a": Constraint(max=1)})),
    kept=[True, False, False, False],
    further=(),
    name="refund",
    effect="money",
    arguments={"a": 3},
)
def test_what_a_contained_child_accepts_its_parent_accepts(  # noqa: PLR0917 - what is drawn
    make_tool: Callable[..., Tool],
    make_claims: Callable[..., Claims],
    parent: tuple[Grant, ...],
    kept: list[bool],
    further: tuple[Grant, ...],
    name: str,
    effect: str,
    arguments: dict[str, Any],
) -> None:
    # Children made of the parent's own grants are often contained; foreign ones seldom are.
    child = tuple(g for g, keep in zip(parent, kept, strict=False) if keep) + further
    if find_ambiguity(child) or find_excess(parent, child) is not None:
        return
    for server in ("shop", "bank"):
        tool = make_tool(name, effect, server)
        grants = CompiledGrants(make_claims(grants=child))
        found = grants.find(tool)
        if found is None or grants.broken_constraint(found, tool, arguments, 0) is not None:
            continue
        above = CompiledGrants(make_claims(grants=parent))
        given_by = above.find(tool)
        assert given_by is not None
        assert above.broken_constraint(given_by, tool, arguments, 0) is None
        assert given_by.max_calls is None or (found.max_calls or 0) <= given_by.max_calls


LIMITED = Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 3)


@pytest.mark.parametrize(
    ("child", "why"),
    [
        (Grant("bank", "refund"), "not granted"),
        (Grant("shop", "transfer"), "not granted"),
        (Grant("shop"), "max_calls"),
        (Grant("shop", "refund", (), {"/amount": Constraint(max=500)}), "max_calls"),
        (Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 4), "max_calls"),
        (Grant("shop", "refund", (), {}, 3), "/amount"),
        (Grant("shop", "refund", (), {"/amount": Constraint(max=501)}, 3), "/amount"),
        (Grant("shop", "refund", (), {"/amount": Constraint(prefix="5")}, 3), "/amount"),
        (Grant("shop", "refund", (), {"/amount": Constraint(one_of=(1, 900))}, 3), "/amount"),
        (Grant("shop", "refund", (), {"/total": Constraint(max=1)}, 3), "/amount"),
    ],
)
def test_a_child_that_asks_for_more_is_told_where(child: Grant, why: str) -> None:
    assert why in str(find_excess((LIMITED,), (child,)))


@pytest.mark.parametrize(
    "child",
    [
        LIMITED,
        Grant("shop", "refund", (), {"/amount": Constraint(max=10, min=1)}, 1),
        Grant("shop", "refund", ("money",), {"/amount": Constraint(one_of=(1, 2.5))}, 0),
        Grant("shop", "refund", (), {"/amount": Constraint(max=1), "/to": Constraint()}, 3),
    ],
)
def test_a_child_that_asks_for_less_is_fine(child: Grant) -> None:
    assert find_excess((LIMITED,), (child,)) is None


def test_a_wide_child_does_not_step_around_a_named_parent() -> None:
    assert find_excess((Grant("shop"), LIMITED), (Grant("shop"),)) is not None
    assert find_excess((Grant("shop"), LIMITED), (Grant("shop"), LIMITED)) is None


def test_a_limit_on_one_tool_does_not_stand_in_the_way_of_other_effects() -> None:
    parent = (LIMITED, Grant("shop", "*", ("read",)))
    child = (Grant("shop", "*", ("read",)),)
    assert find_excess(parent, child, lambda _server, _tool: "money") is None
    assert find_excess(parent, child, lambda _server, _tool: "read") is not None
    assert find_excess(parent, child) is not None
