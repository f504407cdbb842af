"""`countersign tools list|diff|approve`: what upstreams offer, and what people made of it.

The upstreams are asked directly, so this works with and without a running gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import typer
from msgspec import Struct, structs

from connectors.approve import ALL, Approved, approve_definitions
from connectors.catalog import Catalog, ToolStatus
from connectors.http_pool import HttpPool
from connectors.listing import read_offers
from connectors.manifest import Manifest
from connectors.upstreams import Transport, build_transport
from gateway.adapters.system import SystemClock, SystemIds
from gateway.cli.admin_api import visible
from gateway.cli.config import DEFAULT_FILE, ConfigFile, read_config
from gateway.cli.exits import Exit
from gateway.config.settings import Config
from gateway.core.errors import ConfigurationError, UpstreamError
from gateway.logs import configure_logging
from gateway.wiring.broker import (
    build_broker,
    build_endpoint,
    check_credentials,
    find_bindings,
    load_manifests,
)

app = typer.Typer(
    name="tools", help="See, compare and approve the tools of upstreams.", no_args_is_help=True
)

Output = Annotated[
    Literal["table", "json", "jsonl"], typer.Option("--output", "-o", help="How to print it.")
]
Server = Annotated[str, typer.Argument(metavar="SERVER", help="Id of the upstream.")]

_COLUMNS: Final = ("TOOL", "STATE", "EFFECT", "REVIEWED BY", "WHY NOT")
_HINTS: Final = {
    "unreviewed": "no manifest names it",
    "unpinned": "no definition approved yet: `countersign tools approve`",
    "quarantined": "its definition has changed: `countersign tools diff`",
    "missing": "the upstream does not offer it",
}


class Survey(Struct, frozen=True):
    """What every upstream answered, or why it did not."""

    catalog: Catalog
    manifests: dict[str, Manifest]
    listings: dict[str, list[bytes]]
    errors: dict[str, str]


@app.command("list")
def list_(config: ConfigFile = DEFAULT_FILE, output: Output = "table") -> None:
    """List every tool with its state, also those that agents never see."""
    found = _survey(config)
    states = found.catalog.states()
    if output == "table":
        _print_table([_COLUMNS, *(_row(status) for status in states)])
    else:
        _print_json([_build_status(status) for status in states], output)
    _finish(found)


@app.command()
def diff(config: ConfigFile = DEFAULT_FILE, output: Output = "table") -> None:
    """Show every definition that is not the approved one: both digests and the new definition."""
    found = _survey(config)
    changed = [
        _build_status(status) | {"definition": _definition(found, status)}
        for status in found.catalog.states()
        if status.state in ("quarantined", "unpinned") and status.live_digest is not None
    ]
    if output == "table":
        for one in changed:
            print(f"{one['server']}.{one['name']}: {one['state']}")
            print(f"  approved  {one['approved_digest'] or 'none'}")
            print(f"  offered   {one['live_digest']}")
            print(f"{json.dumps(one['definition'], indent=2)}\n")
        for server in found.manifests:
            _print_approval(server, [one for one in changed if one["server"] == server])
    else:
        _print_json(changed, output)
    _finish(found)


@app.command()
def approve(
    server: Server,
    *,
    reviewed_by: Annotated[str, typer.Option(help="Who has reviewed the definitions.")],
    tools: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOOL]...", help="Names as the upstream has them."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every tool of the manifest.")] = False,
    digest: Annotated[
        list[str] | None,
        typer.Option(help="Pin only what `diff` called `offered`: its digest. May be repeated."),
    ] = None,
    config: ConfigFile = DEFAULT_FILE,
    output: Output = "table",
) -> None:
    """Pin the definitions that an upstream offers; `diff` shows them, and the command to paste."""
    if bool(tools) == all_:
        raise typer.BadParameter("name the tools, or say `--all`")
    found = _survey(config, server)
    if server not in found.manifests:
        raise _fail(
            f"no server `{server}` in {config}; see `countersign tools list`", Exit.NOT_FOUND
        )
    _finish(found)
    try:
        approved = approve_definitions(
            found.manifests[server].path,
            found.listings[server],
            tools or ALL,
            reviewed_by,
            read=digest,
        )
    except ConfigurationError as error:
        raise _fail(str(error), Exit.ERROR) from None
    skipped = {one.name for one in found.manifests[server].tools} - {one.name for one in approved}
    if all_ and skipped:
        typer.echo(f"not offered, so not approved: {', '.join(sorted(skipped))}", err=True)
    if output == "table":
        _print_table([_approval_row(server, one) for one in approved])
    else:
        _print_json([structs.asdict(one) for one in approved], output)


def _survey(path: ConfigFile, only: str | None = None) -> Survey:
    """Ask every upstream (or one) for its tools. Exits when the configuration has mistakes."""
    configure_logging("console", "error")
    settings = read_config(path)
    try:
        return asyncio.run(survey(settings, only))
    except ConfigurationError as error:
        raise _fail(str(error), Exit.ERROR) from None


async def survey(settings: Config, only: str | None = None) -> Survey:
    """Ask every configured upstream (or one) for its tools, all at the same time.

    Raises `ConfigurationError` for a manifest or an endpoint with mistakes.
    """
    manifests = load_manifests(settings, only)
    found = Survey(Catalog(), manifests, {}, {})
    bindings = find_bindings(settings, manifests)
    async with HttpPool() as pool:
        broker = build_broker(settings, bindings, pool=pool, ids=SystemIds(), environ=os.environ)
        await check_credentials(broker, bindings, SystemClock())
        transports: dict[str, Transport] = {}
        for name, manifest in manifests.items():
            found.catalog.review(manifest, prefix=settings.servers[name].prefix)
            transports[name] = build_transport(
                manifest,
                build_endpoint(settings.servers[name]),
                pool=pool,
                clock=SystemClock(),
                limits=settings.call_limits(),
                broker=broker,
            )
        await asyncio.gather(*(_ask(found, name, one) for name, one in transports.items()))
        await broker.close()
    return found


async def _ask(found: Survey, name: str, transport: Transport) -> None:
    try:
        found.listings[name] = await transport.list_tools()
        found.catalog.offer(name, found.listings[name])
    except UpstreamError as error:
        found.errors[name] = str(error)
    finally:
        await transport.close()


def _definition(found: Survey, status: ToolStatus) -> Any:  # noqa: ANN401 - JSON has any type
    offers, _ = read_offers(found.listings[status.server])
    return offers[status.name].value


def _build_status(status: ToolStatus) -> dict[str, Any]:
    return structs.asdict(status) | {"callable": status.usable}


def _row(status: ToolStatus) -> tuple[str, ...]:
    return (
        f"{status.server}.{status.name}",
        status.state,
        status.effect,
        status.reviewed_by or "",
        status.problem or _HINTS.get(status.state, ""),
    )


def _approval_row(server: str, one: Approved) -> tuple[str, ...]:
    return (f"{server}.{one.name}", one.before or "none", "->", one.digest)


def _print_approval(server: str, changed: Sequence[Mapping[str, Any]]) -> None:
    """Print the command that approves these definitions, and no others."""
    if changed:
        words = ["countersign", "tools", "approve", server, *(one["name"] for one in changed)]
        words += [word for one in changed for word in ("--digest", one["live_digest"])]
        print(f"approve as shown:  {_visible(shlex.join(words))} --reviewed-by NAME")


def _finish(found: Survey) -> None:
    """Say on stderr which upstreams did not answer, and exit with an error if any."""
    for name, error in found.errors.items():
        typer.echo(_visible(f"server `{name}` cannot be listed: {error}"), err=True)
    if found.errors:
        raise typer.Exit(Exit.ERROR)


def _fail(text: str, code: Exit) -> typer.Exit:
    typer.echo(_visible(text), err=True)
    return typer.Exit(code)


def _print_json(items: Sequence[Mapping[str, Any]], output: str) -> None:
    if output == "jsonl":
        for item in items:
            print(json.dumps(item))
    else:
        print(json.dumps(items, indent=2))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    safe = [[_visible(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*safe, strict=True)]
    for row in safe:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _visible(text: str) -> str:
    """Return text that cannot steer a terminal, whatever an upstream calls its tools."""
    return "\n".join(visible(line) for line in text.split("\n"))
