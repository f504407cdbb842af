"""`countersign audit replay`: recompute every recorded decision from what it was decided on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, get_args

import msgspec
import orjson
import typer

from gateway.adapters.audit.audit_query import Found, find_records
from gateway.adapters.audit.audit_replay import Replay, Replayed, Tally
from gateway.adapters.audit.audit_values import ValueReader
from gateway.cli.audit_announce import Announcer, PurposeOption, UrlOption
from gateway.cli.audit_filters import (
    Asked,
    LimitOption,
    Output,
    OutputOption,
    fail,
    span_of,
    tell_unreadable,
)
from gateway.cli.exits import Exit
from gateway.cli.log_places import Where
from gateway.cli.option_groups import spread
from gateway.core.records.replay import FAILURES, Kind, is_decided

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MISSING: Final[tuple[Kind, ...]] = ("lost", "unreplayable")
_PROGRESS_S: Final = 2.0


@spread(Where)
@spread(Asked, "since", "until", "op", "tool")
def replay(
    *,
    where: Where,
    asked: Asked,
    limit: LimitOption = None,
    fail_on_change: Annotated[
        bool,
        typer.Option(help="Exit with 8 also for what is lost or cannot be replayed."),
    ] = False,
    url: UrlOption = "",
    purpose: PurposeOption = "replay",
    output: OutputOption = Output.TABLE,
) -> None:
    """Recompute every recorded decision; exit with 8 when one differs."""
    places = where.find()
    vault = places.open_vault()
    records = _find_decisions(places.log, asked, limit)
    announcer = Announcer(url, purpose, asked.said())
    if announcer.is_recorded:
        span = span_of(_find_decisions(places.log, asked, limit))
        announcer.read("opening", span)
        records = (found for found in records if found.record["seq"] <= (span.last or 0))
    run = Replay(ValueReader(places.log, vault), places.bundles)
    tally, failed = asyncio.run(_replay(run, records, _Progress(), output))
    _print_tally(tally, failed, output)
    failures = {*FAILURES, *(MISSING if fail_on_change else ())}
    if any(tally.kinds[kind] for kind in failures):
        raise typer.Exit(Exit.VERIFICATION_FAILED)
    if not tally.total:
        raise fail("no record tells of a decision", Exit.NOT_FOUND)
    if tally.total == sum(tally.kinds[kind] for kind in MISSING):
        raise fail("nothing could be replayed; is the KEK the log's?", Exit.ERROR)


def _find_decisions(directory: Path, asked: Asked, limit: int | None) -> Iterator[Found]:
    found = find_records(directory, asked.select(), unreadable=tell_unreadable)
    return islice((item for item in found if is_decided(item.record)), limit)


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now: Final = now
        self._started: Final = now()
        self._told = self._started

    def tell(self, tally: Tally, seq: int) -> None:
        """Say so, unless it was said a moment ago."""
        now = self._now()
        if now - self._told < _PROGRESS_S:
            return
        self._told = now
        rate = tally.total / (now - self._started)
        typer.echo(f"{tally.total:,} decisions, to record {seq:,} ({rate:,.0f}/s)", err=True)


async def _replay(
    run: Replay, records: Iterator[Found], progress: _Progress, output: Output
) -> tuple[Tally, list[Replayed]]:
    tally, failed = Tally(), list[Replayed]()
    try:
        async with aclosing(run.run(records)) as found:
            async for item in found:
                tally.add(item)
                if item.kind in FAILURES:
                    if output is Output.JSON:
                        failed.append(item)
                    else:
                        _print_item(item, output)
                progress.tell(tally, item.seq)
    finally:
        await run.close()
    return tally, failed


def _print_item(item: Replayed, output: Output) -> None:
    if output is Output.TABLE:
        typer.echo(f"{item.kind} at record {item.seq} ({item.type} {item.op}): {item.what}")
    else:
        typer.echo(msgspec.json.encode(item))


def _print_tally(tally: Tally, failed: list[Replayed], output: Output) -> None:
    reasons = [
        {"kind": kind, "what": what, "count": count}
        for (kind, what), count in sorted(tally.reasons.items())
    ]
    counts: dict[str, int] = {kind: tally.kinds[kind] for kind in KINDS}
    summary: dict[str, object] = {"decisions": tally.total, **counts, "reasons": reasons}
    if output is Output.JSON:
        told = [msgspec.to_builtins(item) for item in failed]
        typer.echo(orjson.dumps({**summary, "findings": told}, option=orjson.OPT_INDENT_2))
    elif output is Output.JSONL:
        typer.echo(orjson.dumps({"summary": summary}))
    else:
        for kind, count in counts.items():
            typer.echo(f"{kind:<13} {count:>8}")
            for each in reasons:
                if each["kind"] == kind:
                    typer.echo(f"  {each['count']:>6}  {each['what']}")
        typer.echo(f"{'decisions':<13} {tally.total:>8}")
