"""`python -m bench [--quick] [--result-bytes N]`: measure, print the table, keep it.

A full run (under 3 minutes) renews docs/performance.md; a quick one (under 40 s) does not, because
its figures are rough. Both write bench/results/latest.json. Exit code 1: it could not measure. A
goal that is missed is shown, and is no error.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import orjson

from bench.measure import FULL, QUICK
from bench.processes import ROOT, MeasurementError
from bench.report import Results, build_table, write_page
from bench.run import run

PAGE: Final = ROOT / "docs" / "performance.md"
LATEST: Final = ROOT / "bench" / "results" / "latest.json"
SCRATCH: Final = ROOT / ".cache"
"""On the disk that the checkout is on: /tmp may be memory, where syncing costs nothing."""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="under 40 s, rough figures")
    parser.add_argument("--result-bytes", type=int, default=500, help="size of a tool's result")
    chosen = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=SCRATCH))
    plan = QUICK if chosen.quick else FULL
    try:
        results = run(folder, plan, result_bytes=chosen.result_bytes, say=_say)
    except MeasurementError as error:
        print(f"bench: could not measure: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    _keep(results, renew_page=not chosen.quick)
    return 0


def _keep(results: Results, *, renew_page: bool) -> None:
    table = build_table(results)
    print(table)
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    if renew_page:
        write_page(PAGE, table)


def _say(what: str) -> None:
    print(f"  {what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
