"""`countersign policy docs`: a page about policies, from their own annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.adapters.authoring.policy_notes import Note, Notes, read_notes
from gateway.adapters.policy.policy_bundle import find_rego_root, load_library
from gateway.adapters.policy.policy_library import parse_library
from gateway.adapters.policy.policy_package import build_packages
from gateway.cli.exits import Exit
from gateway.core.errors import ConfigurationError

_SETS: Final = ("permit", "deny", "hold", "obligation")
_SELECTORS: Final = ("tools", "servers", "effects", "phases")
_INTRODUCTION: Final = (
    "For those who write policies, and for those who ask why something was denied. This page is "
    "printed from the annotations of the policies themselves (`countersign policy docs`); what to "
    "do with them is in [policies.md](policies.md)."
)
_SETTINGS: Final = (
    "Put those that you want to change into a `data.json` beside the policies; what is left out is "
    "as shipped. This is all of them:"
)
_LIBRARY: Final = (
    'What policies may import: `import data.countersign.lib.args`, then `args.number("/amount")`. '
    "Reading what a run has spent makes its calls take turns; modules that do so are marked."
)


def register(app: typer.Typer) -> None:
    """Add the command to `countersign policy`."""
    app.command()(docs)


def docs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of policies.")],
    title: Annotated[str, typer.Option(help="The page's title.")] = "Policies",
    library: Annotated[bool, typer.Option("--library", help="Describe the library too.")] = False,
) -> None:
    """Print a page (Markdown) about the policies in a folder, from their annotations."""
    shared = load_library(find_rego_root()) if library else {}
    try:
        page = build_page(title, read_all(_read(directory)), read_all(shared), _spending(shared))
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(Exit.ERROR) from None
    except OSError as error:
        typer.echo(f"error: cannot read {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(Exit.USAGE) from None
    typer.echo(page, nl=False)


def _read(directory: Path) -> dict[str, str]:
    files = (file for file in directory.rglob("*.rego") if not file.name.endswith("_test.rego"))
    sources = {str(file.relative_to(directory)): _read_text(file) for file in files}
    if not sources:
        raise ConfigurationError(f"{directory}: there is no .rego file", code="policy_invalid")
    return sources


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        text = f"{file}: is no UTF-8 text ({error.reason}); save it as UTF-8"
        raise ConfigurationError(text, code="policy_invalid") from None


def read_all(sources: dict[str, str]) -> list[Notes]:
    """Return the annotations of sources (path → Rego), by package."""
    found = (read_notes(path, text) for path, text in sources.items())
    return sorted(found, key=lambda notes: notes.name)


def build_page(
    title: str, packages: Iterable[Notes], library: Iterable[Notes], spending: frozenset[str]
) -> str:
    """Return the page. `spending`: the modules of the library that read what a run has spent."""
    packages = list(packages)
    parts = [f"# {title}\n\n{_INTRODUCTION}\n", *(_package(notes) for notes in packages)]
    settings = build_settings(packages)
    if settings:
        text = json.dumps({"settings": settings}, indent=2)
        parts.append(f"## Settings\n{_SETTINGS}\n\n```json\n{text}\n```\n")
    modules = [_module(notes, spending=notes.name in spending) for notes in library]
    if modules:
        parts += [f"## The library\n{_LIBRARY}\n", *modules]
    return "\n".join(parts)


def build_settings(packages: Iterable[Notes]) -> dict[str, Any]:
    """Return what `data.settings` is as shipped, as the packages' annotations say it."""
    merged: dict[str, Any] = {}
    for notes in packages:
        merged |= notes.package.custom.get("settings", {})
    return dict(sorted(merged.items()))


def _package(notes: Notes) -> str:
    lines = [f"## {notes.name}", f"**{notes.package.title}.** {notes.package.description}".strip()]
    concerns = _concerns(notes.package.custom.get("applies_to", {}))
    if concerns:
        lines += ["", f"Concerns {concerns}."]
    rules = [note for note in notes.rules if note.rule in _SETS]
    if rules:
        lines += ["", "| says | code | when | why | OWASP |", "|---|---|---|---|---|"]
        lines += [_row(note) for note in rules]
    return "\n".join(lines) + "\n"


def _concerns(scope: dict[str, list[str]]) -> str:
    given = [(name, scope[name]) for name in _SELECTORS if name in scope]
    return "; ".join(f"{name} {', '.join(f'`{v}`' for v in values)}" for name, values in given)


def _row(note: Note) -> str:
    custom = note.custom
    when = ". ".join(filter(None, (note.title, note.description)))
    owasp = ", ".join(custom.get("owasp", ()))
    why = " ".join(str(custom.get("rationale", "")).split())
    cells = (note.rule, f"`{note.code}`" if note.code else "", when, why, owasp)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _module(notes: Notes, *, spending: bool) -> str:
    mark = " *(reads what the run has spent)*" if spending else ""
    lines = [f"### {notes.name}", f"{notes.package.description}{mark}"]
    if notes.rules:
        lines += ["", "| | |", "|---|---|", *_functions(notes)]
    return "\n".join(lines) + "\n"


def _functions(notes: Notes) -> Iterator[str]:
    for note in notes.rules:
        text = ". ".join(filter(None, (note.title, note.description)))
        yield f"| `{note.rule}` | {text.replace('|', chr(92) + '|')} |"


def _spending(shared: dict[str, str]) -> frozenset[str]:
    """Return the modules whose readers take turns: see `Package.reads_ledger`."""
    packages = build_packages(parse_library(shared, []).values(), {})
    return frozenset(
        name.rpartition(".")[2] for name, package in packages.items() if package.reads_ledger
    )
