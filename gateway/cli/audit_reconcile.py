"""`countersign audit reconcile`: whether a system of record's own export tells the log's story."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct

from gateway.adapters.audit import audit_verify
from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.export_reader import Digest, Source, open_export
from gateway.adapters.audit.reconcile_log import index_calls, open_arguments
from gateway.cli.audit_filters import check_span, read_pin
from gateway.cli.exits import Exit, say_why
from gateway.cli.reconcile_map import ExportMap, load_map
from gateway.cli.reconcile_report import Output, Report, print_report
from gateway.core import strict_json
from gateway.core.errors import ConfigurationError, RequestError
from gateway.core.limits import Limits
from gateway.core.reconcile.reconcile import (
    Finding,
    Matched,
    Pair,
    Scope,
    compare,
    match,
    needs_arguments,
)
from gateway.core.reconcile.reconcile_rows import Effect, build_effect, parse_iso

UNVERIFIED: Final = (
    "UNVERIFIED: the log was not verified; whoever changed the export may have changed it too"
)
LOG: Final = Path("audit")
NOTHING_JOINS: Final = (
    "no row names an operation of these calls; does the manifest of the tools say "
    '`operation_id_at`, and does the server keep `_meta["io.countersign/operation_id"]` there?'
)
_FINDINGS_MAX: Final = 100
_DEPTH_MAX: Final = Limits().json_max_depth


class Reading(Struct, frozen=True):
    """Which openings are about to be read: of how many records, the first and the last."""

    records: int
    first: int
    last: int


Announce = Callable[[Reading], None]
"""Makes the record that a reading is to leave (`audit.read`), or raises."""


def warn_of_reading(directory: Path, purpose: str, reading: Reading) -> None:
    """Say that nothing records the reading."""
    typer.echo(
        f"warning: the arguments of {reading.records} calls (records {reading.first} to "
        f"{reading.last} of `{directory}`) are opened to {purpose}, and no record says so",
        err=True,
    )


Export = Annotated[
    str,
    typer.Argument(
        help="A CSV or JSONL file, `-`, `sqlite:///FILE` or `postgresql://HOST/DATABASE`."
    ),
]
MapFile = Annotated[
    Path, typer.Option("--map", metavar="FILE", help="What the export's columns mean (YAML).")
]
Log = Annotated[Path, typer.Option(metavar="DIR", help="The log's directory.")]
Kek = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The key to the openings, to compare arguments.")
]
Vkey = Annotated[
    str, typer.Option(help="The log's key, or a file that holds it, kept outside the log.")
]
Since = Annotated[
    str, typer.Option(metavar="TIME", help="The export covers this time on (ISO 8601).")
]
Until = Annotated[
    str, typer.Option(metavar="TIME", help="The export covers what is before this time.")
]
Purpose = Annotated[str, typer.Option(help="Why arguments are opened.")]
Unverified = Annotated[
    bool, typer.Option("--unverified", help="Go on with a log that was not verified.")
]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


def reconcile(
    export: Export,
    *,
    map_: MapFile,
    log: Log = LOG,
    kek: Kek = None,
    vkey: Vkey = "",
    since: Since = "",
    until: Until = "",
    purpose: Purpose = "reconcile",
    unverified: Unverified = False,
    output: Format = Output.TABLE,
) -> None:
    """Compare a system of record's own export with the log; exit with 8 when they disagree."""
    try:
        said = load_map(map_)
        scope = Scope(
            tools=said.tools,
            since_us=_time("--since", since),
            until_us=_time("--until", until),
            skew_us=said.skew_us,
        )
        check_span(scope.since_us, scope.until_us)
        vault = _open_vault(log, kek)
    except (ConfigurationError, ValueError) as error:
        raise _fail(str(error), Exit.USAGE) from None
    try:
        records = None if unverified else _verify(log, vkey)
        report = run(
            export,
            said,
            scope,
            directory=log,
            vault=vault,
            records=records,
            announce=partial(warn_of_reading, log, purpose),
        )
    except RequestError as error:
        raise _fail(str(error), Exit.ERROR) from None
    if unverified:
        typer.echo(f"warning: {UNVERIFIED}", err=True)
    print_report(report, said, output)
    if report.counts.rows and report.counts.calls and not report.counts.explained:
        typer.echo(f"hint: {NOTHING_JOINS}", err=True)
    if report.findings:
        raise typer.Exit(Exit.VERIFICATION_FAILED)


def run(
    export: str,
    said: ExportMap,
    scope: Scope,
    *,
    directory: Path,
    vault: Vault | None,
    records: int | None,
    announce: Announce,
) -> Report:
    """Reconcile one export. `records`: how many of the log's are verified, None for no check.

    `announce` is called before the first opening is read; when it raises, none is. Raises
    `RequestError` for an export that cannot be read.
    """
    digest = Digest()
    effects = _read_effects(export, said, digest)
    wanted = {effect.op for effect in effects}
    calls = index_calls(directory, scope.tools, wanted, records=records)
    matched = match(scope, calls, effects)
    report = Report(
        log=str(directory),
        records=records,
        export=export,
        sha256=digest.hex,
        tools=tuple(scope.tools),
        since_us=scope.since_us,
        until_us=scope.until_us,
        counts=matched.counts,
        findings=matched.findings,
    )
    _compare(
        report,
        scope,
        matched,
        directory=directory,
        vault=vault,
        announce=announce,
    )
    report.findings.sort(key=_order)
    return report


def _read_effects(export: str, said: ExportMap, digest: Digest) -> list[Effect]:
    source = Source(place=export, format=said.format, delimiter=said.delimiter, query=said.query)
    with open_export(source, said.layout.names(), digest) as rows:
        return [build_effect(said.layout, number, row) for number, row in enumerate(rows, 1)]


def _compare(
    report: Report,
    scope: Scope,
    matched: Matched,
    *,
    directory: Path,
    vault: Vault | None,
    announce: Announce,
) -> None:
    """Hold each row against the arguments of its call, as far as they can be opened."""
    waiting: dict[int, list[Pair]] = {}
    for pair in matched.pairs:
        if needs_arguments(scope, pair):
            waiting.setdefault(pair.call.seq, []).append(pair)
    report.not_comparable = sum(map(len, waiting.values()))
    if vault is None or not waiting:
        return
    announce(Reading(len(waiting), min(waiting), max(waiting)))
    calls = {seq: pairs[0].call for seq, pairs in waiting.items()}
    for seq, raw in open_arguments(directory, vault, calls):
        arguments = strict_json.parse(raw, max_depth=_DEPTH_MAX)
        pairs = waiting.pop(seq)
        report.compared += len(pairs)
        report.not_comparable -= len(pairs)
        found = (compare(scope, pair, arguments) for pair in pairs)
        report.findings += [finding for finding in found if finding is not None]


def _order(finding: Finding) -> tuple[str, int, int]:
    return finding.kind, finding.rows[0].row if finding.rows else 0, finding.seq or 0


def _verify(directory: Path, vkey: str) -> int:
    """Return how many records are verified. Exits when the log is not as it was written."""
    try:
        report = audit_verify.verify(directory, vkey=read_pin(vkey))
    except (OSError, ValueError) as error:
        raise _fail(say_why(error), Exit.USAGE) from None
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for one in islice(report.findings, _FINDINGS_MAX):
        typer.echo(f"{one.kind} at record {one.seq} ({one.place}): {one.what}", err=True)
    if not report.valid:
        raise _fail(
            "the log is not valid, so nothing was reconciled; see `countersign audit verify`",
            Exit.VERIFICATION_FAILED,
        )
    return report.records


def _open_vault(log: Path, kek: Path | None) -> Vault | None:
    """Return what opens the log's openings, where there is a key. Exits when there is no log."""
    if not list_segments(log):
        raise _fail(f"`{log}` holds no audit log; name one with `--log`", Exit.NOT_FOUND)
    if kek is None:
        return None
    if not kek.is_file():
        raise ConfigurationError(f"key file `{kek}` is not there; name it with `--kek`")
    return Vault(log / "openings" / "keys", load_or_create_kek(kek), "", Files())


def _time(option: str, text: str) -> int | None:
    if not text:
        return None
    try:
        return parse_iso(text, naive_utc=False)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option}: `{text}` is no time; write it as 2026-01-31T00:00:00Z"
        ) from None


def _fail(message: str, code: Exit) -> typer.Exit:
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    return typer.Exit(code)
