"""What values a constraint accepts: a second definition, written plainly, says the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.pointer import MISSING
from gateway.core.tokens.constraints import compile_constraint, find_constraint_fault, is_satisfied
from gateway.core.tokens.domain import find_host
from gateway.core.tokens.token import Constraint, Range
from tests.unit.core.drawn_limits import CONSTRAINTS, VALUES

pytestmark = pytest.mark.req("TOK-03")

PAGE: Final = Path(__file__).parents[3] / "docs" / "constraints.md"
ROW: Final = re.compile(
    r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE
)
SPAN: Final = re.compile(r"`([^`]+)`")


def in_range(size: int, bounds: Range) -> bool:
    least = 0 if bounds.min is None else bounds.min
    return least <= size and (bounds.max is None or size <= bounds.max)


def in_domain(value: str, patterns: tuple[str, ...]) -> bool:
    host = find_host(value)
    return host is not None and any(
        host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in patterns
    )


def same(value: object, one: object) -> bool:
    return isinstance(value, bool) is isinstance(one, bool) and value == one


def misses(limit: Constraint, value: Any) -> Iterator[bool]:  # noqa: ANN401 - JSON
    """Say of each member given whether `value` breaks it: as the page says it, and slowly."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = isinstance(value, str)
    yield value is MISSING
    if limit.max is not None:
        yield not number or value > limit.max
    if limit.min is not None:
        yield not number or value < limit.min
    if limit.one_of is not None:
        yield not any(same(value, one) for one in limit.one_of)
    if limit.prefix is not None:
        yield not text or value[: len(limit.prefix)] != limit.prefix
    if limit.suffix is not None:
        yield not text or value[::-1][: len(limit.suffix)] != limit.suffix[::-1]
    if limit.domain is not None:
        yield not text or not in_domain(value, limit.domain)
    if limit.length is not None:
        yield not text or not in_range(len(value), limit.length)
    if limit.count is not None:
        yield not isinstance(value, list | dict) or not in_range(len(value), limit.count)


def meets(limit: Constraint, value: object) -> bool:
    return not any(misses(limit, value))


@given(constraint=CONSTRAINTS, value=VALUES)
@example(constraint=Constraint(one_of=(1,)), value=True)
@example(constraint=Constraint(one_of=(True,)), value=1)
@example(constraint=Constraint(), value=MISSING)
def test_a_constraint_made_ready_says_what_its_members_say(
    constraint: Constraint, value: object
) -> None:
    expected = meets(constraint, value)
    assert is_satisfied(constraint, value) is expected
    assert compile_constraint(constraint)(value) is expected


@given(value=VALUES, name=st.sampled_from(Constraint.__struct_fields__), full=CONSTRAINTS)
def test_each_member_alone_says_what_it_says_among_others(
    value: object, name: str, full: Constraint
) -> None:
    alone = Constraint(**{name: getattr(full, name)})
    assert is_satisfied(alone, value) is meets(alone, value)


def read_page() -> Iterator[tuple[Constraint, list[Any], list[Any]]]:
    for name, member, fine, broken in ROW.findall(PAGE.read_text(encoding="utf-8")):
        constraint = msgspec.json.decode(member, type=Constraint)
        assert getattr(constraint, name) is not None
        yield (
            constraint,
            [*map(json.loads, SPAN.findall(fine))],
            [*map(json.loads, SPAN.findall(broken))],
        )


def test_every_example_on_the_page_holds() -> None:
    rows = list(read_page())
    assert len(rows) == len(Constraint.__struct_fields__)
    for constraint, fine, broken in rows:
        assert fine
        assert broken
        assert [value for value in fine if not is_satisfied(constraint, value)] == []
        assert [value for value in broken if is_satisfied(constraint, value)] == []


def test_a_constraint_on_a_list_does_not_bind_its_items() -> None:
    bounds = Constraint(max=5), Constraint(prefix="a"), Constraint(domain=("a.b",))
    assert not any(is_satisfied(limit, value) for limit in bounds for value in ([], [1], ["a.b"]))
    assert is_satisfied(Constraint(count=Range(1, 1)), ["a.b"])


def test_whole_numbers_are_compared_exactly() -> None:
    assert not is_satisfied(Constraint(max=2.0**53), 2**53 + 1)
    assert is_satisfied(Constraint(max=2**53 + 1), 2**53 + 1)


def test_numbers_that_are_none_are_never_accepted() -> None:
    nan = float("nan")
    assert not is_satisfied(Constraint(one_of=(nan,)), nan)
    assert not is_satisfied(Constraint(max=nan), 0)
    assert not is_satisfied(Constraint(min=nan), 0)
    assert not is_satisfied(Constraint(max=5), nan)


@pytest.mark.parametrize(
    ("constraint", "why"),
    [
        (Constraint(max=float("inf")), "not finite"),
        (Constraint(min=float("nan")), "not finite"),
        (Constraint(one_of=("a", float("-inf"))), "not finite"),
        (Constraint(one_of=("a",) * 1025), "more than 1024"),
        (Constraint(domain=("a.b",) * 1025), "more than 1024"),
        (Constraint(domain=("Acme.example",)), "`Acme.example` is no domain"),
        (Constraint(domain=("acme.example", "bücher.example")), "`bücher.example` is no domain"),
        (Constraint(length=Range(-1)), "`length` is negative"),
        (Constraint(length=Range(None, -1)), "`length` is negative"),
        (Constraint(count=Range(2, 1)), "`count` has a `min` above its `max`"),
    ],
)
def test_a_constraint_without_a_clear_meaning_is_told(constraint: Constraint, why: str) -> None:
    assert why in str(find_constraint_fault(constraint))


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(),
        Constraint(max=1, min=2),
        Constraint(one_of=()),
        Constraint(one_of=("a",) * 1024, domain=("a.b",) * 1024),
        Constraint(domain=("acme.example", "*.xn--bcher-kva.example"), suffix=""),
        Constraint(length=Range(0, 0), count=Range(3, 3)),
        Constraint(length=Range(1), count=Range(None, 1)),
    ],
)
def test_a_constraint_with_a_clear_meaning_is_fine(constraint: Constraint) -> None:
    assert find_constraint_fault(constraint) is None
