"""The closing table: what the fault suite did and found, in figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.knobs import memory_folder

PREFIX = "fault: "
Figure = Callable[[str, object], None]


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    rows = [
        (name.removeprefix(PREFIX), value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name.startswith(PREFIX) and getattr(report, "when", "") == "call"
    ]
    if rows:
        terminalreporter.section("fault suite")
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            terminalreporter.line(f"{name:<{width}}  {shown:>12}")
