"""Commands that work on the log of a stopped gateway, by taking its lock (DESIGN §2)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.admin_api import fail
from gateway.cli.config import DEFAULT_FILE, ConfigFile, read_config
from gateway.cli.exits import Exit
from gateway.core.errors import CountersignError

if TYPE_CHECKING:
    from gateway.wiring.audit import Offline

T = TypeVar("T")

OfflineOption = Annotated[
    bool,
    typer.Option("--offline", help="Ask no gateway: take the log of one that is stopped."),
]

__all__ = ["DEFAULT_FILE", "ConfigFile", "OfflineOption", "run_offline"]


def run_offline(config: Path, work: Callable[[Offline], Awaitable[T]]) -> T:
    """Do `work` on the log that a configuration names. Exits where a gateway holds it."""
    settings = read_config(config)
    # Loads everything; the other commands need not.
    from gateway.wiring.audit import open_offline  # noqa: PLC0415

    async def run() -> T:
        async with open_offline(settings) as offline:
            print(
                f"offline: no gateway is asked and nobody is authenticated; the record names "
                f"`{offline.by}`",
                file=sys.stderr,
            )
            return await work(offline)

    try:
        return asyncio.run(run())
    except CountersignError as error:
        fail(Exit.ERROR, str(error))
