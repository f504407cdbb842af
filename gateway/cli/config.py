"""`countersign config check|show|schema`: what the gateway would run with."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from ruamel.yaml import YAML

from gateway.cli.exits import Exit
from gateway.core.errors import ConfigurationError

if TYPE_CHECKING:
    from gateway.config.settings import Config

app = typer.Typer(
    name="config", help="Check and show the gateway's configuration.", no_args_is_help=True
)

REDACTED: Final = "(redacted)"
_SECRET_KEYS: Final = ("secret_hash", "env")
_NOTIFY: Final = "notify"
_HOOK: Final = re.compile(r"(https?://[^/?]+/?).")
_QUERY: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:\S+\?)\S")

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="COUNTERSIGN_CONFIG",
        help="The configuration file.",
        metavar="FILE",
    ),
]
DEFAULT_FILE: Final = Path("countersign.yaml")


@app.command()
def check(config: ConfigFile = DEFAULT_FILE) -> None:
    """Say everything that is wrong with the configuration and its manifests, or `ok`."""
    found = read_config(config)
    faults = [*_find_release_faults(config, found), *_find_server_faults(config, found)]
    if faults:
        typer.echo("\n".join(faults), err=True)
        raise typer.Exit(Exit.ERROR)
    for warning in _find_idle_grants(config, found):
        typer.echo(f"warning: {warning}", err=True)
    counts = f"{len(found.servers)} servers, {len(found.clients)} clients, "
    print(f"ok: {config}: {counts}{len(found.humans)} humans, at {found.public_url}")


@app.command()
def show(
    config: ConfigFile = DEFAULT_FILE,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("--output", "-o", help="How to print it.")
    ] = "yaml",
) -> None:
    """Print the effective configuration: defaults and overrides applied, secrets taken out."""
    shown = _redact(read_config(config).model_dump(mode="json"))
    if output == "json":
        print(json.dumps(shown, indent=2))
    else:
        yaml = YAML()
        yaml.default_flow_style = False
        yaml.dump(shown, sys.stdout)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from gateway.config.settings import config_schema  # noqa: PLC0415 - see `load`

    print(json.dumps(config_schema(), indent=2))


def load(path: Path) -> Config:
    """Return the configuration at `path`, with this environment. Raises `ConfigurationError`."""
    # Its models take as long to load as all else of a command, and most commands need none.
    from gateway.config.settings import load_config  # noqa: PLC0415

    return load_config(path, os.environ)


def read_config(path: Path) -> Config:
    """Return the configuration at `path`, or print every mistake to stderr and exit."""
    try:
        return load(path)
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.ERROR) from None


def _find_release_faults(path: Path, config: Config) -> Iterator[str]:
    """Yield what a start would say where releases decide, and nobody could ever publish one."""
    from gateway.config.release import build_rules, require_two  # noqa: PLC0415 - see `load`

    if config.dev or config.policy.releases == "off":
        return
    try:
        require_two(build_rules(config))
    except ConfigurationError as error:
        yield f"{path}: {error}"


def _find_server_faults(path: Path, config: Config) -> Iterator[str]:
    """Yield what a start would say of manifests, and of servers that are not as theirs says."""
    from connectors.upstreams import check_endpoint  # noqa: PLC0415 - see `load`
    from gateway.wiring.broker import build_endpoint, load_manifests  # noqa: PLC0415

    for name, section in config.servers.items():
        try:
            for manifest in load_manifests(config, name).values():
                check_endpoint(manifest, build_endpoint(section))
        except ConfigurationError as error:
            has_place = str(error).startswith(str(section.manifest))
            yield str(error) if has_place else f"{path}: {error}"


def _find_idle_grants(path: Path, config: Config) -> Iterator[str]:
    """Yield which grants give nothing: the server's manifest has no such tool."""
    from gateway.config.checks import suggest  # noqa: PLC0415 - see `load`
    from gateway.wiring.broker import load_manifests  # noqa: PLC0415

    manifests = load_manifests(config)
    documents = config.oauth.client_id_metadata_documents
    holders = [(f"clients.{one.id}", one.grants) for one in config.clients]
    holders.append(("oauth.client_id_metadata_documents", documents.grants))
    for holder, grants in holders:
        for grant in grants:
            tools = manifests[grant.server].tools
            effects = {one.effect for one in tools if grant.tool in {"*", one.name}}
            if not effects:
                hint = suggest(grant.tool, frozenset(one.name for one in tools))
                what = f"`{grant.server}.{grant.tool}` is in no manifest; {hint}"
            elif grant.effects and effects.isdisjoint(grant.effects):
                what = f"`{grant.server}.{grant.tool}` has no effect of {', '.join(grant.effects)}"
            else:
                continue
            yield f"{path}: {holder}: a grant gives nothing: {what}"


def _redact(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON has any type
    """Take out hashes of secrets, environments of upstreams and queries of URLs.

    The path of an address that takes notices goes, too: with many, who knows it may post there.
    """
    if key in _SECRET_KEYS and value:
        return dict.fromkeys(value, REDACTED) if isinstance(value, dict) else REDACTED
    if isinstance(value, dict):
        inner = _NOTIFY if key == _NOTIFY else ""
        return {name: _redact(item, inner or name) for name, item in value.items()}
    if isinstance(value, list):
        return [_redact(item) for item in value]
    if isinstance(value, str) and (found := (_HOOK if key == _NOTIFY else _QUERY).match(value)):
        return f"{found[1]}{REDACTED}"
    return value
