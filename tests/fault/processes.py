"""Runs a part of the suite in a process of its own, which no thread keeps from forking."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

ROOT: Final = Path(__file__).parents[2]


class Outcome(Struct, frozen=True):
    """What a part did, in figures, and what it found that must not be."""

    figures: Counter[str]
    problems: list[str]


def run_part(name: str, *words: object, before: Sequence[str] = ()) -> Outcome:
    """Run `python -m tests.fault.<name>` to its end, by the words in `before` where there are."""
    command = [*before, sys.executable, "-m", f"tests.fault.{name}", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    return Outcome(Counter(result["figures"]), result["problems"])
