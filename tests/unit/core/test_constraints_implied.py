"""What may be handed on: an implied constraint accepts nothing that the wider one refuses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.pointer import MISSING
from gateway.core.tokens.constraints import is_implied, is_satisfied
from gateway.core.tokens.token import Constraint, Range
from tests.effort import share
from tests.unit.core.drawn_limits import CONSTRAINTS, VALUES

pytestmark = pytest.mark.req("TOK-03", "TOK-04")

MEMBERS: Final[dict[str, tuple[Any, ...]]] = {
    "max": (1, 2.5),
    "min": (0, 2.5),
    "one_of": ((), (1, "ab"), (True, 2.5, "a"), ("x@a.b", "c.b")),
    "prefix": ("", "a", "ab", "x@"),
    "suffix": ("", "b", "ab", "a.b"),
    "domain": ((), ("a.b",), ("*.b",), ("*.a.b", "a.b"), ("A.b",)),
    "length": (Range(), Range(1), Range(None, 1), Range(2, 4), Range(3, 2), Range(-2, 0)),
    "count": (Range(), Range(1), Range(None, 0), Range(2, 1), Range(-1, 1), Range(None, -1)),
}
NUMBERS: Final = (-1, 0, 1, 1.0, 2, 2.5, 3)
TEXTS: Final = ("", "a", "b", "ab", "abc", "aab", "ba", "abab", "abcd", "abcdb")
HOSTS: Final = ("a.b", "c.b", "x.a.b", "ab.b", "x@a.b", "x@c.a.b", "ab@c.b", "http://a.b/")
OTHERS: Final[tuple[Any, ...]] = (True, False, None, [], [1], ["a", "b"], {}, {"a": 1}, MISSING)
ALL: Final[tuple[Any, ...]] = (*NUMBERS, *TEXTS, *HOSTS, *OTHERS)


def small_world() -> Iterator[Constraint]:
    """All constraints of at most two members."""
    yield Constraint()
    given = [(name, value) for name, values in MEMBERS.items() for value in values]
    for name, value in given:
        yield Constraint(**{name: value})
    for (name, value), (other, further) in itertools.combinations(given, 2):
        if name != other:
            yield Constraint(**{name: value, other: further})


def test_in_a_small_world_nothing_implied_accepts_more() -> None:
    # All pairs, not a sample: a false "implied" is an escalation.
    world = list(small_world())
    accepted = [sum(1 << n for n, v in enumerate(ALL) if is_satisfied(c, v)) for c in world]
    implied = 0
    for parent, given_by in zip(world, accepted, strict=True):
        for child, asked in zip(world, accepted, strict=True):
            if asked & ~given_by:
                assert not is_implied(parent, child), (parent, child)
            else:
                implied += is_implied(parent, child)
    assert implied > 10 * len(world)


@settings(max_examples=share(300))
@given(parent=CONSTRAINTS, child=CONSTRAINTS, values=st.lists(VALUES, max_size=8))
def test_what_meets_an_implied_constraint_meets_its_parent(
    parent: Constraint, child: Constraint, values: list[object]
) -> None:
    if is_implied(parent, child):
        assert [v for v in values if is_satisfied(child, v) and not is_satisfied(parent, v)] == []


@settings(max_examples=share(200))
@given(child=CONSTRAINTS, kept=st.sets(st.sampled_from(Constraint.__struct_fields__)))
def test_a_constraint_implies_itself_and_whatever_lacks_some_of_its_members(
    child: Constraint, kept: set[str]
) -> None:
    parent = Constraint(**{name: getattr(child, name) for name in kept})
    assert is_implied(child, child)
    assert is_implied(parent, child)


C = Constraint


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (C(), C()),
        (C(), C(max=1)),
        (C(max=5), C(max=5)),
        (C(max=5), C(max=4.5, min=0)),
        (C(min=0), C(min=0.5)),
        (C(max=5), C(one_of=(5, 1.0))),
        (C(max=5), C(one_of=(7, "a"), max=3)),
        (C(one_of=("a", "b")), C(one_of=("b",))),
        (C(one_of=(1,)), C(one_of=(1.0,))),
        (C(prefix="a"), C(prefix="ab")),
        (C(suffix="b"), C(suffix="ab")),
        (C(prefix=""), C(suffix="b")),
        (C(suffix=""), C(domain=("a.b",))),
        (C(prefix=""), C(length=Range())),
        (C(domain=("*.b",)), C(domain=("*.a.b", "x.b"))),
        (C(domain=("*.b",)), C(domain=("*.a.b",), prefix="https://")),
        (C(domain=("a.b",)), C(domain=("nonsense!",))),
        (C(domain=("a.b",)), C(one_of=("u@a.b", "https://a.b/x", "a.b"))),
        (C(length=Range(1, 5)), C(length=Range(2, 5))),
        (C(length=Range()), C(prefix="a")),
        (C(length=Range(-1)), C(prefix="")),
        (C(length=Range(2)), C(prefix="ab")),
        (C(length=Range(2)), C(suffix="ab", length=Range(1, 9))),
        (C(length=Range(None, 5)), C(prefix="ab", length=Range(None, 5))),
        (C(count=Range(1, 5)), C(count=Range(1, 4))),
        (C(count=Range(0)), C(count=Range())),
        (C(count=Range()), C(count=Range(3, 4))),
        # bounds that nothing can meet
        (C(one_of=()), C(min=2, max=1)),
        (C(one_of=()), C(one_of=(3,), max=1)),
        (C(one_of=()), C(max=1, prefix="a")),
        (C(one_of=()), C(min=1, prefix="a")),
        (C(one_of=()), C(max=1, count=Range())),
        (C(one_of=()), C(length=Range(), count=Range())),
        (C(one_of=()), C(domain=())),
        (C(one_of=()), C(domain=("1.2", "A.b"))),
        (C(one_of=()), C(length=Range(2, 1))),
        (C(one_of=()), C(length=Range(None, -1))),
        (C(one_of=()), C(prefix="abc", length=Range(0, 2))),
        (C(one_of=()), C(suffix="abc", length=Range(0, 2))),
        (C(one_of=()), C(count=Range(3, 2))),
        (C(one_of=()), C(count=Range(None, -1))),
    ],
)
def test_what_is_as_narrow_is_implied(parent: Constraint, child: Constraint) -> None:
    assert is_implied(parent, child)


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (C(max=5), C()),
        (C(max=5), C(max=5.1)),
        (C(max=5), C(min=0)),
        (C(max=2.0**53), C(max=2**53 + 1)),
        (C(min=0), C(min=-1)),
        (C(min=0), C(max=5)),
        (C(max=5), C(one_of=(5, 6))),
        (C(max=5), C(one_of=("5",))),
        (C(max=1), C(one_of=(True,))),
        (C(one_of=(1,)), C(one_of=(True,))),
        (C(one_of=(1, 2)), C(min=1, max=1)),
        (C(one_of=("a",)), C(prefix="a")),
        (C(one_of=()), C()),
        (C(prefix="ab"), C(prefix="a")),
        (C(prefix="a"), C(prefix="ba")),
        (C(prefix="a"), C(suffix="a")),
        (C(prefix=""), C(max=1)),
        (C(prefix=""), C()),
        (C(suffix="ab"), C(suffix="b")),
        (C(suffix="a"), C(suffix="ab")),
        (C(suffix="a.b"), C(domain=("a.b",))),
        (C(domain=("a.b",)), C(suffix="@a.b")),
        (C(domain=("a.b",)), C(domain=("*.a.b",))),
        (C(domain=("*.a.b",)), C(domain=("a.b",))),
        (C(domain=("*.a.b",)), C(domain=("*.b",))),
        (C(domain=("a.b",)), C(domain=("a.b", "c.b"))),
        (C(domain=("a.b",)), C(one_of=("u@a.b", "u@c.b"))),
        (C(domain=()), C(domain=("a.b",))),
        (C(length=Range(1, 5)), C(length=Range(1))),
        (C(length=Range(1, 5)), C(length=Range(None, 5))),
        (C(length=Range(1, 5)), C(length=Range(0, 5))),
        (C(length=Range(1, 5)), C(length=Range(1, 6))),
        (C(length=Range(3)), C(prefix="ab", suffix="ab")),
        (C(length=Range(None, 5)), C(prefix="ab")),
        (C(length=Range()), C(count=Range())),
        (C(count=Range()), C(length=Range())),
        (C(count=Range(1)), C(count=Range())),
        (C(count=Range(None, 5)), C(count=Range(1))),
        (C(count=Range(None, 5)), C(count=Range(1, 6))),
        (C(count=Range()), C()),
        (C(max=float("nan")), C(max=1)),
        (C(max=1), C(max=float("nan"))),
    ],
)
def test_what_is_wider_or_not_decided_is_not_implied(parent: Constraint, child: Constraint) -> None:
    assert not is_implied(parent, child)
