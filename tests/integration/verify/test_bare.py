"""The one file on a bare interpreter: no site packages, no environment, nothing of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.verify.logbuilder import Log, TestKey, tree_root

pytestmark = pytest.mark.req("AUD-03")
SCRIPT = Path(__file__).parents[3] / "verify" / "countersign_verify.py"


def run(script: Path, *words: str | Path, home: Path, bare: bool = True) -> tuple[int, str, str]:
    flags = ["-I", "-S"] if bare else []
    done = subprocess.run(
        [sys.executable, *flags, script, *words],
        capture_output=True,
        check=False,
        cwd=home,
        env={"HOME": str(home), "LC_ALL": "C"},
        timeout=60,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The script in a directory with nothing else."""
    folder = tmp_path / "auditor"
    folder.mkdir()
    return Path(shutil.copy(SCRIPT, folder / "countersign_verify.py"))


def judge(alone: Path, folder: Path, *words: str) -> dict[str, Any]:
    code, out, err = run(alone, folder, "--json", *words, home=alone.parent)
    assert err == ""
    report: dict[str, Any] = json.loads(out)
    assert report["exit"] == code
    return report


def test_a_directory_is_enough_to_start(alone: Path, tmp_path: Path) -> None:
    log = Log().start().call("op-1").rotate().call("op-2")
    folder = log.write(tmp_path / "log", tiles=True)
    code, out, err = run(alone, folder, home=alone.parent)
    assert (code, err) == (0, "")
    assert "VALID" in out
    assert "UNPINNED_KEY" in out
    kept = alone.parent / ".local/state/countersign/verified.json"
    assert json.loads(kept.read_text())["logs"][log.origin] == log.last_note


def test_it_says_the_same_with_and_without_the_libraries(alone: Path, tmp_path: Path) -> None:
    log = Log().start().call("op-1").outcome("op-9").batch().rotate().policy().batch()
    log.lines[0][-3] = log.lines[0][-3].replace(b'"v":1', b'"v":2')
    folder = log.write(tmp_path / "log")
    words = [str(folder), "--state", "none", "--json", "--key", log.first_key.vkey]
    bare = run(alone, *words, home=alone.parent)
    assert bare[0] == 1
    assert run(alone, *words, home=alone.parent, bare=False) == bare


def test_a_log_that_was_cut_edited_reordered_and_forked_is_told(
    alone: Path, tmp_path: Path
) -> None:
    log = Log().start().call("op-1").call("op-2").call("op-3")
    key = ("--key", log.key.vkey)
    whole = log.write(tmp_path / "whole")
    assert judge(alone, whole, *key)["exit"] == 0
    lines = list(log.lines[0])

    def told(changed: list[bytes]) -> list[tuple[str, int]]:
        log.lines[0] = changed
        report = judge(alone, log.write(tmp_path / "changed"), *key, "--state", "none")
        return [(item["kind"], item["seq"]) for item in report["findings"]]

    assert told(lines[:-2]) == [("truncated", 9)]
    assert told([line.replace(b'"sent"', b'"none"') for line in lines])[0] == ("edited", 5)
    assert told([*lines[:5], lines[7], lines[6], lines[5], *lines[8:]]) == [("reordered", 4)]
    fork = Log().start().call("op-9").call("op-2").call("op-4")
    report = judge(alone, fork.write(tmp_path / "fork"), *key)
    assert (report["exit"], report["findings"][0]["kind"]) == (4, "forked")
    proof = json.loads(Path(report["fraud_proof"]).read_text())
    assert proof["known"] == log.last_note
    assert proof["shown"] == fork.last_note


def test_wrong_usage_is_one_line(alone: Path) -> None:
    code, out, err = run(alone, "nowhere", home=alone.parent)
    assert (code, out) == (2, "")
    assert err == "countersign_verify.py: `nowhere`: No such file or directory\n"


def test_flipped_bits_of_a_log_and_its_witnessed_checkpoint_are_found(
    tmp_path: Path,
) -> None:
    """One bit in 31, in one process; the fault suite goes through all of a log's."""
    program = f"""
import sys, runpy, io, contextlib
sys.argv = ["verify"]
module = runpy.run_path({str(SCRIPT)!r}, run_name="verifier")
folder, key = {str(tmp_path / "log")!r}, sys.stdin.readline().strip()
missed = flips = 0
for name in ("{0:020d}.jsonl", "checkpoint"):
    path = folder + "/" + name
    data = open(path, "rb").read()
    for at in range(len(data)):
        for bit in range(8):
            if (at * 8 + bit) % 31:
                continue
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            open(path, "wb").write(changed)
            with contextlib.redirect_stdout(io.StringIO()):
                code = module["main"]([folder, "--state", "none", "--key", key])
            flips += 1
            missed += code not in (1, 4)
    open(path, "wb").write(data)
print(flips, missed)
"""
    log = Log().start()
    log.policy().batch().witnessed(TestKey("w", "w.example", 4)).batch()
    log.write(tmp_path / "log")
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=log.key.vkey,
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    flips, missed = map(int, done.stdout.split())
    assert flips > 450
    assert missed == 0
    assert len(tree_root(log.leaves)) == 32


@pytest.mark.parametrize("unbuffered", [[], ["-u"]], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("where", "code", "told"),
    [
        ("nobody", 0, ""),  # who reads no further knows why
        ("full", 2, "the verdict cannot be written: No space left on device"),
        ("closed", 2, "the verdict cannot be written: the output is closed"),
    ],
)
def test_an_output_that_cannot_be_written_makes_no_valid_log_a_broken_one(  # noqa: PLR0917 - cases
    alone: Path, tmp_path: Path, unbuffered: list[str], where: str, code: int, told: str
) -> None:
    folder = Log().start().write(tmp_path / "log")
    words = [str(alone), str(folder), "--state", "none"]
    program = [sys.executable, "-I", "-S", *unbuffered, *words]
    if where == "closed":
        program = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *program]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full" if where == "full" else writing, "wb") as out:  # noqa: PTH123 - or a pipe
        done = subprocess.run(program, stdout=out, stderr=subprocess.PIPE, check=False, text=True)
    assert (done.returncode, done.stderr.partition(": ")[2].rstrip("\n")) == (code, told)
