"""What may be handed on: a child that is within its parent reaches nothing its parent does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.core.catalog import Tool
from gateway.core.tokens.grants import CompiledGrants, find_ambiguity, find_excess
from gateway.core.tokens.token import Claims, Constraint, Grant, Window
from tests.unit.core.drawn_limits import CONSTRAINTS, VALUES, WINDOWS

pytestmark = pytest.mark.req("GW-10", "TOK-03")

SAME_FIXTURES: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
EFFECTS = st.lists(st.sampled_from(["read", "money"]), max_size=2, unique=True).map(tuple)
GRANTS = st.builds(
    Grant,
    server=st.sampled_from(["shop", "bank"]),
    tool=st.sampled_from(["*", "get", "refund"]),
    effects=EFFECTS,
    constraints=st.dictionaries(st.sampled_from(["/a", "/b"]), CONSTRAINTS, max_size=2),
    max_calls=st.none() | st.integers(0, 2),
    window=st.none() | WINDOWS,
)
LISTS = st.lists(GRANTS, max_size=4).map(tuple).filter(lambda grants: not find_ambiguity(grants))


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
    now_s=st.integers(0, 1_300_000),
)
@example(  # a wide child must not step around a named parent
    parent=(Grant("shop"), Grant("shop", "refund", (), {"/a": Constraint(max=1)})),
    kept=[True, False, False, False],
    further=(),
    name="refund",
    effect="money",
    arguments={"a": 3},
    now_s=0,
)
@example(  # nor take its calls to another day
    parent=(Grant("shop", window=Window(("mon",))),),
    kept=[False] * 4,
    further=(Grant("shop", window=Window(("mon",), "22:00", "06:00")),),
    name="get",
    effect="read",
    arguments={},
    now_s=5 * 86_400,
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
    now_s: int,
) -> None:
    # Children made of the parent's own grants are often contained; foreign ones seldom are.
    child = tuple(g for g, keep in zip(parent, kept, strict=False) if keep) + further
    if find_ambiguity(child) or find_excess(parent, child) is not None:
        return
    for server in ("shop", "bank"):
        tool = make_tool(name, effect, server)
        grants = CompiledGrants(make_claims(grants=child))
        found = grants.find(tool)
        if found is None or grants.broken_constraint(found, tool, arguments, now_s) is not None:
            continue
        above = CompiledGrants(make_claims(grants=parent))
        given_by = above.find(tool)
        assert given_by is not None
        assert above.broken_constraint(given_by, tool, arguments, now_s) is None
        assert given_by.max_calls is None or (found.max_calls or 0) <= given_by.max_calls


LIMITED = Grant("shop", "refund", (), {"/amount": Constraint(max=500)}, 3)
WEEKDAYS = Window(("mon", "tue", "wed", "thu", "fri"), "08:00", "18:00")


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


@pytest.mark.parametrize(
    "window", [None, Window(), Window(("sat",)), Window(("fri",), "17:00", "18:01")]
)
def test_a_child_that_asks_for_other_times_is_told(window: Window | None) -> None:
    parent, child = Grant("shop", window=WEEKDAYS), Grant("shop", window=window)
    assert "`window` must lie within" in str(find_excess((parent,), (child,)))


@pytest.mark.parametrize("window", [WEEKDAYS, Window(("mon",), "09:00", "17:59", not_after=9)])
def test_a_child_that_asks_for_less_time_is_fine(window: Window) -> None:
    parent, child = Grant("shop", window=WEEKDAYS), Grant("shop", window=window)
    assert find_excess((parent,), (child,)) is None
    assert find_excess((Grant("shop"),), (child,)) is None


def test_a_tool_is_compared_although_the_same_grants_met_before() -> None:
    # `*` for reading meets `*` for reading at first, and a named grant only later.
    parent = (Grant("shop", "*", ("read",)), Grant("shop", "peek", ("read",), {}, 1))
    child = (Grant("shop", "*", ("read",)),)
    assert "peek" not in str(find_excess(parent, parent))
    assert "`max_calls`" in str(find_excess(parent, child))


def test_a_wide_child_does_not_step_around_a_named_parent() -> None:
    assert find_excess((Grant("shop"), LIMITED), (Grant("shop"),)) is not None
    assert find_excess((Grant("shop"), LIMITED), (Grant("shop"), LIMITED)) is None


def test_a_limit_on_one_tool_does_not_stand_in_the_way_of_other_effects() -> None:
    parent = (LIMITED, Grant("shop", "*", ("read",)))
    child = (Grant("shop", "*", ("read",)),)
    assert find_excess(parent, child, lambda _server, _tool: "money") is None
    assert find_excess(parent, child, lambda _server, _tool: "read") is not None
    assert find_excess(parent, child) is not None
