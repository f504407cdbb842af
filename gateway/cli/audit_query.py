"""`countersign audit query`: find records of a log."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, cast

from gateway.adapters.audit.audit_export import HashingWriter
from gateway.adapters.audit.audit_query import Found, find_records
from gateway.cli.audit_announce import Announcer, PurposeOption, UrlOption
from gateway.cli.audit_filters import (
    Asked,
    KekOption,
    LimitOption,
    LogDir,
    Output,
    OutputOption,
    describe,
    open_vault,
    require_log,
    tell_unreadable,
)
from gateway.cli.option_groups import spread


@spread(Asked)
def query(
    directory: LogDir,
    *,
    asked: Asked,
    limit: LimitOption = None,
    kek: KekOption = None,
    url: UrlOption = "",
    purpose: PurposeOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the records that pass every filter, unchecked, oldest first.

    How a call ended goes with it. `-o jsonl` prints the lines of the log byte for byte.
    """
    require_log(directory)
    selection = asked.select(open_vault(directory, kek) if asked.human is not None else None)
    announcer = Announcer(url, purpose, asked.said())
    records = find_records(directory, selection, limit=limit, unreadable=tell_unreadable)
    stdout = sys.stdout.buffer
    if not announcer.is_recorded:
        _print(records, output, stdout)
        return
    # What is recorded is what is shown: it waits aside until the gateway has written so.
    with tempfile.TemporaryFile() as spool:
        writer = _print(records, output, cast("BinaryIO", spool))
        announcer.read("query", writer.end().span)
        spool.seek(0)
        shutil.copyfileobj(spool, stdout)


def _print(records: Iterable[Found], output: Output, out: BinaryIO) -> HashingWriter:
    writer = HashingWriter(out)
    if output is Output.JSON:
        lead = b"["
        for found in records:
            writer.write_record(found.record["seq"], lead + b"\n" + found.line)
            lead = b","
        writer.write(b"[]\n" if lead == b"[" else b"\n]\n")
        return writer
    for found in records:
        line = found.line if output is Output.JSONL else describe(found.record).encode()
        writer.write_record(found.record["seq"], line + b"\n")
    return writer
