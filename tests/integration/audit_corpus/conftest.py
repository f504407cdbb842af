from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.integration.audit_corpus.corpus import ROOT, Answer, Run

BUILD_TIMEOUT_S = 300
SCRIPT = ROOT / "verify/countersign_verify.py"


@pytest.fixture(scope="session")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the second verifier; a machine without Go skips what needs it."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go; install Go 1.24 or newer")
    binary = tmp_path_factory.mktemp("go") / "countersign-verify"
    subprocess.run(
        [go, "build", "-o", str(binary), "./cmd/countersign-verify"],
        cwd=ROOT / "verify/go",
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return binary


@pytest.fixture(scope="session")
def run_go(go_verifier: Path) -> Run:
    """Return a way to run the verifier in Go, as a process of its own."""

    def run(arguments: list[str]) -> Answer:
        command = [str(go_verifier), "-json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return _answer(done.returncode, done.stdout)

    return run


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """Load the stand-alone verifier from its file; it is no part of a package."""
    spec = importlib.util.spec_from_file_location("countersign_verify", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_python(script: ModuleType) -> Run:
    """Return a way to run the stand-alone verifier: its `main`, as 450 processes take a minute."""

    def run(arguments: list[str]) -> Answer:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = script.main(_spelled(arguments))
        return _answer(code, out.getvalue())

    return run


@pytest.fixture(scope="session")
def run_python_process() -> Run:
    """Return a way to run the stand-alone verifier as a process of its own."""

    def run(arguments: list[str]) -> Answer:
        command = [sys.executable, str(SCRIPT), *_spelled(arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return _answer(done.returncode, done.stdout)

    return run


def _spelled(arguments: list[str]) -> list[str]:
    """Return the arguments in the spelling of the stand-alone verifier; it remembers by itself."""
    words = ["--json"] + [f"-{one}" if one.startswith("-") else one for one in arguments]
    return words if "--state" in words else ["--state", "none", *words]


def _answer(code: int, out: str) -> Answer:
    return Answer(code, json.loads(out)["findings"] if out else [])
