"""`countersign policy replay`: what other policies would have decided on the recorded traffic."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from gateway.adapters.audit.audit_query import Found, find_records
from gateway.adapters.audit.replay_impact import Keep, PolicyReplay
from gateway.adapters.audit.replay_inputs import Decisions, Inputs
from gateway.adapters.authoring.clock_readers import tell_clock
from gateway.adapters.authoring.replay_memo import MEMO_MAX, Candidate
from gateway.adapters.authoring.result_watchers import tell_watchers
from gateway.adapters.policy.bundle_store import load_bundle
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir, restore_bundle
from gateway.adapters.releases.release_store import ReleaseStore
from gateway.cli.audit_announce import Announcer, UrlOption
from gateway.cli.audit_filters import Asked, LimitOption, fail, span_of, tell_unreadable, warn
from gateway.cli.exits import Exit
from gateway.cli.impact_table import print_impact
from gateway.cli.log_places import Where
from gateway.cli.option_groups import spread
from gateway.cli.policy_folder import Format, Output, write_input
from gateway.cli.policy_release import read_bundle
from gateway.core.errors import CountersignError
from gateway.core.records import impact_told
from gateway.core.records.impact import Impact

_WORKERS_MAX: Final = 16


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


@spread(Where)
@spread(Asked, "since", "until", "tool", "agent")
def replay(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="The candidate: a folder, or a release's file."),
    ] = None,
    *,
    release: Annotated[
        str, typer.Option(metavar="REV", help="Or one that was active once: `sha256:…`.")
    ] = "",
    where: Where,
    asked: Asked,
    limit: LimitOption = None,
    fail_on_change: Annotated[
        bool, typer.Option(help="Exit with 9 when a decision changes or gets no answer.")
    ] = False,
    examples: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the examples' inputs here, in clear."),
    ] = None,
    url: UrlOption = "",
    purpose: Annotated[
        str, typer.Option(help="Why, for the log; needed with `--url` and `--examples`.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, max=_WORKERS_MAX, help="Processes that evaluate.")
    ] = None,
    output: Format = Output.TABLE,
) -> None:
    """Put recorded inputs to other policies and print what would change. Changes nothing."""
    if examples is not None and not purpose.strip():
        raise fail("say why with `--purpose`: inputs are written out in clear", Exit.USAGE)
    places = where.find()
    vault = places.open_vault()
    bundle = _load(directory, release, places.bundles)
    records = announced(places.log, asked, limit, (url, purpose, examples))
    keep = None if examples is None else _keep_in(examples)
    impact = measure(bundle, records, Inputs(places.log, vault), keep=keep, workers=workers)
    if not impact.total and not impact.missing:
        raise fail(_why_nothing(asked), Exit.NOT_FOUND)
    _print(impact_told.describe(impact, bundle.revision), bundle, examples, output)
    _exit(impact, fail_on_change=fail_on_change)


def measure(
    bundle: Bundle,
    records: Iterator[Found],
    inputs: Inputs,
    *,
    keep: Keep | None = None,
    workers: int | None = None,
) -> Impact:
    """Return what a candidate would have changed. Exits where it cannot be started."""
    candidate = Candidate(bundle, workers=workers or count_workers(), memo_max=MEMO_MAX)
    run = PolicyReplay(candidate, inputs, keep=keep)
    return asyncio.run(_run(run, candidate, records))


def announced(
    log: Path, asked: Asked, limit: int | None, why: tuple[str, str, Path | None]
) -> Iterator[Found]:
    """Return the decisions asked for, once the reading of them is recorded."""

    def find() -> Iterator[Found]:
        chosen = Decisions(asked.select())
        return find_records(log, chosen, limit=limit, unreadable=tell_unreadable)

    url, purpose, examples = why
    said = asked.said() | ({"examples": "written out"} if examples is not None else {})
    announcer = Announcer(url, purpose or "policy replay", said)
    if not announcer.is_recorded:
        return find()
    span = span_of(find())
    announcer.read("opening", span)
    return (found for found in find() if found.record["seq"] <= (span.last or 0))


def _load(directory: Path | None, release: str, store: Path) -> Bundle:
    if (directory is None) == (not release):
        raise fail("name the candidate: a folder, or `--release`", Exit.USAGE)
    if directory is not None and not directory.exists():
        raise fail(f"`{directory}` is not there; name a folder or a release's file", Exit.USAGE)
    try:
        if directory is None:
            return _load_release(release, store)
        return read_bundle(directory) if directory.is_file() else load_bundle_dir(directory)
    except CountersignError as error:
        raise fail(str(error), Exit.ERROR) from None


def _load_release(revision: str, store: Path) -> Bundle:
    """Return the policies of a release, or the bundle that a decision names: people have both."""
    releases = ReleaseStore(store.parent / "releases")
    if releases.has(revision):
        return restore_bundle(releases.load(revision).policy_files)
    return load_bundle(store, revision)


def count_workers() -> int:
    """Return how many processes evaluate: one core is left to this one."""
    return max(1, min(_WORKERS_MAX, len(os.sched_getaffinity(0)) - 1))


def _keep_in(folder: Path) -> Keep:
    """Return what writes inputs into a folder that only its owner reads."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    warn(f"inputs are written to `{folder}` in clear; delete them when you are done")

    def keep(name: str, document: bytes) -> None:
        write_input(folder / name, document)

    return keep


async def _run(run: PolicyReplay, candidate: Candidate, records: Iterator[Found]) -> Impact:
    try:
        await candidate.start()
        return await run.run(records)
    except CountersignError as error:
        raise fail(str(error), Exit.ERROR) from None
    finally:
        await candidate.stop()


def _why_nothing(asked: Asked) -> str:
    given = [f"`--{name} {value}`" for name, value in asked.said().items()]
    if not given:
        return "no record tells of a decision"
    return f"no record of a decision matches {', '.join(given)}; ask for more"


def _exit(impact: Impact, *, fail_on_change: bool) -> None:
    if not impact.total:
        why = ", ".join(f"{count} {name}" for name, count in impact.missing.most_common())
        raise fail(f"no input could be had ({why}); is the KEK the log's?", Exit.ERROR)
    if fail_on_change and (impact.changed or impact.kinds["error"]):
        raise typer.Exit(Exit.TEST_FAILED)


def _print(told: dict[str, Any], bundle: Bundle, examples: Path | None, output: Output) -> None:
    told |= {"clock": tell_clock(bundle), "watchers": tell_watchers(bundle)}
    if output is Output.JSON:
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    else:
        print_impact(told, examples)
