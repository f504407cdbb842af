"""The closing table: what the fault suite did and found, in figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import (  # noqa: F401 - fixtures, shared with the end-to-end tests
    acme,
    acme_listing,
    build_site,
    start,
    start_shared,
    stub,
    zygote,
)
from tests.fault.knobs import memory_folder

PREFIX = "fault: "
Figure = Callable[[str, object], None]
Rows = dict[tuple[str, str], object]
"""Figures by the headline that they stand under, and their name; one may be its own headline."""


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Return what adds a line to the closing table. It travels with the report of the test."""

    def add(name: str, value: object) -> None:
        record_property(PREFIX + name, value)

    return add


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory."""
    with memory_folder() as folder:
        yield folder


def _reports(terminalreporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """Return what the tests told, those of one file after the other."""
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    return sorted(reports, key=lambda report: report.nodeid)


def _add(rows: Rows, key: tuple[str, str], value: object) -> None:
    """Add a figure to those of the same name that other tests told."""
    before = rows.get(key)
    if isinstance(before, int) and isinstance(value, int):
        value += before
    rows[key] = value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    rows: Rows = {}
    for report in _reports(terminalreporter):
        above = ""
        for name, value in report.user_properties:
            if name.startswith(PREFIX):
                shown = name.removeprefix(PREFIX)
                above = above if shown.startswith(" ") else shown
                _add(rows, (above, shown), value)
    if rows:
        terminalreporter.section("fault suite")
        width = max(len(name) for _, name in rows)
        for (_, name), value in rows.items():
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            terminalreporter.line(f"{name:<{width}}  {shown:>12}")
