"""Runs the public MCP conformance harness; `make conformance` calls it.

    python -m tests.conformance.run            # through the gateway
    python -m tests.conformance.run --direct   # straight at the fixture server: all must pass

Exit code 0: every check passed or is in the baseline, and no baseline entry is stale. 1: not so.
2: the harness could not run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from tests.conformance.harness import HarnessError, install_harness, run_harness
from tests.conformance.verdict import Map, Verdict, build_map, judge

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REVISIONS = ("2025-11-25", "2026-07-28")
STOP_TIMEOUT_S = 10


def start_gateway(fixture_url: str) -> tuple[str, Callable[[], None]]:
    """Start a gateway whose only upstream is `fixture_url`, with bare names and a fixed subject.

    Returns the URL of its MCP endpoint and what stops it.
    """
    raise NotImplementedError(f"there is no gateway yet to put in front of {fixture_url}")


@contextmanager
def fixture_server() -> Iterator[str]:
    """Run the fixture server in a process of its own; yield its URL."""
    command = [sys.executable, "-m", "tests.conformance.fixture_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise HarnessError("the fixture server did not start")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def target(*, direct: bool) -> Iterator[str]:
    """Yield the URL to test: the fixture server or the gateway in front of it."""
    with fixture_server() as fixture_url:
        if direct:
            yield fixture_url
            return
        url, stop = start_gateway(fixture_url)
        try:
            yield url
        finally:
            stop()


def load_map() -> Map:
    """Read scenarios.yml."""
    return build_map(YAML(typ="safe", pure=True).load(HERE / "scenarios.yml"))


def load_expected(revision: str) -> list[str]:
    """Read the baseline of `revision`."""
    return list(YAML(typ="safe", pure=True).load(HERE / f"expected-{revision}.yml")["server"])


def say(line: str) -> None:
    """Print one line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_verdict(revision: str, verdict: Verdict) -> None:
    """Print one line per part, each fault, and a summary line."""
    for part in sorted(verdict.passed.keys() | verdict.failed.keys()):
        say(f"  {part:<14}{verdict.passed[part]:>4} passed {verdict.failed[part]:>3} failed")
    for warning in verdict.warnings:
        say(f"  warning: {warning}")
    for fault in verdict.faults:
        say(f"  FAULT: {fault}")
    say(
        f"conformance {revision}: {verdict.passed.total()} checks passed,"
        f" {verdict.failed.total()} failed, {len(verdict.expected)} of them expected,"
        f" {len(verdict.faults)} faults"
    )


def main(argv: list[str] | None = None) -> int:
    """Run both revisions and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description=__doc__)
    parser.add_argument("--direct", action="store_true", help="leave the gateway out")
    parser.add_argument("--requirements", choices=REVISIONS, action="append", help="default: both")
    options = parser.parse_args(argv)
    known = load_map()
    faults = 0
    try:
        harness = install_harness()
        for revision in options.requirements or REVISIONS:
            # A fresh target each: no session of one revision is left for the other.
            with target(direct=options.direct) as url:
                checks = run_harness(harness, url, revision)
            expected = [] if options.direct else load_expected(revision)
            verdict = judge(checks, expected, revision, known)
            print_verdict(revision, verdict)
            faults += len(verdict.faults)
    except (HarnessError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"conformance: {error}\n")
        return 2
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
