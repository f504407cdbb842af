"""`python -m bench.agentdojo`: play every run in every column, print the table, keep the figures.

`--suite` and `--column` play a part; then nothing is kept, and the figures must be those that are.
`--resume FOLDER` keeps what is done there, and takes up what is there: for one state of the code.
`--trace FILE` writes every run's calls, one JSON object a line. Exit code 1: it could not measure;
9: a goal of POL-11 is missed, or a part came out otherwise than in the results.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from bench.agentdojo.agent import Desk
from bench.agentdojo.deployment import SCRATCH, start
from bench.agentdojo.environment import REQUIREMENTS, prepare_python
from bench.agentdojo.replay import FIRST, WHENS, Played, Player, When
from bench.agentdojo.report import (
    RESULTS,
    build_results,
    build_table,
    count_suite,
    find_missed,
    round_all,
)
from bench.agentdojo.scope import COLUMNS, SUITES, Column, load_prompts
from bench.processes import MeasurementError, Processes

MISSED: Final = 9
AT_ONCE: Final = 3
"""Gateways at the same time: their runs wait for disks more than for processors."""


class Job(Struct, frozen=True):
    """What one gateway is started for. `when`: None plays the users' tasks alone."""

    suite: str
    column: Column
    when: When | None


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.agentdojo")
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--column", choices=COLUMNS, action="append")
    parser.add_argument("--benign", action="store_true", help="no attacks")
    parser.add_argument("--quick", action="store_true", help="agents turn at once only")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--trace", type=Path)
    chosen = parser.parse_args()
    jobs = _plan(chosen)
    try:
        python = prepare_python()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            played = list(pool.map(lambda job: _take_up(job, python, chosen.resume), jobs))
    except (MeasurementError, subprocess.CalledProcessError) as error:
        print(f"agentdojo: could not measure: {error}", file=sys.stderr)
        return 1
    runs = _collect(jobs, played)
    if chosen.trace:
        _write_trace(chosen.trace, runs)
    if chosen.benign:
        return 0
    if chosen.suite or chosen.column or chosen.quick:
        return _compare(runs)
    return _keep(build_results(runs, {"agentdojo": _package(), "benchmark": played[0][1]}))


def _plan(chosen: argparse.Namespace) -> list[Job]:
    """Return the jobs. How it is at the end of a user's task is asked at task scope only."""
    first: When | None = None if chosen.benign else FIRST
    suites, columns = chosen.suite or SUITES, chosen.column or COLUMNS
    jobs = [Job(suite, column, first) for suite in suites for column in columns]
    if not chosen.benign and not chosen.quick and "task" in columns:
        jobs += [Job(suite, "task", when) for suite in suites for when in WHENS[1:]]
    return jobs


def _take_up(job: Job, python: Path, kept: Path | None) -> tuple[list[Played], str]:
    """Return a job's runs as they are kept; else play it, and keep them if there is a place."""
    if kept is None:
        return play(job, python)
    kept.mkdir(exist_ok=True)
    path = kept / f"{job.suite}-{job.column}-{job.when}.json"
    if not path.exists():
        path.write_bytes(msgspec.json.encode(play(job, python)))
    return msgspec.json.decode(path.read_bytes(), type=tuple[list[Played], str])


def play(job: Job, python: Path) -> tuple[list[Played], str]:
    """Play a job behind a gateway of its own; return the runs and the benchmark's version."""
    SCRATCH.mkdir(exist_ok=True)
    folder, begin = Path(tempfile.mkdtemp(prefix="dojo-", dir=SCRATCH)), time.monotonic()
    try:
        with Processes(folder) as processes:
            made = start(processes, folder, job.suite, python)
            desk, asked = Desk(made, job.suite), made.stage.tasks()
            if asked["tasks"] != load_prompts(job.suite):
                raise MeasurementError("the scopes were written from other prompts than these")
            runs = _play(Player(desk, made.stage, job.suite, job.column), asked, job.when)
            desk.close()
            made.stage.close()
    finally:
        shutil.rmtree(folder)
    figures = " ".join(f"{key[:-4]}={value:.1f}" for key, value in count_suite(runs).items())
    title = f"{job.suite} {job.column} {job.when or ''}"
    print(f"  {title:25} {time.monotonic() - begin:5.0f} s  {figures}", file=sys.stderr)
    return runs, str(asked["version"])


def _play(player: Player, asked: dict[str, Any], when: When | None) -> list[Played]:
    runs = [player.play_benign(task) for task in asked["tasks"]]
    for task in asked["tasks"] if when else ():
        hijacked = (
            player.play_hijacked(task, attack, when or FIRST) for attack in asked["attacks"]
        )
        runs += [run for run in hijacked if run is not None]
    return runs


def _collect(
    jobs: Sequence[Job], played: Sequence[tuple[list[Played], str]]
) -> dict[str, dict[str, list[Played]]]:
    """Return the runs by column and suite; users' tasks count once, with the first variant."""
    runs: dict[str, dict[str, list[Played]]] = {}
    for job, (found, _) in zip(jobs, played, strict=True):
        of_suite = runs.setdefault(job.column, {}).setdefault(job.suite, [])
        of_suite += [run for run in found if run.attack or job.when in {None, FIRST}]
    return runs


def _package() -> str:
    found = re.search(r"^agentdojo==(\S+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def _write_trace(path: Path, runs: dict[str, dict[str, list[Played]]]) -> None:
    with path.open("wb") as out:
        for column, suites in runs.items():
            for suite, played in suites.items():
                for run in played:
                    line = {"column": column, "suite": suite, "run": msgspec.to_builtins(run)}
                    out.write(orjson.dumps(line) + b"\n")


def _compare(runs: dict[str, dict[str, list[Played]]]) -> int:
    """Say where a part differs from what is kept: the same runs come out the same."""
    kept = orjson.loads(RESULTS.read_bytes())
    wrong = [
        f"{suite} {column}: the results have other figures; play everything to renew them"
        for column, suites in runs.items()
        for suite, played in suites.items()
        if round_all(count_suite(played)) != kept[column][suite]
    ]
    print("\n".join(wrong) or "as in the results")
    return MISSED if wrong else 0


def _keep(results: dict[str, Any]) -> int:
    RESULTS.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    print(build_table(results))
    missed = find_missed(results)
    for line in missed:
        print(f"missed: {line}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
