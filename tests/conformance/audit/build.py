"""Writes `cases.jsonl`, the same bytes each time.

python -m tests.conformance.audit.build
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.audit import (
    keys,
    kills,
    releases,
    rules_approvals,
    rules_calls,
    spelling,
    structural,
    valid,
)
from tests.conformance.audit.case import Case

CASES = Path(__file__).parent / "cases.jsonl"


def build_cases() -> Iterator[Case]:
    """Yield every case, in the order of the file."""
    yield from structural.cases()
    yield from spelling.cases()
    yield from keys.cases()
    yield from rules_calls.cases()
    yield from kills.cases()
    yield from releases.cases()
    yield from rules_approvals.cases()
    yield from valid.cases()


def build_corpus() -> bytes:
    """Return the content of `cases.jsonl`."""
    lines = [json.dumps(case.to_json()) + "\n" for case in build_cases()]
    return "".join(lines).encode()


def main() -> None:
    """Write the file and say what is in it."""
    CASES.write_bytes(build_corpus())
    print(f"{sum(1 for _ in CASES.open())} cases, {CASES.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
