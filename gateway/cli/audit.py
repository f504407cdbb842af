"""`countersign audit`: verify, follow and show a log, from its files alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
import typer

from gateway.adapters.audit import audit_reader, audit_verify
from gateway.adapters.audit.audit_files import list_segments
from gateway.cli import audit_admin, audit_proofs
from gateway.cli.audit_bundle import bundle
from gateway.cli.audit_export import export
from gateway.cli.audit_filters import describe, read_pin, show_time
from gateway.cli.audit_query import query
from gateway.cli.audit_reconcile import reconcile
from gateway.cli.audit_replay import replay
from gateway.cli.audit_witnesses import witnesses
from gateway.cli.exits import Exit, say_why

app = typer.Typer(name="audit", help="Verify and read the audit log.", no_args_is_help=True)
app.command()(reconcile)
app.command()(replay)
app.command("open")(audit_admin.open_)
app.command()(audit_admin.redact)
app.add_typer(audit_admin.hold)
app.command()(query)
app.command()(export)
app.command()(bundle)
app.command()(witnesses)
audit_proofs.register(app)

_FOLLOW_PAUSE_S = 0.2


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The log's directory.")]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


@app.command()
def verify(
    directory: Directory,
    vkey: Annotated[
        str, typer.Option(help="The log's key, or a file that holds it, kept outside the log.")
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="A signed checkpoint that the log must contain.")
    ] = None,
    all_signatures: Annotated[
        bool, typer.Option(help="Verify each checkpoint's signature, not only the last.")
    ] = False,
    output: Format = Output.TABLE,
) -> None:
    """Check the log from its first to its last byte; exit with 8 when anything was changed."""
    _require_log(directory)
    try:
        report = audit_verify.verify(
            directory,
            vkey=read_pin(vkey),
            known=None if checkpoint is None else checkpoint.read_bytes().decode(),
            every_signature=all_signatures,
        )
    except (OSError, ValueError) as error:
        raise _fail(say_why(error), Exit.USAGE) from None
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if output is Output.TABLE:
        _print_report(report)
    else:
        typer.echo(msgspec.json.encode(report))
    if not report.valid:
        raise typer.Exit(Exit.VERIFICATION_FAILED)


@app.command()
def tail(
    directory: Directory,
    count: Annotated[int, typer.Option("-n", min=0, help="How many records.")] = 10,
    follow: Annotated[bool, typer.Option("-f", help="Go on with new records.")] = False,
    output: Format = Output.TABLE,
) -> None:
    """Print the last records, unchecked, oldest first."""
    _require_log(directory)
    with contextlib.suppress(KeyboardInterrupt):  # how following ends
        for record in _newest(directory, count, follow=follow):
            _print_record(record, output)


@app.command()
def show(
    directory: Directory,
    what: Annotated[str, typer.Argument(metavar="OP|SEQ", help="Operation id or record number.")],
    output: Format = Output.JSON,
) -> None:
    """Print the records of one operation, or one record, unchecked; exit with 5 for none."""
    _require_log(directory)
    found = audit_reader.find(directory, what)
    for record in found:
        _print_record(record, output)
    if not found:
        raise _fail(f"no record `{what}` in `{directory}`", Exit.NOT_FOUND)


def _require_log(directory: Path) -> None:
    if not list_segments(directory):
        raise _fail(f"`{directory}` holds no audit log", Exit.NOT_FOUND)


def _newest(directory: Path, count: int, *, follow: bool) -> Iterator[dict[str, Any]]:
    last = audit_reader.tail(directory, max(count, 1))
    yield from last[len(last) - min(count, len(last)) :]
    if follow:
        first = last[-1]["seq"] + 1 if last else 0
        yield from audit_reader.follow(directory, first, _pause)


def _pause() -> bool:
    time.sleep(_FOLLOW_PAUSE_S)
    return True


def _fail(message: str, code: Exit) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def _print_report(report: audit_verify.Report) -> None:
    for finding in report.findings:
        typer.echo(f"{finding.kind} at record {finding.seq} ({finding.place}): {finding.what}")
    if not report.valid:
        typer.echo("NOT VALID: this log is not as its writer left it")
        return
    typer.echo(f"log          {report.origin}")
    typer.echo(f"key          {report.key}")
    typer.echo(f"records      {report.records} in {report.checkpoints} signed batches")
    typer.echo(f"from, to     {_time(report.first_ts)}, {_time(report.last_ts)}")
    typer.echo(f"root         {report.root}")
    typer.echo("valid: every record is as it was written")


def _print_record(record: dict[str, Any], output: Output) -> None:
    if output is Output.JSONL:
        typer.echo(orjson.dumps(record))
    elif output is Output.JSON:
        typer.echo(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    else:
        typer.echo(describe(record))


def _time(ts: int | None) -> str:
    return "-" if ts is None else show_time(ts)
