"""Constraints, windows and values to draw from: few of each, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from gateway.core.pointer import MISSING
from gateway.core.tokens.token import Constraint, Range, Window
from gateway.core.tokens.window import DAYS

NUMBERS = st.integers(-3, 3) | st.sampled_from([-0.5, 0.5, 1.0, 2.5, 2**53, 2.0**53])
TEXTS = st.sampled_from(["", "a", "ab", "aba", "b", "a.b", "x.a.b", "u@a.b", "u@x.a.b", "é"])
SCALARS = NUMBERS | TEXTS | st.booleans()
VALUES = (
    SCALARS
    | st.none()
    | st.just(MISSING)
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(TEXTS, SCALARS, max_size=3)
)
SIZES = st.none() | st.integers(0, 3)
DOMAINS = st.lists(st.sampled_from(["a.b", "*.b", "*.a.b", "b", "A.b", "*"]), max_size=2)
MEMBERS = {
    "max": NUMBERS,
    "min": NUMBERS,
    "one_of": st.lists(SCALARS, max_size=3).map(tuple),
    "prefix": TEXTS,
    "suffix": TEXTS,
    "domain": DOMAINS.map(tuple),
    "length": st.builds(Range, SIZES, SIZES),
    "count": st.builds(Range, SIZES, SIZES),
}
FITTING = st.sampled_from(
    [("max", "min"), ("prefix", "suffix", "domain", "length"), ("count",), tuple(MEMBERS)]
)
"""Members that one value can meet together; of all at once nothing is left to accept."""

CONSTRAINTS = FITTING.flatmap(
    lambda names: st.lists(st.sampled_from(names), max_size=3, unique=True)
).flatmap(lambda names: st.builds(Constraint, **{name: MEMBERS[name] for name in sorted(names)}))

TIMES = st.sampled_from(["00:00", "00:01", "08:00", "12:30", "22:00", "23:59"])
DATES = st.none() | st.sampled_from([0, 86_399, 86_400, 604_800])
WINDOWS = st.builds(
    Window,
    days=st.lists(st.sampled_from(DAYS), max_size=4, unique=True).map(tuple),
    start=TIMES,
    end=TIMES | st.just("24:00"),
    not_before=DATES,
    not_after=DATES,
)
