"""Where a gateway's log is, for commands that read recorded inputs: options, and what they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from gateway.adapters.audit.audit_openings import Vault
from gateway.cli.audit_filters import fail, open_vault, require_log
from gateway.cli.config import DEFAULT_FILE, load
from gateway.cli.exits import Exit
from gateway.cli.option_groups import OptionGroup
from gateway.core.errors import ConfigurationError


def find_file(given: Path | None) -> Path:
    """Return the configuration file of a command that could do without one."""
    return given or Path(os.environ.get("COUNTERSIGN_CONFIG") or DEFAULT_FILE)


class Places(Struct, frozen=True):
    """Where a log, the key to its openings and the bundles that decided are."""

    log: Path
    kek: Path
    bundles: Path

    def open_vault(self) -> Vault:
        """Return what opens the openings. Exits where there is no log, or no usable key."""
        require_log(self.log)
        vault = open_vault(self.log, self.kek)
        assert vault is not None  # noqa: S101 - there is a key
        return vault


class Where(OptionGroup, frozen=True, kw_only=True):
    """A log, by the gateway's configuration or by what is named."""

    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="The gateway's configuration; else COUNTERSIGN_CONFIG.",
        ),
    ] = None
    log: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="The log's directory, instead.")
    ] = None
    kek: Annotated[Path | None, typer.Option(metavar="FILE", help="The key to the openings.")] = (
        None
    )
    bundles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The policy bundles: `bundles` in DIR.")
    ] = None

    def find(self) -> Places:
        """Return where everything is. Exits with 2 where that is not said, or said twice."""
        if self.log is not None:
            if self.config is not None or self.kek is None:
                raise fail("give `--dir` with `--kek`, or else `--config` alone", Exit.USAGE)
            return Places(self.log, self.kek, self.bundles or self.log / "bundles")
        try:
            found = load(find_file(self.config)).audit
        except (ConfigurationError, OSError) as error:
            raise fail(f"{error}\nor name the log with `--dir` and `--kek`", Exit.USAGE) from None
        return Places(found.dir, self.kek or found.kek, self.bundles or found.dir / "bundles")
