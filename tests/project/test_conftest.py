from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SKIPPING = """
import pytest

def test_a():
    pytest.skip("no reason")

@pytest.mark.xfail(reason="known", strict=True)
def test_b():
    raise AssertionError
"""

SKIPPING_MODULE = """
import pytest

pytest.importorskip("no_such_module")
"""

SOCKETS = """
import asyncio, socket
import pytest

def test_a_socket_is_refused():
    with pytest.raises(UserWarning, match="tried to use"):
        socket.socket()

async def test_an_event_loop_still_runs():
    await asyncio.sleep(0)

@pytest.mark.network
def test_the_loopback_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()

@pytest.mark.network
def test_nothing_beyond_it_is_tried():
    with pytest.raises(UserWarning, match="192.0.2.1"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
"""

ENVIRONMENT = """
import os

def test_settings_from_outside_are_gone():
    assert "COUNTERSIGN__LISTEN" not in os.environ
"""


def run_pytest(folder: Path, source: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `source` as a test file under this project's own conftest and settings."""
    file = folder / "test_it.py"
    file.write_text(source)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COUNTERSIGN_", "PYTEST_"))
    }
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", "pyproject.toml"),
            *("-p", "no:cacheprovider", "-p", "tests.conftest", file),
        ],
        cwd=ROOT,
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("source", [SKIPPING, SKIPPING_MODULE])
def test_a_skip_fails_where_everything_is_required(tmp_path: Path, source: str) -> None:
    result = run_pytest(tmp_path, source, COUNTERSIGN_REQUIRE_ALL="1")
    assert result.returncode != 0
    assert "COUNTERSIGN_REQUIRE_ALL=1" in result.stdout


def test_a_skip_is_a_skip_elsewhere_and_an_expected_failure_stays_one(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, SKIPPING)
    assert "1 skipped, 1 xfailed" in result.stdout.splitlines()[-1]


def test_sockets_are_off_but_for_the_loopback_of_marked_tests(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, SOCKETS)
    assert "4 passed" in result.stdout.splitlines()[-1], result.stdout


def test_settings_of_the_caller_do_not_reach_a_test(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, ENVIRONMENT, COUNTERSIGN__LISTEN="0.0.0.0:1")
    assert result.returncode == 0, result.stdout
