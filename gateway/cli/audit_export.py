"""`countersign audit export`: records in the forms that other programs take."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from gateway.adapters.audit.audit_export import Exported
from gateway.adapters.audit.audit_export import export as write_export
from gateway.adapters.audit.audit_query import Found, find_records
from gateway.cli.audit_announce import Announcer, PurposeOption, UrlOption
from gateway.cli.audit_filters import (
    Asked,
    KekOption,
    LimitOption,
    LogDir,
    fail,
    open_vault,
    require_log,
    tell_unreadable,
)
from gateway.cli.exits import Exit, say_why
from gateway.cli.option_groups import spread
from gateway.core.log.exports import Format


class Form(StrEnum):
    """What a row is."""

    JSONL = "jsonl"
    CSV = "csv"
    OCSF = "ocsf"
    CLOUDEVENTS = "cloudevents"


@spread(Asked)
def export(
    directory: LogDir,
    *,
    form: Annotated[
        Form, typer.Option("--format", help="Lines as they stand, CSV, OCSF 1.8, CloudEvents 1.0.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there, and not to stdout.")
    ] = None,
    asked: Asked,
    limit: LimitOption = None,
    kek: KekOption = None,
    url: UrlOption = "",
    purpose: PurposeOption = "",
) -> None:
    """Export the records that pass every filter, unchecked; no value behind a commitment."""
    require_log(directory)
    selection = asked.select(open_vault(directory, kek) if asked.human is not None else None)
    announcer = Announcer(url, purpose, asked.said())
    records = find_records(directory, selection, limit=limit, unreadable=tell_unreadable)
    if out is None and not announcer.is_recorded:
        write_export(records, form.value, sys.stdout.buffer)
        return
    try:
        written = _hand_over(records, form.value, announcer, out)
    except OSError as error:
        raise fail(f"the export cannot be written: {say_why(error)}", Exit.ERROR) from None
    typer.echo(f"{written.span.records} records, SHA-256 {written.digest}", err=True)


def _hand_over(
    records: Iterable[Found], form: Format, announcer: Announcer, out: Path | None
) -> Exported:
    """Write the export aside; hand it over once its digest is recorded."""
    with write_aside(out) as aside:
        written = write_export(records, form, aside)
        announcer.export(form, written.digest, written.span)
        aside.seek(0)
        if out is None:
            shutil.copyfileobj(aside, sys.stdout.buffer)
    return written


@contextmanager
def write_aside(out: Path | None) -> Iterator[BinaryIO]:
    """Yield a private file that becomes `out` at the end, unless something is raised."""
    if out is None:
        with tempfile.TemporaryFile() as file:
            yield cast("BinaryIO", file)
        return
    # Of a name that nobody knows before: no link of somebody else's, and no second export into it.
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=".", suffix=".new")
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as new:
            yield new
            new.flush()
            os.fsync(descriptor)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
