"""`countersign policy check`: whether the gateway would load these policies, and what is odd."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer

from gateway.adapters.authoring.policy_deployment import find_mismatches
from gateway.adapters.authoring.policy_linters import ask_linters
from gateway.adapters.authoring.policy_review import find_warnings, read_parsed
from gateway.adapters.authoring.policy_settings import find_setting_faults
from gateway.adapters.authoring.role_limits import find_role_limits
from gateway.adapters.policy.policy_bundle import Bundle, gate_folder
from gateway.adapters.policy.policy_faults import Mistake, read_engine_error
from gateway.cli.exits import Exit
from gateway.cli.policy_config import read_deployment
from gateway.cli.policy_folder import Directory, Format, Output, try_engine
from gateway.core.errors import CountersignError

Tools = Annotated[
    bool, typer.Option("--tools/--no-tools", help="Ask opa and regal too, where they are on PATH.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings too.")]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Ask whether its tools, servers and people are those that the policies name; by "
        "default countersign.yaml here or above DIR, if these are its policies.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


def check(
    directory: Directory,
    *,
    output: Format = Output.TABLE,
    tools: Tools = True,
    strict: Strict = False,
    config: Config = None,
) -> None:
    """Say whether the gateway would load these policies, and if not, every reason."""
    found = gate_folder(directory)
    mistakes = _try(found) if isinstance(found, Bundle) else found
    notes: list[str] = []
    if directory.is_dir():
        mistakes += find_warnings(directory)
        mistakes += ask_linters(directory, notes) if tools else []
    if isinstance(found, Bundle):
        sources = read_parsed(directory)
        mistakes += find_role_limits(sources, found.packages)
        mistakes += find_setting_faults(found, sources, _read(directory / "data.json"))
        deployment = read_deployment(directory, config, notes)
        if deployment is not None:
            mistakes += find_mismatches(found, sources, deployment)
    _print(found, mistakes, notes, output)
    wrong = {mistake.severity for mistake in mistakes}
    if "error" in wrong or (strict and wrong):
        raise typer.Exit(Exit.ERROR)


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _try(bundle: Bundle) -> list[Mistake]:
    """Start the engine with it: some mistakes show only where policies are evaluated."""
    try:
        asyncio.run(try_engine(bundle))
    except CountersignError as error:
        return [read_engine_error(str(error), error.code)]
    return []


def _print(
    found: Bundle | list[Mistake], mistakes: list[Mistake], notes: list[str], output: Output
) -> None:
    loads = isinstance(found, Bundle) and all(each.severity != "error" for each in mistakes)
    names = sorted(found.packages) if isinstance(found, Bundle) else []
    revision = found.revision if isinstance(found, Bundle) else None
    if output is Output.JSON:
        report = {
            "ok": loads,
            "revision": revision if loads else None,
            "packages": names if loads else [],
            "faults": [mistake.as_dict() for mistake in mistakes],
            "notes": notes,
        }
        typer.echo(orjson.dumps(report))
        return
    for mistake in mistakes:
        typer.echo(f"{mistake.severity}: {mistake}", err=True)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if loads:
        typer.echo(f"ok: {len(names)} packages ({', '.join(names)})\nrevision: {revision}")
