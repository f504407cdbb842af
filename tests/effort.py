"""How much a test that makes its own input makes of it: a quarter on a desk, all of it in CI."""

from __future__ import annotations

import os
from typing import Final

ALL: Final = os.environ.get("COUNTERSIGN_EXAMPLES") == "all"
_PART: Final = 4
_LEAST: Final = 5


def share(full: int) -> int:
    """Return how many examples to make of `full`: those, where `COUNTERSIGN_EXAMPLES=all` says so.

    A test that counts on a number to meet every case takes that number as it is.
    """
    return full if ALL else max(full // _PART, min(full, _LEAST))
