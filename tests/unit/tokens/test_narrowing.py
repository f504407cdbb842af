"""Which limits of a token are its holder's own words."""

from __future__ import annotations

import pytest

from gateway.core.tokens.narrowing import find_narrowed
from gateway.core.tokens.token import Constraint, Grant

pytestmark = pytest.mark.req("POL-03", "TOK-02")

WHOLE = Grant("files")
PUT = Grant("files", "put")
COUNTED = Grant("files", "put", max_calls=3)


@pytest.mark.parametrize(
    ("above", "below", "narrowed"),
    [
        ((WHOLE,), (WHOLE,), ()),
        ((WHOLE, PUT), (PUT,), ()),
        ((WHOLE,), (PUT,), ("tool",)),
        ((WHOLE,), (COUNTED,), ("tool", "max_calls")),
        ((PUT,), (COUNTED,), ("max_calls",)),
        ((COUNTED,), (Grant("files", "put", max_calls=1),), ()),
        ((PUT,), (Grant("files", "put", constraints={"/a": Constraint(max=1)}),), ()),
        # A named grant speaks for its tool, so a count of all others says nothing about it.
        ((Grant("files", max_calls=9), PUT), (COUNTED,), ("max_calls",)),
        ((Grant("files", max_calls=9),), (COUNTED,), ("tool",)),
        # Without the one that was named, a wider one speaks for its tool too.
        ((Grant("files", max_calls=9), PUT), (Grant("files", max_calls=1),), ("max_calls",)),
        ((Grant("files", effects=("read",)),), (Grant("files", max_calls=1),), ("max_calls",)),
        ((Grant("mail", "put"),), (PUT,), ("tool",)),
        ((WHOLE, Grant("mail", "send")), (WHOLE, Grant("mail", "send")), ()),
        ((WHOLE,), (WHOLE, PUT), ("tool",)),
    ],
)
def test_what_no_grant_above_says_is_the_holders_word(
    above: tuple[Grant, ...], below: tuple[Grant, ...], narrowed: tuple[str, ...]
) -> None:
    assert find_narrowed(above, below) == narrowed
