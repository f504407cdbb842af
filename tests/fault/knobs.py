"""How much the fault suite does: little with every change, all of it by `make fault`.

`COUNTERSIGN_FAULT_FACTOR` is the share of the full amounts, 1 for all; without it each test does
its share of a CI run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAME: Final = "COUNTERSIGN_FAULT_FACTOR"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps files in memory


def amount(ci: int, full: int) -> int:
    """Return how often to do something: `ci` times, or the asked share of `full`."""
    factor = os.environ.get(NAME)
    return ci if factor is None else max(1, round(full * float(factor)))


def stride(ci: int) -> int:
    """Return of how many things to try one: of `ci`, or fewer, down to each one."""
    factor = os.environ.get(NAME)
    return ci if factor is None else max(1, min(ci, round(1 / float(factor))))


def is_full() -> bool:
    """Whether more than a CI run was asked for."""
    return NAME in os.environ


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Give a folder in memory, where syncing costs nothing; on the disk where there is none."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        yield Path(name)
