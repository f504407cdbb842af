"""`countersign audit witnesses`: how much of a log others have seen, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.adapters.witness.witness_records import Report, Seen, read_witnesses
from gateway.cli.audit_filters import read_vkey
from gateway.cli.exits import Exit, say_why
from gateway.core.log.cosignature import parse_witness_vkey
from gateway.core.log.note import NoteKey


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def witnesses(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The log's directory.")],
    vkey: Annotated[
        list[str] | None,
        typer.Option(help="A witness's key, or a file of them; without, nothing is verified."),
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print.")] = Output.TABLE,
) -> None:
    """Show what each witness last cosigned, and how much came after; exit with 8 for a bad one."""
    try:
        report = read_witnesses(directory, [key for text in vkey or () for key in _keys(text)])
    except LookupError as error:
        raise _fail(error.args[0], Exit.NOT_FOUND) from None
    except (OSError, ValueError) as error:
        raise _fail(say_why(error), Exit.USAGE) from None
    _print(report, output)
    if any(seen.good is False for seen in report.witnesses):
        raise _fail("a cosignature is not its witness's", Exit.VERIFICATION_FAILED)


def _keys(text: str) -> list[NoteKey]:
    return [parse_witness_vkey(line) for line in read_vkey(text).split()]


def _print(report: Report, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(msgspec.json.encode(report))
        return
    if output is Output.JSONL:
        for seen in report.witnesses:
            typer.echo(msgspec.json.encode(seen))
        return
    typer.echo(f"{report.log}: {report.records} records, the last at {_time(report.last_s)}")
    for seen in report.witnesses:
        typer.echo(_line(seen))
    if not report.witnesses:
        typer.echo("no witness has cosigned this log")


def _line(seen: Seen) -> str:
    word = {None: "not verified", True: "good", False: "BAD"}[seen.good]
    return (
        f"  {seen.witness}  {seen.size} records at {_time(seen.time_s)} ({word}); beyond it "
        f"{seen.records_beyond} records, {seen.seconds_beyond} s"
    )


def _time(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def _fail(message: str, code: Exit) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)
