"""The constraint language: which values an argument may have (DESIGN §4, docs/constraints.md).

| member | the value is |
|---|---|
| `max`, `min` | a number within the bound; `true` is none |
| `one_of` | one of these; 1 and 1.0 are one number, `true` and 1 are two values |
| `prefix`, `suffix` | a text that begins, ends so; characters are compared, not paths or URLs |
| `domain` | an e-mail address, absolute http(s) URL or host name in one of these (`core.domain`) |
| `length` | a text with so many characters (code points) |
| `count` | a list or object with so many items or members |

All members given must hold. A constraint binds the value at its pointer itself, never the items of
a list there: a list has no largest number and no host, so it breaks every member but `count`.

INVARIANT: `is_implied(parent, child)` only if no value meets `child` and breaks `parent`. What is
not decided is False, so an error in it refuses authority and never gives any.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Final

from gateway.core.pointer import MISSING
from gateway.core.tokens.domain import are_covered, build_host_test, find_host, is_pattern
from gateway.core.tokens.token import Constraint, Range

Test = Callable[[Any], bool]
Scalar = str | int | float | bool

_VALUES_MAX: Final = 1_024
_TEXT_MEMBERS: Final = ("prefix", "suffix", "domain", "length")


def is_satisfied(constraint: Constraint, value: object) -> bool:
    """Whether `value` meets every member of `constraint`. `MISSING` meets none, not even `{}`."""
    return compile_constraint(constraint)(value)


def compile_constraint(constraint: Constraint) -> Test:
    """Return the test of values that `constraint` stands for, made once to be asked often."""
    tests = tuple(_build_tests(constraint))
    if not tests:
        return _is_there
    if len(tests) == 1:
        return tests[0]  # each of them is False for `MISSING`

    def all_hold(value: object) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would double the cost
            if not test(value):
                return False
        return True

    return all_hold


def is_implied(parent: Constraint, child: Constraint) -> bool:
    """Whether every value that meets `child` surely meets `parent`. What is not sure is False."""
    if child.one_of is not None:
        asked, given = compile_constraint(child), compile_constraint(parent)
        return all(given(one) for one in child.one_of if asked(one))
    if _accepts_nothing(child):
        return True
    return (
        parent.one_of is None
        and _implies_number(parent, child)
        and _implies_text(parent, child)
        and (parent.count is None or _lies_within(child.count, parent.count))
    )


def find_constraint_fault(constraint: Constraint) -> str | None:
    """Say what in `constraint` has no clear meaning, or return None.

    That nothing can meet it is no fault: the tool may then not be called at all.
    """
    numbers = (constraint.max, constraint.min, *(constraint.one_of or ()))
    if any(isinstance(number, float) and number - number != 0 for number in numbers):
        return "a number is not finite"
    for name in ("one_of", "domain"):
        if len(getattr(constraint, name) or ()) > _VALUES_MAX:
            return f"`{name}` has more than {_VALUES_MAX} values"
    for pattern in constraint.domain or ():
        if not is_pattern(pattern):
            return (
                f"`{pattern[:64]}` is no domain; write a host name in lower case such as "
                "`acme.example`, or `*.acme.example` for those below it, non-ASCII ones as `xn--…`"
            )
    for name in ("length", "count"):
        if (fault := _find_range_fault(getattr(constraint, name))) is not None:
            return f"`{name}` {fault}"
    return None


def _build_tests(constraint: Constraint) -> Iterable[Test]:
    """Yield one test for each member, the cheaper ones first. None of them raises."""
    if constraint.max is not None:
        yield _number_test(operator.le, constraint.max)
    if constraint.min is not None:
        yield _number_test(operator.ge, constraint.min)
    if constraint.prefix is not None:
        yield _affix_test(str.startswith, constraint.prefix)
    if constraint.suffix is not None:
        yield _affix_test(str.endswith, constraint.suffix)
    if constraint.length is not None:
        yield _size_test((str,), constraint.length)
    if constraint.count is not None:
        yield _size_test((list, dict), constraint.count)
    if constraint.one_of is not None:
        yield _member_test(constraint.one_of)
    if constraint.domain is not None:
        yield _domain_test(constraint.domain)


def _is_there(value: object) -> bool:
    return value is not MISSING


def _number_test(compare: Callable[[Any, Any], bool], bound: float) -> Test:
    def test(value: Any) -> bool:  # noqa: ANN401 - JSON has any type
        kind = type(value)
        return (kind is int or kind is float) and compare(value, bound)

    return test


def _affix_test(has: Callable[[str, str], bool], affix: str) -> Test:
    return lambda value: isinstance(value, str) and has(value, affix)


def _size_test(kinds: tuple[type, ...], size: Range) -> Test:
    least, most = size.min or 0, size.max

    def test(value: Any) -> bool:  # noqa: ANN401 - JSON has any type
        if type(value) not in kinds or len(value) < least:
            return False
        return most is None or len(value) <= most

    return test


def _member_test(values: tuple[Scalar, ...]) -> Test:
    # `True == 1` in Python, not in JSON: the two kinds are looked up apart. NaN is in neither.
    truths = frozenset(value for value in values if isinstance(value, bool))
    others = frozenset(
        value
        for value in values
        if not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN
    )

    def test(value: object) -> bool:
        kind = type(value)
        if kind is bool:
            return value in truths
        return (kind is str or kind is int or kind is float) and value in others

    return test


def _domain_test(patterns: tuple[str, ...]) -> Test:
    fits = build_host_test(patterns)

    def test(value: object) -> bool:
        host = find_host(value) if isinstance(value, str) else None
        return host is not None and fits(host)

    return test


def _accepts_nothing(constraint: Constraint) -> bool:
    """Whether it is sure that no value meets `constraint`, which has no `one_of`."""
    number = constraint.max is not None or constraint.min is not None
    if number + _is_text(constraint) + (constraint.count is not None) > 1:
        return True
    if constraint.max is not None and constraint.min is not None:
        return constraint.min > constraint.max
    if constraint.domain is not None and not any(map(is_pattern, constraint.domain)):
        return True
    least, most = _length_of(constraint)
    if most is not None and most < least:
        return True
    count = constraint.count
    return count is not None and count.max is not None and count.max < max(count.min or 0, 0)


def _implies_number(parent: Constraint, child: Constraint) -> bool:
    if parent.max is not None and (child.max is None or not child.max <= parent.max):
        return False
    return parent.min is None or (child.min is not None and child.min >= parent.min)


def _implies_text(parent: Constraint, child: Constraint) -> bool:
    if not _is_text(parent):
        return True
    if not _is_text(child):
        return False
    return (
        (child.prefix or "").startswith(parent.prefix or "")
        and (child.suffix or "").endswith(parent.suffix or "")
        and (parent.domain is None or _lies_under(child.domain, parent.domain))
        and (parent.length is None or _lies_within(Range(*_length_of(child)), parent.length))
    )


def _lies_under(child: tuple[str, ...] | None, parent: tuple[str, ...]) -> bool:
    return child is not None and are_covered(parent, child)


def _lies_within(child: Range | None, parent: Range) -> bool:
    if child is None:
        return False
    short = parent.min is not None and max(child.min or 0, 0) < parent.min
    long = parent.max is not None and (child.max is None or child.max > parent.max)
    return not (short or long)


def _is_text(constraint: Constraint) -> bool:
    """Whether only texts meet `constraint`."""
    return any(getattr(constraint, name) is not None for name in _TEXT_MEMBERS)


def _length_of(constraint: Constraint) -> tuple[int, int | None]:
    """Return the fewest and the most characters that a text may have, as far as that is sure."""
    affixes = (constraint.prefix or "", constraint.suffix or "")
    least, most = max(map(len, affixes)), None
    if constraint.length is not None:
        least, most = max(least, constraint.length.min or 0), constraint.length.max
    return least, most


def _find_range_fault(size: Range | None) -> str | None:
    if size is None:
        return None
    if (size.min or 0) < 0 or (size.max or 0) < 0:
        return "is negative; count from 0"
    if size.min is not None and size.max is not None and size.min > size.max:
        return "has a `min` above its `max`; nothing can meet it"
    return None
