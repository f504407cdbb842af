"""Runs the public MCP conformance harness; `make conformance` calls it.

    python -m tests.conformance.run                # through the gateway
    python -m tests.conformance.run --real-tokens  # only the tools, with tokens from /oauth/token
    python -m tests.conformance.run --authorization  # only the authorization server, by a browser
    python -m tests.conformance.run --direct       # straight at the fixture server: all must pass

Exit code 0: every check passed or is in the baseline, and no baseline entry is stale. 1: not so.
2: the harness could not run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from gateway.adapters.audit.audit_reader import read_records
from tests.browser import BrowserError
from tests.conformance.authorization import run_authorization
from tests.conformance.harness import HarnessError, install_harness, run_harness, run_scenario
from tests.conformance.verdict import Map, Verdict, build_map, judge

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REVISIONS = ("2025-11-25", "2026-07-28")
STOP_TIMEOUT_S = 10


@contextmanager
def started(module: str, *arguments: str) -> Iterator[str]:
    """Run a module of this folder in a process of its own; yield the URL that it prints first."""
    command = [sys.executable, "-m", f"tests.conformance.{module}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise HarnessError(f"the {module} did not start")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def gateway(*options: str, runs: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Run a gateway in front of the fixture server; see listener.py.

    Yields its URL, and a list that holds the faults of its log once it has stopped. `runs`: how
    many the log must tell of.
    """
    with TemporaryDirectory(prefix="conformance-") as folder:
        faults: list[str] = []
        with (
            started("fixture_server") as upstream,
            started("listener", folder, upstream, *options) as url,
        ):
            yield url, faults
        faults.extend(find_log_faults(Path(folder) / "audit", runs))


def find_log_faults(audit: Path, runs: int) -> list[str]:
    """Say what the log of a whole run lacks: calls, their outcomes, the runs behind their tokens.

    No intent is without an outcome, whatever requests the harness broke off.
    """
    ops: defaultdict[str, set[str]] = defaultdict(set)
    for record in read_records(audit):
        ops[record["type"]].add(record.get("op", ""))
    faults = [] if ops["call.intent"] else ["the audit log tells of no call"]
    if len(ops["run.create"]) != runs:
        faults.append(f"the audit log tells of {len(ops['run.create'])} runs, not {runs}")
    open_ops = sorted(ops["call.intent"] - ops["call.outcome"])
    return faults + [f"call `{op}` has an intent and no outcome" for op in open_ops]


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


def report(name: str, verdict: Verdict) -> int:
    """Print one line per part, each fault, and a summary line; return how many faults."""
    for part in sorted(verdict.passed.keys() | verdict.failed.keys()):
        say(f"  {part:<14}{verdict.passed[part]:>4} passed {verdict.failed[part]:>3} failed")
    for warning in verdict.warnings:
        say(f"  warning: {warning}")
    for fault in verdict.faults:
        say(f"  FAULT: {fault}")
    say(
        f"conformance {name}: {verdict.passed.total()} checks passed,"
        f" {verdict.failed.total()} failed, {len(verdict.expected)} of them expected,"
        f" {len(verdict.faults)} faults"
    )
    return len(verdict.faults)


def run_direct(harness: Path, revision: str, known: Map) -> int:
    """Run everything straight at the fixture server. Nothing may fail."""
    with started("fixture_server") as url:
        checks = run_harness(harness, url, revision)
    return report(f"{revision}, direct", judge(checks, [], revision, known))


def run_through(harness: Path, revision: str, known: Map) -> int:
    """Run everything through the gateway, as one fixed subject."""
    # A fresh gateway each: no session of one revision is left for the other.
    with gateway() as (url, log_faults):
        checks = run_harness(harness, url, revision)
    verdict = judge(checks, load_expected(revision), revision, known)
    verdict.faults.extend(log_faults)
    return report(revision, verdict)


def run_with_tokens(harness: Path, revision: str, known: Map) -> int:
    """Run the scenarios about tools through the gateway, each in a run of its own."""
    names = [name for name, part in known.scenarios(revision).items() if part == "tools"]
    with gateway("--real-tokens", runs=len(names)) as (url, log_faults):
        found = [run_scenario(harness, f"{url}?{name}", revision, name) for name in names]
    verdict = judge(
        chain.from_iterable(found), [], revision, replace(known, count={revision: len(names)})
    )
    verdict.faults.extend(log_faults)
    return report(f"{revision}, tools with tokens of their own runs", verdict)


def report_authorization(harness: Path) -> int:
    """Run the authorization mode, print what is at fault, and return how much it is."""
    faults = run_authorization(harness)
    for fault in faults:
        say(f"  FAULT: {fault}")
    say(f"conformance authorization, by a real browser: {len(faults)} faults, nothing expected")
    return len(faults)


def main(argv: list[str] | None = None) -> int:
    """Run every set and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description=__doc__)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--direct", action="store_true", help="leave the gateway out")
    only.add_argument("--real-tokens", action="store_true", help="only the runs with real tokens")
    only.add_argument("--authorization", action="store_true", help="only the sign-in of people")
    parser.add_argument("--requirements", choices=REVISIONS, action="append", help="default: both")
    options = parser.parse_args(argv)
    runs = [run_through, run_with_tokens]
    if options.direct or options.real_tokens:
        runs = [run_direct] if options.direct else [run_with_tokens]
    known = load_map()
    try:
        harness = install_harness()
        revisions = options.requirements or REVISIONS
        faults = 0
        if not (options.direct or options.real_tokens):
            faults += report_authorization(harness)
        if not options.authorization:
            faults += sum(run(harness, revision, known) for revision in revisions for run in runs)
    except (HarnessError, BrowserError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"conformance: {error}\n")
        return 2
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
