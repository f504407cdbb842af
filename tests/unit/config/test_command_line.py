"""The command as a program: what it does where the system takes no output, or no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.req("GW-04")

FULL = Path("/dev/full")
PROGRAM = (sys.executable, "-c", "from gateway.cli import main; main()")


def run(
    *arguments: str | Path, stdout: int = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["config", "schema"], ["users", "new-secret"], ["--help"]])
def test_an_output_that_takes_nothing_is_told_in_a_line(
    arguments: list[str], unbuffered: str
) -> None:
    with FULL.open("wb") as full:
        done = run(*arguments, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the output, or a file, cannot be written: No space left on device; make room\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_reads_no_further_is_told_nothing(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("config", "schema", stdout=writer, PYTHONUNBUFFERED=unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_file_where_a_folder_should_be_is_told_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run("policy", "new", file, "refunds", "--tool", "billing.refund")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: `{file}`: File exists; name another\n"


def test_a_name_that_the_output_cannot_spell_is_told_as_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "zürich"
    done = run("init", folder, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "z\\xfcrich/countersign.yaml" in done.stdout


def test_a_command_to_paste_quotes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "of two words"
    assert f"--config '{folder}/countersign.yaml'" in run("init", folder).stdout
    policies = folder / "policies"
    made = run("policy", "new", policies, "refunds", "--tool", "billing.refund")
    assert f"next: countersign policy test '{policies}' -r refunds" in made.stdout
