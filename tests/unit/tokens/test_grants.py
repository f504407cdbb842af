from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.catalog import Tool
from gateway.core.pointer import MISSING
from gateway.core.tokens.constraints import is_satisfied
from gateway.core.tokens.grants import (
    Bounds,
    CompiledGrants,
    check_constraints,
    find_ambiguity,
    find_fault,
    find_grant,
    find_value_fault,
)
from gateway.core.tokens.token import Claims, Constraint, Grant, Range, Window

pytestmark = pytest.mark.req("GW-10", "TOK-03")

MakeTool = Callable[..., Tool]
MakeClaims = Callable[..., Claims]


def test_a_grant_that_names_the_tool_is_found(make_tool: MakeTool, make_claims: MakeClaims) -> None:
    grant = Grant("shop", "refund")
    assert find_grant(make_claims(grants=(grant,)), make_tool()) is grant


def test_a_grant_for_all_tools_is_found_by_what_the_tool_does(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    grants = CompiledGrants(make_claims(grants=(Grant("shop", "*", ("read",)),)))
    assert grants.find(make_tool("get", "read")) is not None
    assert grants.find(make_tool("refund", "money")) is None


def test_a_grant_without_effects_covers_all_but_the_unreviewed(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    claims = make_claims(grants=(Grant("shop"),))
    assert find_grant(claims, make_tool("refund", "money")) is not None
    assert find_grant(claims, make_tool("refund", "unreviewed")) is None


def test_a_grant_that_names_the_tool_shadows_a_wide_one(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    narrow = Grant("shop", "refund", (), {"/amount": Constraint(max=1)})
    claims = make_claims(grants=(Grant("shop"), narrow))
    assert find_grant(claims, make_tool()) is narrow


def test_a_named_grant_for_another_effect_is_not_widened_by_a_wide_one(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    claims = make_claims(grants=(Grant("shop"), Grant("shop", "refund", ("read",))))
    assert find_grant(claims, make_tool("refund", "money")) is None


def test_a_grant_of_another_server_is_not_found(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    claims = make_claims(grants=(Grant("shop"),))
    assert find_grant(claims, make_tool(server="bank")) is None


def test_a_tool_that_is_reviewed_anew_is_looked_up_anew(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    grants = CompiledGrants(make_claims(grants=(Grant("shop", "*", ("read",)),)))
    assert grants.find(make_tool("get", "read")) is not None
    assert grants.find(make_tool("get", "delete")) is None


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        (Constraint(max=5), 5),
        (Constraint(max=5), 4.9),
        (Constraint(min=0, max=5), 0),
        (Constraint(one_of=("a", 1, True)), "a"),
        (Constraint(one_of=("a", 1)), 1.0),
        (Constraint(one_of=(True,)), True),
        (Constraint(prefix="acme/"), "acme/shop"),
        (Constraint(), None),
    ],
)
def test_a_value_within_its_bounds_is_accepted(constraint: Constraint, value: object) -> None:
    assert is_satisfied(constraint, value)


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        (Constraint(max=5), 5.1),
        (Constraint(max=5), True),
        (Constraint(max=5), "4"),
        (Constraint(max=5), None),
        (Constraint(max=5), [1]),
        (Constraint(max=5), float("nan")),
        (Constraint(min=0), -1),
        (Constraint(min=0), False),
        (Constraint(min=0), "1"),
        (Constraint(one_of=(1,)), True),
        (Constraint(one_of=(True,)), 1),
        (Constraint(one_of=()), "a"),
        (Constraint(one_of=("a",)), ["a"]),
        (Constraint(prefix="acme/"), "acm"),
        (Constraint(prefix="1"), 1),
        (Constraint(), MISSING),
    ],
)
def test_a_value_outside_its_bounds_is_refused(constraint: Constraint, value: object) -> None:
    assert not is_satisfied(constraint, value)


@pytest.mark.parametrize("pointer", ["/", "//", "/a/b", "/a/", "/a~0b/~1", "/~0~1", "/\n", "/é/0"])
def test_a_constraint_may_stand_at_any_pointer_into_the_arguments(pointer: str) -> None:
    assert find_fault(Grant("shop", "refund", (), {pointer: Constraint(max=1)})) is None


@pytest.mark.parametrize(
    "pointer", ["", "a", "a/b", "/~", "/a~", "/~2", "/a/~/b", "/~01~", "/" + "~0" * 127 + "~"]
)
def test_what_is_no_pointer_is_told(pointer: str) -> None:
    fault = find_fault(Grant("shop", "refund", (), {pointer: Constraint(max=1)}))
    assert fault is not None
    assert "is no JSON Pointer" in fault


def test_the_broken_pointer_is_told_and_not_the_value() -> None:
    grant = Grant(
        "shop", "refund", (), {"/a": Constraint(max=1), "/b/c": Constraint(one_of=("x",))}
    )
    assert check_constraints(grant, {"a": 1, "b": {"c": "x"}}, 0) is None
    assert check_constraints(grant, {"a": 1, "b": {"c": "secret"}}, 0) == "/b/c"


def test_an_absent_argument_breaks_its_constraint() -> None:
    grant = Grant("shop", "refund", (), {"/amount": Constraint(max=1)})
    assert check_constraints(grant, {}, 0) == "/amount"


def test_outside_the_window_nothing_else_is_looked_at(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    grant = Grant("shop", "*", (), {"/a": Constraint(max=1)}, window=Window(not_after=9))
    grants, tool = CompiledGrants(make_claims(grants=(grant,))), make_tool()
    assert grants.broken_constraint(grant, tool, {"a": 2}, 10) == "window"
    assert grants.broken_constraint(grant, tool, {"a": 2}, 9) == "/a"
    assert grants.broken_constraint(grant, tool, {"a": 1}, 9) is None
    assert check_constraints(grant, {"a": 1}, 10) == "window"


def test_tokens_share_what_is_written_alike_and_nothing_that_only_python_takes_for_equal(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    def broken(constraint: Constraint, value: object) -> str | None:
        grant = Grant("shop", "refund", (), {"/a": constraint})
        compiled = CompiledGrants(make_claims(grants=(grant,)), known)
        return compiled.broken_constraint(grant, make_tool(), {"a": value}, 0)

    known: dict[str, Bounds] = {}
    one, true = Constraint(one_of=(1,)), Constraint(one_of=(True,))
    assert one == true
    assert [broken(one, value) for value in (1, True)] == [None, "/a"]
    assert [broken(true, value) for value in (1, True)] == ["/a", None]
    assert len(known) == 2
    long = Constraint(one_of=tuple(f"value-{number}" for number in range(200)))
    assert [broken(long, "value-7"), broken(long, "value-200")] == [None, "/a"]
    assert len(known) == 2


X = Constraint(one_of=("x",))
ALLOWED = {"/to": ("ann@acme.test",), "shop.refund#/account": ("1", "2")}


@pytest.mark.parametrize(
    ("arguments", "broken"),
    [
        ({"to": "ann@acme.test", "account": "1"}, None),
        ({"to": ["ann@acme.test"], "account": ["1", "2"]}, None),
        ({"to": []}, None),
        ({}, None),
        ({"to": "eve@evil.test"}, "/to"),
        ({"to": ["ann@acme.test", "eve@evil.test"]}, "/to"),
        ({"to": {"mail": "ann@acme.test"}}, "/to"),
        ({"to": [["ann@acme.test"]]}, "/to"),
        ({"to": None}, "/to"),
        ({"account": 1}, "/account"),
    ],
)
def test_every_value_at_a_pointer_must_be_allowed(
    make_tool: MakeTool, make_claims: MakeClaims, arguments: dict[str, Any], broken: str | None
) -> None:
    grants = CompiledGrants(make_claims(grants=(Grant("shop"),), allowed_values=ALLOWED))
    tool = make_tool()
    found = grants.find(tool)
    assert found is not None
    assert grants.broken_constraint(found, tool, arguments, 0) == broken


@pytest.mark.parametrize(
    ("cc", "allows"),
    [
        ([{"address": "ann@acme.test"}, {"address": ["ann@acme.test"]}, {"name": "Ann"}], True),
        ([], True),
        ([{"address": "ann@acme.test"}, {"address": "eve@evil.test"}], False),
        ([{"address": None}], False),
        ({"a": {"address": "ann@acme.test"}}, True),
        ({"a": {"address": "eve@evil.test"}}, False),
        ({"*": {"address": "ann@acme.test"}, "b": {"address": "eve@evil.test"}}, False),
        (["ann@acme.test"], True),
        (["eve@evil.test"], False),
        ("eve@evil.test", False),
        (7, False),
        (None, True),
    ],
)
def test_every_value_in_each_of_a_list_must_be_allowed(
    make_tool: MakeTool, make_claims: MakeClaims, cc: object, *, allows: bool
) -> None:
    values = {"/cc/*/address": ("ann@acme.test",)}
    grants = CompiledGrants(make_claims(grants=(Grant("shop"),), allowed_values=values))
    tool = make_tool()
    assert grants.broken_constraint(Grant("shop"), tool, {}, 0) is None
    broken = grants.broken_constraint(Grant("shop"), tool, {"cc": cc}, 0)
    assert broken == (None if allows else "/cc/*/address")


@pytest.mark.parametrize("to", ["eve@evil.test", ["eve@evil.test"], [{"address": "eve@evil.test"}]])
def test_a_value_in_the_place_of_the_object_that_it_should_be_in_must_be_allowed(
    make_tool: MakeTool, make_claims: MakeClaims, to: object
) -> None:
    values = {"/to/address": ("ann@acme.test",)}
    grants = CompiledGrants(make_claims(grants=(Grant("shop"),), allowed_values=values))
    assert grants.broken_constraint(Grant("shop"), make_tool(), {"to": to}, 0) == "/to/address"
    assert grants.broken_constraint(Grant("shop"), make_tool(), {"to": {"name": "x"}}, 0) is None


def test_an_index_that_no_list_is_long_enough_for_leads_nowhere(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    """Nor is it too long a number to be read."""
    for digits in (10, 5_000):
        pointer = "/to/" + "9" * digits
        claims = make_claims(grants=(Grant("shop"),), allowed_values={pointer: ("a",)})
        grants, given = CompiledGrants(claims), {"to": ["b"]}
        assert grants.broken_constraint(Grant("shop"), make_tool(), given, 0) is None
        bound = Grant("shop", constraints={pointer: Constraint(prefix="b")})
        assert check_constraints(bound, given, 0) == pointer  # what is absent breaks it


def test_allowed_values_of_one_tool_do_not_bind_another(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    grants = CompiledGrants(make_claims(grants=(Grant("shop"),), allowed_values=ALLOWED))
    tool = make_tool("transfer")
    assert grants.broken_constraint(Grant("shop"), tool, {"account": "9"}, 0) is None
    assert grants.broken_constraint(Grant("shop"), tool, {"to": "9"}, 0) == "/to"


def test_a_grants_own_constraints_are_told_first(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    claims = make_claims(allowed_values=ALLOWED)
    grants, tool = CompiledGrants(claims), make_tool()
    arguments = {"amount": 501, "to": "eve@evil.test"}
    assert grants.broken_constraint(claims.grants[0], tool, arguments, 0) == "/amount"
    assert grants.broken_constraint(claims.grants[0], tool, {"amount": 1}, 0) is None


@pytest.mark.parametrize(
    "grants",
    [
        (Grant("shop", "a"), Grant("shop", "a", ("read",))),
        (Grant("shop"), Grant("shop", "*", ("read",))),
        (Grant("shop", "*", ("read", "money")), Grant("shop", "*", ("read",))),
    ],
)
def test_two_grants_that_speak_for_one_tool_are_refused(grants: tuple[Grant, ...]) -> None:
    assert "two grants" in str(find_ambiguity(grants))


def test_grants_that_speak_for_different_tools_are_fine() -> None:
    grants = (
        Grant("shop", "a"),
        Grant("bank", "a"),
        Grant("shop", "*", ("read",)),
        Grant("shop", "*", ("money",)),
    )
    assert find_ambiguity(grants) is None


@pytest.mark.parametrize(
    "grant",
    [
        Grant("shop", "a", ("raed",)),
        Grant("shop", "a", ("unreviewed",)),
        Grant("shop", "a", (), {}, -1),
        Grant("shop", "a", (), {"amount": Constraint(max=1)}),
        Grant("shop", "a", (), {"": Constraint(max=1)}),
        Grant("shop", "a", (), {"/a~": Constraint(max=1)}),
        Grant("shop", "a", (), {"/a~2": Constraint(max=1)}),
        Grant("shop", "a", (), {"/a": Constraint(max=float("inf"))}),
        Grant("shop", "a", (), {"/a": Constraint(one_of=(float("nan"),))}),
        Grant("shop", "a", (), {"/" + "a" * 300: Constraint(max=1)}),
        Grant("shop", "a", (), {"/a": Constraint(), "/b": Constraint(domain=("https://a.b",))}),
        Grant("shop", "a", window=Window(end="25:00")),
    ],
)
def test_a_grant_without_a_clear_meaning_is_refused(grant: Grant) -> None:
    assert find_fault(grant) is not None


def test_a_grant_with_a_clear_meaning_is_fine() -> None:
    bounds = {"/a": Constraint(max=1, one_of=(1, "x")), "/~0b/~1\n": Constraint(domain=("a.b",))}
    bounds |= {"/": Constraint(), "/" + "a" * 255: Constraint(), "//": Constraint()}
    grant = Grant("shop", "a", ("read",), bounds, 0, Window(("mon",)))
    assert find_fault(grant) is None


@pytest.mark.parametrize("key", ["to", "shop.refund", "shop.refund#to", "", "#"])
def test_allowed_values_that_lead_nowhere_are_refused(key: str) -> None:
    assert find_value_fault({"/to": ("a",), key: ("a",)}) is not None


def test_allowed_values_that_lead_somewhere_are_fine() -> None:
    assert find_value_fault(ALLOWED) is None


def test_ten_constraints_and_a_window_are_all_checked(
    make_tool: MakeTool, make_claims: MakeClaims
) -> None:
    texts = Constraint(prefix="a", suffix="z", length=Range(1, 9)), Constraint(one_of=("a", "b"))
    hosts = Constraint(domain=("acme.example", "*.acme.example"))
    limits = (Constraint(max=9), Constraint(min=0), *texts, Constraint(count=Range(1)), hosts)
    bounds = {f"/{n}": limit for n, limit in enumerate((*limits, *limits[:4]))}
    grant = Grant("shop", constraints=bounds, window=Window(end="23:59"))
    grants, tool = CompiledGrants(make_claims(grants=(grant,))), make_tool()
    values = 1, 1, "a-z", "b", [1], "ann@mail.acme.example", 2, 2, "a-z", "a"
    arguments = {str(n): value for n, value in enumerate(values)}
    assert grants.broken_constraint(grant, tool, arguments, 0) is None
    for name in arguments:
        broken = {**arguments, name: None}
        assert grants.broken_constraint(grant, tool, broken, 0) is not None
    assert grants.broken_constraint(grant, tool, arguments, 24 * 3600 - 60) is not None
