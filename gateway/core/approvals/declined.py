"""What somebody at the admin API asked for and did not get: an expected answer, no exception."""

from __future__ import annotations

from msgspec import Struct


class Declined(Struct, frozen=True):
    """Nothing was done. `code` is stable and for programs, `why` is for the person who asked."""

    code: str
    why: str
