"""`countersign policy diff`: what two releases differ in, and what that would have changed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.adapters.audit.replay_inputs import Inputs
from gateway.adapters.authoring.clock_readers import tell_clock
from gateway.adapters.authoring.result_watchers import tell_watchers
from gateway.adapters.policy.policy_bundle import restore_bundle
from gateway.cli.admin_api import Output, OutputOption, ask, fail, print_json, visible
from gateway.cli.audit_announce import UrlOption
from gateway.cli.audit_filters import Asked
from gateway.cli.exits import Exit
from gateway.cli.impact_table import print_impact
from gateway.cli.log_places import Where
from gateway.cli.option_groups import spread
from gateway.cli.policy_release import ROUTE, read_release, told
from gateway.cli.policy_replay import announced, measure
from gateway.core.records import impact_told
from gateway.core.releases.difference import Difference, compare


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(diff)


@spread(Where, "config", "log", "kek")
@spread(Asked, "since", "until")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A file, or a revision.")],
    after: Annotated[
        str,
        typer.Argument(metavar="[B]", help="The same; without it, A is held against what decides."),
    ] = "",
    *,
    asked: Asked,
    where: Where,
    url: UrlOption = "",
    purpose: Annotated[str, typer.Option(help="Why recorded inputs are read, for the log.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Say what two releases differ in; with `--since`, also what B would have changed.

    Revisions are asked of the gateway. `--since` reads recorded inputs, as `policy replay` does;
    where the gateway is told of it, that takes the role `auditor` or `admin`.
    """
    if not after:
        before, after = _what_decides(), before
    one, other = (told(lambda name=name: read_release(name).release) for name in (before, after))  # type: ignore[misc]
    found = compare(one, other)
    impact = None
    if asked.said():
        places = where.find()
        vault = places.open_vault()
        why = (url, purpose or "policy diff", None)
        records = announced(places.log, asked, None, why)
        bundle, was = (told(lambda of=of: restore_bundle(of.policy_files)) for of in (other, one))  # type: ignore[misc]
        impact = impact_told.describe(
            measure(bundle, records, Inputs(places.log, vault)), other.revision
        ) | {"clock": tell_clock(bundle, was), "watchers": tell_watchers(bundle, was)}
    _print(found, impact, output)


def _what_decides() -> str:
    active = ask("GET", ROUTE)["active"]
    if active is None:
        fail(Exit.NOT_FOUND, "no release decides there; name two to compare")
    return str(active)


def _print(found: list[Difference], impact: dict[str, Any] | None, output: Output) -> None:
    if output is Output.JSON:
        listed = [_as_json(one) for one in found]
        print_json(listed if impact is None else {"differences": listed, "impact": impact})
        return
    for one in found:
        print(f"{one.change} {one.kind} {visible(one.place)}")
        for line in one.lines:
            print(f"  {visible(line.expandtabs(4))}")
    print(f"{len(found)} differences" if found else "no differences")
    if impact is not None:
        print()
        print_impact(impact)


def _as_json(one: Difference) -> dict[str, Any]:
    return {"kind": one.kind, "place": one.place, "change": one.change, "lines": list(one.lines)}
