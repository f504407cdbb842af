"""`python -m bench.agentdojo`: play every run in every column, print the table, keep the figures.

`--suite` and `--column` play a part; then nothing is kept. `--trace FILE` writes every run's calls,
one JSON object a line. Exit code 1: it could not measure; 9: a goal of POL-11 is missed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench.agentdojo.agent import Desk
from bench.agentdojo.deployment import SCRATCH, start
from bench.agentdojo.environment import prepare_python
from bench.agentdojo.replay import WHENS, Played, Player, When
from bench.agentdojo.report import RESULTS, build_results, build_table, count_suite, find_missed
from bench.agentdojo.scope import COLUMNS, SUITES, Column, load_prompts
from bench.processes import MeasurementError, Processes

MISSED: Final = 9


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.agentdojo")
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--column", choices=COLUMNS, action="append")
    parser.add_argument("--benign", action="store_true", help="no attacks")
    parser.add_argument("--quick", action="store_true", help="agents turn at once only")
    parser.add_argument("--trace", type=Path)
    chosen = parser.parse_args()
    suites, columns = chosen.suite or SUITES, chosen.column or COLUMNS
    whens: Sequence[When] = () if chosen.benign else WHENS[: 1 if chosen.quick else 2]
    runs: dict[str, dict[str, list[Played]]] = {column: {} for column in columns}
    try:
        python = prepare_python()
        version = ""
        for suite in suites:
            played, version = play_suite(suite, columns, whens, python)
            for column, found in played.items():
                runs[column][suite] = found
    except (MeasurementError, subprocess.CalledProcessError) as error:
        print(f"agentdojo: could not measure: {error}", file=sys.stderr)
        return 1
    if chosen.trace:
        _write_trace(chosen.trace, runs)
    if chosen.suite or chosen.column or chosen.benign or chosen.quick:
        return 0
    return _keep(build_results(runs, {"agentdojo": _package(), "benchmark": version}))


def play_suite(
    suite: str, columns: Sequence[Column], whens: Sequence[When], python: Path
) -> tuple[dict[Column, list[Played]], str]:
    """Play a suite behind one gateway, column by column; return the runs, and its version."""
    SCRATCH.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="dojo-", dir=SCRATCH))
    try:
        with Processes(folder) as processes:
            made = start(processes, folder, suite, python)
            desk, asked = Desk(made, suite), made.stage.tasks()
            if asked["tasks"] != load_prompts(suite):
                raise MeasurementError("the scopes were written from other prompts than these")
            played = {
                column: _play(
                    Player(desk, made.stage, suite, column),
                    asked,
                    f"{suite} {column}",
                    whens if column == "task" else whens[:1],
                )
                for column in columns
            }
            desk.close()
            made.stage.close()
        return played, str(asked["version"])
    finally:
        shutil.rmtree(folder)


def _play(player: Player, asked: dict[str, Any], title: str, whens: Sequence[When]) -> list[Played]:
    begin = time.monotonic()
    runs = [player.play_benign(task) for task in asked["tasks"]]
    for when in whens:
        for task in asked["tasks"]:
            hijacked = (player.play_hijacked(task, attack, when) for attack in asked["attacks"])
            runs += [run for run in hijacked if run is not None]
    figures = " ".join(f"{key[:-4]}={value:.1f}" for key, value in count_suite(runs).items())
    print(f"  {title:16} {time.monotonic() - begin:5.0f} s  {figures}", file=sys.stderr)
    return runs


def _package() -> str:
    return "0.1.35"


def _write_trace(path: Path, runs: dict[str, dict[str, list[Played]]]) -> None:
    with path.open("wb") as out:
        for column, suites in runs.items():
            for suite, played in suites.items():
                for run in played:
                    line = {"column": column, "suite": suite, "run": run}
                    out.write(orjson.dumps(line, default=_as_builtins) + b"\n")


def _as_builtins(value: object) -> object:
    return {name: getattr(value, name) for name in value.__struct_fields__}  # type: ignore[attr-defined]


def _keep(results: dict[str, Any]) -> int:
    RESULTS.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    print(build_table(results))
    missed = find_missed(results)
    for line in missed:
        print(f"missed: {line}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
