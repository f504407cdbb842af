"""`countersign audit bundle`: evidence that one offline command verifies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_keys import load_key
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import Found, find_records
from gateway.adapters.audit.audit_values import ValueReader
from gateway.adapters.audit.evidence import Evidence, Wanted, write_evidence
from gateway.cli.audit_announce import Announcer, PurposeOption, UrlOption
from gateway.cli.audit_export import write_aside
from gateway.cli.audit_filters import (
    Asked,
    KekOption,
    LimitOption,
    LogDir,
    fail,
    open_vault,
    require_log,
    span_of,
    tell_unreadable,
    warn,
)
from gateway.cli.exits import Exit, say_why
from gateway.cli.option_groups import spread
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.records.audit_access import Span


@spread(Asked)
def bundle(
    directory: LogDir,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The ZIP file to write.")],
    asked: Asked,
    limit: LimitOption = None,
    openings: Annotated[
        bool, typer.Option("--openings", help="Open what the records commit to; needs `--kek`.")
    ] = False,
    kek: KekOption = None,
    bundles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The policy bundles: `bundles` in DIR.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An Ed25519 key, PEM, for the manifest.")
    ] = None,
    url: UrlOption = "",
    purpose: PurposeOption = "",
) -> None:
    """Write records, proofs, policies and the verifier into one file that proves itself."""
    require_log(directory)
    if openings:
        _check_opening(kek, purpose)
    vault = open_vault(directory, kek)
    find = partial(_find, directory, asked, vault, limit)
    announcer = Announcer(url, purpose, asked.said())
    records: Iterable[Found] = find()
    if openings:
        records = _announced(records, span_of(find()), announcer)
    wanted = Wanted(
        directory=directory,
        bundles=bundles or directory / "bundles",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        asked=_said(asked),
        values=ValueReader(directory, vault) if openings and vault is not None else None,
        signer=_load_signer(sign),
    )
    _write(records, wanted, announcer, out)


def _announced(records: Iterable[Found], span: Span, announcer: Announcer) -> Iterable[Found]:
    """Announce that values are opened. A live log grows: what was announced is what is opened."""
    announcer.read("opening", span)
    return takewhile(lambda found: found.record["seq"] <= (span.last or 0), records)


def _said(asked: Asked) -> str:
    """What was asked for, without whom."""
    return ", ".join(f"{name} {value}" for name, value in asked.said().items() if name != "human")


def _check_opening(kek: Path | None, purpose: str) -> None:
    if kek is None:
        raise fail("`--openings` needs `--kek`", Exit.USAGE)
    if not purpose.strip():
        raise fail("say with `--purpose` why values are opened", Exit.USAGE)


def _write(records: Iterable[Found], wanted: Wanted, announcer: Announcer, out: Path) -> None:
    try:
        with write_aside(out) as aside:
            made = write_evidence(records, wanted, aside)
            if not made.span.records:
                raise fail("no record fits, so there is no evidence", Exit.NOT_FOUND)
            digest = _digest(aside)
            announcer.export("bundle", digest, made.span)
    except OSError as error:
        raise fail(f"the bundle cannot be written: {say_why(error)}", Exit.ERROR) from None
    except AuditError as error:
        raise fail(str(error), Exit.VERIFICATION_FAILED) from None
    _tell(made, digest)


def _tell(made: Evidence, digest: str) -> None:
    for rev in made.missing_policies:
        warn(f"the policies `{rev}` are not kept any more, and not in the bundle")
    if made.beyond:
        warn(f"{made.beyond} records are not under a checkpoint yet, and not in the bundle")
    said = f"{made.span.records} records, {made.openings} values opened, SHA-256 {digest}"
    typer.echo(said, err=True)


def _find(directory: Path, asked: Asked, vault: Vault | None, limit: int | None) -> Iterator[Found]:
    selection = asked.select(vault)
    return find_records(directory, selection, limit=limit, unreadable=tell_unreadable)


def _digest(file: BinaryIO) -> str:
    file.flush()
    file.seek(0, os.SEEK_SET)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a file is one


def _load_signer(path: Path | None) -> Ed25519PrivateKey | None:
    if path is None:
        return None
    try:
        return load_key(path)
    except (ConfigurationError, OSError) as error:
        raise fail(say_why(error), Exit.USAGE) from None
