"""`countersign runs`: which runs there are, what they have spent, and the end of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_id,
    check_reason,
    print_json,
    print_rows,
    visible,
)

app = typer.Typer(name="runs", help="Runs, whose authority agents act under.", no_args_is_help=True)

_ROUTE: Final = "/v1/runs"
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")]


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command("list")
def list_(
    agent: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    client: Annotated[str, typer.Option(help="Only those that this client created.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, newest first; those that live unless told otherwise."""
    named = (("agent", agent), ("client", client), ("all", "true" if all_ else ""))
    found = ask("GET", _ROUTE, params=[(name, text) for name, text in named if text])
    if output is Output.JSON:
        print_json(found)
        return
    rows = [("ID", "AGENT", "CLIENT", "FOR", "STATE", "DEADLINE", "OUTCOME")]
    rows += [
        (
            one["run_id"],
            visible(one["agent"]),
            visible(one["launcher"]),
            visible(one["on_behalf_of"] or ""),
            one["state"],
            time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(one["deadline"])),
            visible(one["outcome"]),
        )
        for one in found["runs"]
    ]
    print_rows(rows)
    if found["more"]:
        print("older ones are left out; narrow it by --agent or --client", file=sys.stderr)


@app.command()
def show(id_: IdArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one run: what it may do, and what all of its family have spent."""
    found = ask("GET", f"{_ROUTE}/{check_id(id_, 'countersign runs list')}")
    if output is Output.JSON:
        print_json(found)
    else:
        _print(found)


@app.command()
def close(
    id_: IdArgument,
    reason: Annotated[str, typer.Option(help="Why, for the log.")],
    outcome: Annotated[Outcome, typer.Option(help="How it ended.")] = Outcome.CANCELLED,
    output: OutputOption = Output.TABLE,
) -> None:
    """End a run: its tokens die, and nothing held in it is sent."""
    check_reason(reason)
    path = f"{_ROUTE}/{check_id(id_, 'countersign runs list')}/close"
    done = ask("POST", path, body={"outcome": outcome.value, "reason": reason})
    if output is Output.JSON:
        print_json(done)
    else:
        print(f"{done['run_id']} {done['state']} {visible(done['outcome'])}")


def _print(run: Mapping[str, Any]) -> None:
    """One run for a person: who, until when, what it may, what it spent."""
    pairs = [
        ("agent", visible(run["agent"])),
        ("launched by", visible(run["launcher"])),
        ("on behalf of", visible(run["on_behalf_of"] or "nobody")),
        ("workflow", visible(run["workflow"])),
        ("state", f"{run['state']} {visible(run['outcome'])}".strip()),
        ("deadline", time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(run["deadline"]))),
        ("handed on", f"at most {run['max_depth']} times"),
        *(("may call", visible(_grant(grant))) for grant in run["grants"]),
        *_spent(run["spent"]),
    ]
    print_rows([("RUN", run["run_id"]), *pairs])


def _spent(spent: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if spent is None:
        return [("calls", "no longer counted here; `countersign audit query` finds them")]
    return [
        ("calls", str(spent["calls"])),
        *((f"calls of {visible(tool)}", str(n)) for tool, n in spent["counts"].items()),
        *((f"sum of {visible(key)}", str(total)) for key, total in spent["sums"].items()),
        ("labels", ", ".join(map(visible, spent["labels"])) or "none"),
        ("budget left", visible(str(spent["budget"])) if spent["budget"] else "unbounded"),
    ]


def _grant(grant: Mapping[str, Any]) -> str:
    narrower = {name: value for name, value in grant.items() if name not in {"server", "tool"}}
    told = f"{grant['server']}.{grant.get('tool', '*')}"
    return f"{told} {narrower}" if narrower else told
