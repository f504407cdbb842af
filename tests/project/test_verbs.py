"""The verbs of the Makefile and of CI, and what the pages tell a newcomer to type."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERBS = ("demo", "test", "lint", "fault", "bench", "conformance", "test-wheel")


def dry_run(folder: Path, *arguments: str) -> list[str]:
    """Return the commands that make would run, whatever make this test itself was started by."""
    environ = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    result = subprocess.run(
        ["make", "--dry-run", f"PYTHON={sys.executable}", *arguments],  # noqa: S607 make is wherever the reader has it
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return result.stdout.splitlines()


def commands(page: str) -> list[str]:
    """Return the lines of a page's shell blocks that call make; test_docs_commands has the rest."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("make ")]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a clone's build files before anything was built."""
    for name in ("Makefile", "uv.lock", "pyproject.toml", "requirements-bootstrap.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.req("GW-01")
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_alone_builds_the_environment_by_hash_first(bare: Path, verb: str) -> None:
    steps = "\n".join(dry_run(bare, verb))
    venv = steps.index(" -m venv --without-pip .venv")
    uv = steps.index(" install --quiet --disable-pip-version-check --require-hashes")
    sync = steps.index("uv sync --frozen")
    assert venv < uv < sync
    assert steps[sync:].splitlines()[1:], "and then does its work"


@pytest.mark.req("GW-01")
def test_the_environment_is_built_once(bare: Path) -> None:
    (bare / ".venv" / "bin").mkdir(parents=True)
    (bare / ".venv" / "bin" / "uv").touch()
    (bare / ".venv" / ".synced").touch()
    assert not any("-m venv" in line or "uv sync" in line for line in dry_run(bare, "lint"))


@pytest.mark.req("GW-01")
def test_the_python_that_somebody_names_is_the_one_that_is_built_with(bare: Path) -> None:
    named = dry_run(bare, "lint", f"PYTHON={sys.executable}")
    assert f"{sys.executable} -m venv --without-pip .venv" in named


@pytest.mark.req("GW-01")
def test_where_no_python_has_pip_make_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    python = programs / "python3.11"
    python.write_text(f"""#!/bin/sh
case "$2" in
  pip|ensurepip) exit 1;;
  venv) mkdir -p .venv/bin; cp {python} .venv/bin/python;;
esac
""")
    python.chmod(0o755)
    for tool in ("mkdir", "cp", "touch"):
        (programs / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run(
        [shutil.which("make") or "make", f"PYTHON={python}", ".venv/bin/uv"],
        cwd=bare,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0
    assert "install python3-pip, or name one that has: make PYTHON=" in done.stderr


@pytest.mark.req("GW-01")
def test_ci_runs_the_daily_verbs_first_and_ends_with_pytest() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    steps = re.findall(r"^step make (\S+)", script, re.MULTILINE)
    assert steps[:2] == ["lint", "test"]
    assert set(steps) == set(VERBS)
    assert script.rstrip().endswith("step make test-wheel")
    wheel = (ROOT / "tests" / "wheel" / "run.sh").read_text()
    assert "-m pytest" in wheel.rstrip().splitlines()[-1]
    assert "COUNTERSIGN_REQUIRE_ALL=1" in script


@pytest.mark.req("GW-01", "GW-03")
def test_ci_counts_branches_and_daily_work_need_not(bare: Path) -> None:
    assert "\nexport COVERAGE=1\n" in (ROOT / ".ci" / "run").read_text()
    assert " --cov " in dry_run(bare, "test", "COVERAGE=1")[-1]
    assert "--cov" not in dry_run(bare, "test", "COVERAGE=")[-1]


@pytest.mark.req("GW-01")
@pytest.mark.parametrize("script", [".ci/run", "tests/wheel/run.sh"])
def test_a_script_parses_and_stops_at_the_first_failure(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], timeout=20, check=True)  # noqa: S607 as make
    assert "set -euo pipefail" in (ROOT / script).read_text()


@pytest.mark.req("GW-01")
@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_verb_of_a_page_exists(bare: Path, page: str) -> None:
    told = commands(page)
    assert told
    for command in told:
        assert dry_run(bare, *command.replace('"', "").split()[1:]), command


@pytest.mark.req("GW-01")
def test_keep_and_quick_reach_the_programs(bare: Path) -> None:
    assert dry_run(bare, "demo", "KEEP=1")[-1].endswith("examples.acme.demo --keep")
    assert dry_run(bare, "bench", "QUICK=1")[-1].endswith("bench --quick")
