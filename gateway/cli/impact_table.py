"""How people read what other policies would have changed: the table of `core…impact_told`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from gateway.cli.admin_api import visible
from gateway.core.records.impact import CHANGES, KINDS, Kind, Row

_ROWS_SHOWN: Final = 20
_AGENTS_SHOWN: Final = 3
_WHY_UNMEASURED: Final = {
    "no_decisions": "no decision of the last week is on record",
    "too_slow": "it took too long; `countersign policy replay` takes its time",
    "failed": "it could not be measured; `countersign policy replay` says why",
}


def print_impact(
    told: Mapping[str, Any],
    examples: Path | None = None,
    *,
    err: bool = False,
    more: str = "all with `-o json`",
) -> None:
    """Print it. `examples`: the folder in which the inputs of the examples lie.

    `more`: how to get at the rows that are too many to print.
    """
    lines = [f"candidate  {visible(told['candidate'])}"]
    if since_s := told.get("since_s"):
        lines.append(f"since      {_when(since_s)}")
    found = sorted(told["phases"].items(), key=lambda one: -one[1])
    phases = ", ".join(f"{phase} {count:,}" for phase, count in found)
    lines += [f"decisions  {told['decisions']:,} ({phases or 'none'})", ""]
    for kind in KINDS:
        why = _say_errors(told["errors"]) if kind == "error" else ""
        lines.append(f"{_words(kind):<24}{told['counts'][kind]:>10,}{why}")
    lines += [f"{visible(name):<24}{count:>10,}" for name, count in told["missing"].items()]
    if by_type := told.get("by_type"):
        lines += ["", f"Of {by_type:,}, only the types of obligations are on record."]
    lines += say_clock(told.get("clock"))
    lines += say_watchers(told.get("watchers", ()))
    rows = msgspec.convert(told["rows"], list[Row])
    for kind in CHANGES:
        lines += _tell_kind(kind, [row for row in rows if row.kind == kind], examples, more)
    typer.echo("\n".join([*lines, "", told["note"]]), err=err)


def say_clock(told: Mapping[str, Any] | None) -> list[str]:
    """Return what is said of packages that read the time; nothing where none does."""
    if told is None or not told["reads"]:
        return []
    lines = ["", f"These packages read the time: {_names(told['reads'])}."]
    if told.get("changed"):
        lines.append(f"WARNING: new or changed among them: {_names(told['changed'])}.")
    lines.append("Past calls do not show what their rules say at another time; read them.")
    return lines


def say_watchers(names: Sequence[str]) -> list[str]:
    """Return what is said of packages that begin to judge results; nothing where none does."""
    if not names:
        return []
    return [
        "",
        f"WARNING: These packages judge results: {_names(names)}.",
        "What a tool answered is on record only where policy was asked about it before; read them.",
    ]


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(visible, names))


def say_impact(told: Mapping[str, Any] | None) -> str:
    """Return in one line what a record says of an impact."""
    if told is None:
        return "nothing is known of what it would change"
    if why := told.get("unmeasured"):
        return f"nothing is known of what it would change: {_WHY_UNMEASURED.get(why, visible(why))}"
    changed = ", ".join(
        f"{told[kind]:,} {kind.replace('_', ' ')}"
        for kind in ("newly_denied", "newly_held", "newly_permitted")
    )
    failed = f", {told['error']:,} without an answer" if told["error"] else ""
    return f"of {told['decisions']:,} decisions since {_when(told['since_s'])}: {changed}{failed}"


def _tell_kind(kind: Kind, rows: Sequence[Row], examples: Path | None, more: str) -> list[str]:
    if not rows:
        return []
    lines = ["", f"{_words(kind)}, by rule, tool and agent"]
    for row in rows[:_ROWS_SHOWN]:
        rule, tool = visible(row.rule or "-"), visible(row.tool)
        lines.append(f"{row.count:>10,}  {rule}  {tool}  {_agents(row)}")
        for one in row.examples:
            where = f"  {examples / one.file}" if examples is not None and one.file else ""
            lines.append(f"{'':>12}record {one.seq}, {one.op}: {one.was} → {one.now}{where}")
    if len(rows) > _ROWS_SHOWN:
        lines.append(f"{'':>12}and {len(rows) - _ROWS_SHOWN} more; {more}")
    return lines


def _agents(row: Row) -> str:
    shown = sorted(row.agents.items(), key=lambda one: -one[1])[:_AGENTS_SHOWN]
    more = len(row.agents) - len(shown)
    named = ", ".join(f"{visible(agent)} {count:,}" for agent, count in shown)
    return f"{named} and {more} more agents" if more else named


def _words(kind: Kind) -> str:
    other = {
        "approval": "other approval asked",
        "obligations": "other obligations",
        "reasons": "other reasons",
        "gateway": "refused by the ledger",
        "unanswered": "unanswered then",
        "error": "no answer now",
    }
    return other.get(kind, kind.replace("_", " "))


def _say_errors(errors: Mapping[str, int]) -> str:
    named = ", ".join(f"`{visible(code)}` {count}" for code, count in errors.items())
    return f"  {named}" if named else ""


def _when(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
