"""What the holder of some authority wrote into a token itself, and nobody above it.

Agents may ask for less than they have. Policy takes some limits for the word of whoever launched
the run: a grant that names a tool, or counts calls, was written for a task. So a token says which
of these its own grants added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.core.tokens.grants import ANY_TOOL
from gateway.core.tokens.token import Grant

TOOL: Final = "tool"
MAX_CALLS: Final = "max_calls"
NARROWED: Final = (TOOL, MAX_CALLS)


def find_narrowed(above: Sequence[Grant], below: Sequence[Grant]) -> tuple[str, ...]:
    """Return what a grant in `below` says, and the grants that speak for the same above do not.

    `tool`: that it is about one tool. `max_calls`: how often. In doubt it is the holder's.
    """
    own = [grant for grant in below if grant not in above]
    found = (
        (TOOL, any(_names(grant, above) for grant in own)),
        (MAX_CALLS, any(_counts(grant, above) for grant in own)),
    )
    return tuple(name for name, narrowed in found if narrowed)


def _names(grant: Grant, above: Sequence[Grant]) -> bool:
    if grant.tool == ANY_TOOL:
        return False
    return not any((each.server, each.tool) == (grant.server, grant.tool) for each in above)


def _counts(grant: Grant, above: Sequence[Grant]) -> bool:
    """Whether a grant counts calls, and one that may have spoken for its tools does not."""
    if grant.max_calls is None:
        return False
    of_server = [each for each in above if each.server == grant.server]
    speaking = [each for each in of_server if grant.tool in {each.tool, ANY_TOOL}]
    return any(each.max_calls is None for each in speaking or of_server)
