"""`countersign audit reconcile`: whether a system of record's own export tells the log's story."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from gateway.adapters import audit_verify
from gateway.adapters.audit_files import Files, list_segments
from gateway.adapters.audit_keys import load_or_create_kek
from gateway.adapters.audit_openings import Vault
from gateway.adapters.export_reader import Digest, Source, open_export
from gateway.adapters.reconcile_log import index_calls, open_arguments
from gateway.cli.config import DEFAULT_FILE, ConfigFile, read_config
from gateway.cli.exits import Exit
from gateway.cli.reconcile_map import ExportMap, load_map
from gateway.cli.reconcile_report import Output, Report, print_report
from gateway.core import strict_json
from gateway.core.errors import ConfigurationError, RequestError
from gateway.core.limits import Limits
from gateway.core.reconcile import Finding, Matched, Pair, Scope, compare, match, needs_arguments
from gateway.core.reconcile_rows import Effect, build_effect, parse_iso

UNVERIFIED: Final = (
    "UNVERIFIED: the log was not verified; whoever changed the export may have changed it too"
)
_BATCH: Final = 1_000


class Reading(Struct, frozen=True):
    """Which openings are about to be read: how many records, the first and the last, what for."""

    records: int
    first: int
    last: int
    purpose: str


BeforeOpening = Callable[[Path, Reading], None]
"""Makes the record that a reading is to leave (`audit.read`), or raises; nothing is read before."""


def warn_of_reading(directory: Path, reading: Reading) -> None:  # noqa: ARG001 - one of several
    """Say that nothing records the reading."""
    typer.echo(
        f"warning: the arguments of {reading.records} calls (records {reading.first} to "
        f"{reading.last}) are opened to be compared, and no record says so",
        err=True,
    )


before_opening: BeforeOpening = warn_of_reading


def reconcile(
    export: Annotated[
        str,
        typer.Argument(
            help="A CSV or JSONL file, `-`, `sqlite:///FILE` or `postgresql://HOST/DATABASE`."
        ),
    ],
    *,
    map_: Annotated[
        Path, typer.Option("--map", metavar="FILE", help="What the export's columns mean (YAML).")
    ],
    log: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The log; else the configuration names it.")
    ] = None,
    kek: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The key to the openings, to compare arguments."),
    ] = None,
    vkey: Annotated[
        str, typer.Option(help="The log's key, or a file that holds it, kept outside the log.")
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="The export covers this time on (ISO 8601).")
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="The export covers what is before this time.")
    ] = "",
    purpose: Annotated[str, typer.Option(help="Why arguments are opened.")] = "reconcile",
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Go on with a log that was not verified.")
    ] = False,
    config: ConfigFile = DEFAULT_FILE,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print.")] = Output.TABLE,
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
        directory, vault = _find_log(log, kek, config)
    except ConfigurationError as error:
        raise _fail(str(error), Exit.USAGE) from None
    try:
        records = None if unverified else _verify(directory, vkey)
        report = run(
            export, said, scope, directory=directory, vault=vault, records=records, purpose=purpose
        )
    except RequestError as error:
        raise _fail(str(error), Exit.ERROR) from None
    if unverified:
        typer.echo(f"warning: {UNVERIFIED}", err=True)
    print_report(report, said, output)
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
    purpose: str,
    announce: BeforeOpening | None = None,
) -> Report:
    """Reconcile one export. `records`: how many of the log's are verified, None for no check.

    `announce` is called before any opening is read, `before_opening` unless given. Raises
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
        purpose=purpose,
        announce=announce or before_opening,
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
    purpose: str,
    announce: BeforeOpening,
) -> None:
    """Hold each row against the arguments of its call, as far as they can be opened."""
    waiting: dict[int, list[Pair]] = {}
    for pair in matched.pairs:
        if needs_arguments(scope, pair):
            waiting.setdefault(pair.call.seq, []).append(pair)
    report.not_comparable = sum(map(len, waiting.values()))
    if vault is None or not waiting:
        return
    announce(directory, Reading(len(waiting), min(waiting), max(waiting), purpose))
    calls = {seq: pairs[0].call for seq, pairs in waiting.items()}
    for seq, raw in open_arguments(directory, vault, calls):
        arguments = _parse(raw)
        if arguments is None:
            continue
        pairs = waiting.pop(seq)
        report.compared += len(pairs)
        report.not_comparable -= len(pairs)
        found = (compare(scope, pair, arguments) for pair in pairs)
        report.findings += [finding for finding in found if finding is not None]


def _parse(raw: bytes) -> Mapping[str, Any] | None:
    try:
        value = strict_json.parse(raw, max_depth=Limits().json_max_depth)
    except RequestError:
        return None
    return value if isinstance(value, dict) else None


def _order(finding: Finding) -> tuple[str, int, int]:
    return finding.kind, finding.rows[0].row if finding.rows else 0, finding.seq or 0


def _verify(directory: Path, vkey: str) -> int:
    """Return how many records are verified. Exits when the log is not as it was written."""
    try:
        key = None if not vkey else vkey if "+" in vkey else Path(vkey).read_text().strip()
        report = audit_verify.verify(directory, vkey=key)
    except (OSError, ValueError) as error:
        raise _fail(str(error), Exit.USAGE) from None
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for one in islice(report.findings, _BATCH):
        typer.echo(f"{one.kind} at record {one.seq} ({one.place}): {one.what}", err=True)
    if not report.valid:
        raise _fail(
            "the log is not valid, so nothing was reconciled; see `countersign audit verify`",
            Exit.VERIFICATION_FAILED,
        )
    return report.records


def _find_log(log: Path | None, kek: Path | None, config: Path) -> tuple[Path, Vault | None]:
    """Return the log's directory and, where there is a key, what opens its openings."""
    if log is None:
        audit = read_config(config).audit
        log, kek = audit.dir, kek or (audit.kek if audit.kek.exists() else None)
    if not list_segments(log):
        raise _fail(f"`{log}` holds no audit log", Exit.NOT_FOUND)
    if kek is None:
        return log, None
    if not kek.is_file():
        raise ConfigurationError(f"key file `{kek}` is not there; name it with `--kek`")
    return log, Vault(log / "openings" / "keys", load_or_create_kek(kek), "", Files())


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
