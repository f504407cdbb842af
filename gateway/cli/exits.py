"""Exit codes of every `countersign` command (DESIGN §2)."""

from __future__ import annotations

import os
from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    ERROR = 1
    USAGE = 2
    DENIED = 3
    AUTH = 4
    NOT_FOUND = 5
    CONFLICT = 6
    PENDING = 7
    VERIFICATION_FAILED = 8
    TEST_FAILED = 9


def say_why(error: Exception) -> str:
    """Return what an error says, for people: one of the system names its file first."""
    if isinstance(error, OSError) and error.filename is not None:
        named = os.fsdecode(error.filename)
        return f"`{named}`: {error.strerror}; name another"
    return str(error)
