"""The answer of a reconciliation, for people and for programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec
import typer
from msgspec import Struct

from gateway.cli.admin_api import visible
from gateway.cli.reconcile_map import ExportMap
from gateway.core.reconcile.reconcile import Counts, Finding, RowName

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS_SHOWN: Final = 5
_TEXT_MAX: Final = 80


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class Report(Struct, kw_only=True):
    """One reconciliation. `records`: how many of the log are verified; None: it was not checked.

    `compared` and `not_comparable` count rows that belong to a call: those whose arguments could
    be opened, and those of which they could not (no key, or erased).
    """

    log: str
    records: int | None
    export: str
    sha256: str | None
    tools: tuple[str, ...]
    since_us: int | None
    until_us: int | None
    counts: Counts
    compared: int = 0
    not_comparable: int = 0
    findings: list[Finding]


def print_report(report: Report, said: ExportMap, output: Output) -> None:
    """Print to stdout. JSON lines: each finding, and then the summary."""
    if output is Output.TABLE:
        _print_table(report, said)
        return
    whole = msgspec.to_builtins(report)
    whole["counts"]["ignored"] = [
        {"column": rule.column, "why": rule.why, "rows": report.counts.ignored.get(at, 0)}
        for at, rule in enumerate(said.layout.ignore)
    ]
    if output is Output.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(whole), indent=2))
        return
    for finding in whole.pop("findings"):
        typer.echo(msgspec.json.encode(finding))
    typer.echo(msgspec.json.encode({"summary": whole}))


def _print_table(report: Report, said: ExportMap) -> None:
    for name, value in _heading(report, said):
        typer.echo(f"{name:<14}{visible(value)}")
    for finding in report.findings:
        typer.echo(visible(_line(finding)))
    if report.findings:
        typer.echo(f"NOT RECONCILED: {_plural(len(report.findings), 'finding')}")
    else:
        typer.echo("reconciled: the log explains every row, and every call has its effect")


def _heading(report: Report, said: ExportMap) -> list[tuple[str, str]]:
    counts = report.counts
    checked = "NOT VERIFIED" if report.records is None else f"{report.records} records, verified"
    lines = [
        ("log", f"{report.log}: {checked}"),
        ("export", f"{report.export}{f' sha256:{report.sha256}' if report.sha256 else ''}"),
        ("tools", ", ".join(report.tools)),
        (
            "covers",
            f"{_when(report.since_us, 'the first')} to {_when(report.until_us, 'the last')}",
        ),
        ("rows", f"{counts.rows}: {counts.explained} belong to calls that were sent"),
    ]
    for at, rule in enumerate(said.layout.ignore):
        count = counts.ignored.get(at, 0)
        lines.append(("", f"{count} left out by `{rule.column}`: {rule.why}"))
    if counts.outside:
        lines.append(("", f"{counts.outside} left out, their time is not covered"))
    if counts.undated and said.layout.time is not None:
        lines.append(("", f"{counts.undated} without a time that can be read, looked at"))
    lines.append(("calls", f"{counts.calls}: {counts.calls_with_effect} have their effect"))
    silent = (
        (counts.without_effect_rightly, "refused, held, not sent or failed, and have none"),
        (counts.unresolved, "ended unknown, and have none"),
        (counts.at_edge, "have none, at the edge of what is covered"),
        (counts.calls_outside, "have none, outside of what is covered"),
    )
    lines += [("", f"{count} {text}") for count, text in silent if count]
    lines.append(("arguments", f"{report.compared} rows compared"))
    if report.not_comparable:
        why = f"{report.not_comparable} not comparable: no key was given, or they were erased"
        lines.append(("", why))
    return lines


def _line(finding: Finding) -> str:
    words: list[Any] = [f"{finding.kind:<23}"]
    if finding.rows:
        shown = ", ".join(_row(name) for name in finding.rows[:_ROWS_SHOWN])
        more = len(finding.rows) - _ROWS_SHOWN
        words.append(f"row {shown}{f' and {more} more' if more > 0 else ''};")
    if finding.op:
        words.append(f"op {finding.op[:_TEXT_MAX]};")
    if finding.seq is not None:
        words.append(f"record {finding.seq};")
    words.append(finding.why[: 2 * _TEXT_MAX])
    if finding.fields:
        words.append(f"({', '.join(finding.fields)})")
    return " ".join(words)


def _row(name: RowName) -> str:
    return f"{name.row}" if name.id is None else f"{name.row} (id {name.id[:_TEXT_MAX]})"


def _when(us: int | None, of_all: str) -> str:
    if us is None:
        return f"{of_all} record"
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
