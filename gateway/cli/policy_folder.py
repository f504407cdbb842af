"""What the commands of `countersign policy` share: a folder, its bundle, an engine to ask."""

from __future__ import annotations

import asyncio
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, cast, get_args

import orjson
import typer

from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.cli.exits import Exit
from gateway.core import strict_json
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.limits import Limits
from gateway.core.policy.decision import Decision, Phase

_DEADLINE_MS: Final = 2000
_CLOCK: Final = re.compile(rb'"now_ns"\s*:\s*[0-9]+')
"""The gateway's own clock, which is beyond what strangers may send as an integer."""


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of policies.")]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]
Input = Annotated[
    Path, typer.Option("--input", help="A policy input (rego/schemas/input.v1.json).")
]


def load(directory: Path) -> Bundle:
    """Return the bundle in a folder, or end with every reason why there is none."""
    try:
        return load_bundle_dir(require_folder(directory))
    except ConfigurationError as error:
        raise failed(error) from None


def write_input(file: Path, document: bytes) -> None:
    """Write a policy input for its owner alone: what it says may have been said in confidence.

    What stands there goes first: a link, or a file that others may read.
    """
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(document)


def require_folder(directory: Path) -> Path:
    """Return the folder, or end where there is none."""
    if not directory.is_dir():
        raise usage(f"there is no folder `{directory}`; name the one with the policies")
    return directory


def failed(error: CountersignError, code: Exit = Exit.ERROR) -> typer.Exit:
    """Tell an error, a line for each of its own, and return what ends the command."""
    for line in str(error).splitlines():
        typer.echo(f"error: {line}", err=True)
    return typer.Exit(code)


def usage(text: str) -> typer.Exit:
    """Tell how a command was used wrongly, and return what ends it."""
    typer.echo(f"error: {text}", err=True)
    return typer.Exit(Exit.USAGE)


def read_input(document: Path) -> tuple[Phase, bytes, dict[str, Any]]:
    """Return (phase, document as it is, document read); end where it is no input."""
    try:
        raw = document.read_bytes()
        value = strict_json.parse(_CLOCK.sub(b'"now_ns":0', raw), max_depth=Limits().json_max_depth)
    except OSError as error:
        raise usage(f"cannot read {document}: {error.strerror}") from None
    except CountersignError as error:
        raise failed(error, Exit.USAGE) from None
    phase = value.get("phase") if isinstance(value, dict) else None
    if not isinstance(value, dict) or phase not in get_args(Phase):
        raise usage(
            f"`phase` is none of {', '.join(get_args(Phase))}; "
            "`countersign policy question TOOL` prints a complete input"
        )
    return cast("Phase", phase), raw, orjson.loads(raw)


def ask(bundle: Bundle, phase: Phase, document: bytes) -> Decision:
    """Return the decision that the gateway's engine gives, or end with why there is none."""
    try:
        found = asyncio.run(try_engine(bundle, (phase, document)))
    except CountersignError as error:
        raise failed(error) from None
    return cast("Decision", found)


async def try_engine(
    bundle: Bundle, question: tuple[Phase, bytes] | None = None
) -> Decision | None:
    """Start the engine as the gateway does, so that the bundle is judged by the same gates.

    Raises what the engine raises: `ConfigurationError` for a bundle that it refuses.
    """
    engine = RegorusPolicy(bundle, workers=1, deadline_ms=_DEADLINE_MS)
    try:
        await engine.start()
        return None if question is None else await engine.decide("", *question)
    finally:
        await engine.stop()
