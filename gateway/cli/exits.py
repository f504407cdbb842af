"""Exit codes of every `countersign` command (DESIGN §2)."""

from __future__ import annotations

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
