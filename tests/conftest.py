"""What holds for every test: no sockets unless marked, no skips in CI, no settings from outside."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Generator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import kept as _  # noqa: F401 - first: what others then use is kept
from tests import seeds
from tests.effort import share
from tests.patience import PATIENT

LOOPBACK = ["127.0.0.1", "::1"]
KEPT = {
    "COUNTERSIGN_REQUIRE_ALL",
    "COUNTERSIGN_OPA",
    "COUNTERSIGN_FAULT_FACTOR",
    "COUNTERSIGN_EXAMPLES",
}
SHARED = {
    "COUNTERSIGN__AUDIT__RESERVE_MIB": "1",
    "COUNTERSIGN__LIMITS__AUDIT_WAIT_MS": str(PATIENT.audit_wait_ms),
}
"""Hundreds of logs share a disk: they would keep back gigabytes, and be refused when it stalls."""
GARBAGE = (50_000, 20, 100)
"""As in a gateway that serves: looking for garbage among ten thousand tests takes time."""
REQUIRE_ALL = os.environ.get("COUNTERSIGN_REQUIRE_ALL") == "1"

# No deadline: the cores are shared with the gateways, workers and upstreams that other tests start.
settings.register_profile(
    "countersign",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=share(50),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("countersign")


def pytest_configure() -> None:
    """Drop the developer's own gateway settings, for this process and those that it starts."""
    gc.set_threshold(*GARBAGE)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and what tests start, is not
    seeds.share()
    for name in [name for name in os.environ if name.startswith("COUNTERSIGN_")]:
        if name not in KEPT:
            del os.environ[name]
    os.environ.update(SHARED)


def pytest_unconfigure() -> None:
    """Leave no process behind."""
    seeds.shared.stop()


@pytest.fixture(scope="module", autouse=True)
def _engines_end_where_they_began(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """Collect policy engines that a failed load left in a cycle: they belong to one thread.

    Left to themselves they could be collected by a keeper's thread of some later test.
    """
    yield
    if {"policy", "examples", "audit_queries", "audit_access"} & set(request.path.parts):
        gc.collect()
        gc.freeze()  # what is left of a file, others need not go through


@pytest.fixture(scope="module", autouse=True)
def _logging_ends_as_it_was() -> Generator[None, None, None]:
    """Commands send log lines to the stderr of their runner, which is gone after the test."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sockets are off (pyproject.toml); `network` opens them to the loopback addresses only."""
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker(pytest.mark.allow_hosts(LOOPBACK))


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later look for garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed, a skipped test is a failed one."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although COUNTERSIGN_REQUIRE_ALL=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips itself while it is collected, too."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped although COUNTERSIGN_REQUIRE_ALL=1: {report.longrepr}"
    return report
