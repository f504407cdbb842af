"""What the `countersign audit` commands that read records share: options, filters, words."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_query import Found
from gateway.cli.admin_api import visible
from gateway.cli.exits import Exit
from gateway.cli.option_groups import OptionGroup
from gateway.core.errors import ConfigurationError
from gateway.core.log.audit_filter import Filter, Selection, parse_when
from gateway.core.records.audit_access import Span

_SHOWN: Final = (("decision", "outcome"), ("tool", "id"), ("actor", "agent"))

LogDir = Annotated[Path, typer.Argument(metavar="DIR", help="The log's directory.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="No more than the first.")
]
KekOption = Annotated[
    Path | None, typer.Option("--kek", metavar="FILE", help="The key to the openings.")
]


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


class Asked(OptionGroup, frozen=True, kw_only=True):
    """The filters of one command line."""

    agent: Annotated[str | None, typer.Option(metavar="ID", help="Who called.")] = None
    human: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Whose values these are, or who voted; needs `--kek`."),
    ] = None
    tool: Annotated[
        str | None, typer.Option(metavar="ID", help="Which tool, as `shop.refund`.")
    ] = None
    rule: Annotated[
        str | None,
        typer.Option(metavar="POLICY:CODE", help="Why it was decided so; `POLICY:` for any code."),
    ] = None
    op: Annotated[str | None, typer.Option(metavar="ID", help="Which operation.")] = None
    run: Annotated[str | None, typer.Option(metavar="ID", help="Which run.")] = None
    decision: Annotated[
        str | None, typer.Option(metavar="permit|hold|deny", help="What was decided.")
    ] = None
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="TYPE", help="Record type, `call.*` for several; repeatable."
        ),
    ] = None
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From this time on: ISO 8601, or how long ago (7d).")
    ] = ""
    until: Annotated[str, typer.Option(metavar="TIME", help="Before this time.")] = ""

    def select(self, vault: Vault | None = None) -> Selection:
        """Return what takes the records asked for. Exits where a filter makes no sense."""
        if self.decision not in {None, "permit", "hold", "deny"}:
            raise fail(f"`{self.decision}` is none of permit, hold, deny", Exit.USAGE)
        if self.human is not None and vault is None:
            raise fail("give `--kek`: a human is found by the key of their values", Exit.USAGE)
        now_us = time.time_ns() // 1000
        try:
            "".join(self.said().values()).encode()  # what is no text is in no record
            wanted = Filter(
                agent=self.agent,
                tool=self.tool,
                rule=self.rule,
                op=self.op,
                run=self.run,
                decision=self.decision,
                types=tuple(self.types or ()),
                since_us=parse_when(self.since, now_us) if self.since else None,
                until_us=parse_when(self.until, now_us) if self.until else None,
            )
            check_span(wanted.since_us, wanted.until_us)
        except (ValueError, OverflowError) as error:
            raise fail(str(error), Exit.USAGE) from None
        if self.human is None or vault is None:
            return Selection(wanted)
        return Selection(wanted, {vault.key_id(self.human)})

    def said(self) -> dict[str, str]:
        """Return the filters that were given, for the record of the reading."""
        named = {
            "agent": self.agent,
            "human": self.human,
            "tool": self.tool,
            "rule": self.rule,
            "op": self.op,
            "run": self.run,
            "decision": self.decision,
            "type": ",".join(self.types or ()),
            "since": self.since,
            "until": self.until,
        }
        return {name: value for name, value in named.items() if value}


def check_span(since_us: int | None, until_us: int | None) -> None:
    """Raise `ValueError` for a time that ends before it begins: in it, nothing is ever wrong."""
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise ValueError("`--since` is not before `--until`; mend one of them")


def require_log(directory: Path) -> None:
    """Exit with 5 where a directory holds no log."""
    if not list_segments(directory):
        raise fail(f"`{directory}` holds no audit log", Exit.NOT_FOUND)


def read_vkey(given: str) -> str:
    """Return what `--vkey` says: the text of a file, or else the key itself."""
    path = Path(given)
    return given if "+" in given and not path.is_file() else path.read_text()


def read_pin(given: str) -> str | None:
    """Return the key that a log is verified with: of a `log.vkey`, that of its first epoch."""
    return read_vkey(given).strip().partition("\n")[0] if given else None


def open_vault(directory: Path, kek: Path | None) -> Vault | None:
    """Return what opens the log's openings, where a key is given. Exits for an unusable one."""
    if kek is None:
        return None
    if not kek.is_file():
        raise fail(f"key file `{kek}` is not there; name it with `--kek`", Exit.USAGE)
    try:
        return Vault(directory / "openings" / "keys", load_or_create_kek(kek), "", Files())
    except ConfigurationError as error:
        raise fail(str(error), Exit.USAGE) from None


def span_of(records: Iterable[Found]) -> Span:
    """Return which records are about to be read, without keeping them."""
    count, first, last = 0, None, None
    for found in records:
        count, last = count + 1, cast("int", found.record["seq"])
        first = last if first is None else first
    return Span(count, first, last)


def warn(message: str) -> None:
    """Tell people something beside the data."""
    typer.echo(f"warning: {message}", err=True)


def tell_unreadable(place: str) -> None:
    """Tell people that a line is no record."""
    warn(f"{place} is no record; see `countersign audit verify`")


def fail(message: str, code: Exit) -> typer.Exit:
    """Tell people why there is no data, and return what to raise."""
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    return typer.Exit(code)


def describe(record: dict[str, Any]) -> str:
    """Return a record as a line of a table, which moves no terminal whatever stands in it."""
    words = [record.get(name) for name in ("stage", "reason", "status", "state")]
    words += [_inner(record, *names) for names in _SHOWN]
    said = " ".join(word for word in words if isinstance(word, str))
    head = f"{record['seq']:>8}  {show_time(record['ts'])}  {record['type']:<17}"
    return visible(f"{head} {record['op']}  {said}".rstrip())


def show_time(ts: int) -> str:
    """Return a record's time for people."""
    return datetime.fromtimestamp(ts / 1_000_000, UTC).isoformat(timespec="milliseconds")


def _inner(record: dict[str, Any], outer: str, inner: str) -> object:
    value = record.get(outer)
    return value.get(inner) if isinstance(value, dict) else None
