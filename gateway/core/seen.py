"""Which characters of somebody else's text a person can see (DESIGN §5: what approvers are shown).

An agent chooses the arguments, an upstream its descriptions, an app its name.
"""

from __future__ import annotations

from typing import Final

_NO_MARK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\U00016fe4\U0001d159"
) | {
    chr(number)
    for first, last in ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for number in range(first, last + 1)
}
"""Letters and marks to Unicode, and nothing to the eye: fillers, joiners, variation selectors."""


def is_seen(char: str) -> bool:
    """Whether a character leaves a mark, and neither moves a cursor nor turns a text around.

    Letters that look like others, and those written from right to left, are seen.
    """
    return char.isprintable() and char not in _NO_MARK
