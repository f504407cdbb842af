"""`countersign config check|show|schema`: what the gateway would run with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from ruamel.yaml import YAML

from gateway.cli.exits import Exit
from gateway.core.errors import ConfigurationError

if TYPE_CHECKING:
    from gateway.config import Config

app = typer.Typer(
    name="config", help="Check and show the gateway's configuration.", no_args_is_help=True
)

REDACTED: Final = "(redacted)"
_SECRET_KEYS: Final = ("secret_hash", "env")

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
    """Say everything that is wrong with the configuration, or `ok`."""
    found = read_config(config)
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
    from gateway.config import config_schema  # noqa: PLC0415 - see `load`

    print(json.dumps(config_schema(), indent=2))


def load(path: Path) -> Config:
    """Return the configuration at `path`, with this environment. Raises `ConfigurationError`."""
    # Its models take as long to load as all else of a command, and most commands need none.
    from gateway.config import load_config  # noqa: PLC0415

    return load_config(path, os.environ)


def read_config(path: Path) -> Config:
    """Return the configuration at `path`, or print every mistake to stderr and exit."""
    try:
        return load(path)
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.ERROR) from None


def _redact(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON has any type
    """Take out hashes of secrets, environments of upstreams and passwords in URLs."""
    if key in _SECRET_KEYS and value:
        return dict.fromkeys(value, REDACTED) if isinstance(value, dict) else REDACTED
    if isinstance(value, dict):
        return {name: _redact(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_redact(item) for item in value]
    return value
