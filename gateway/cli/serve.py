"""`countersign serve`: run the gateway."""

from __future__ import annotations

import errno
import socket

import typer

from gateway.cli.config import DEFAULT_FILE, ConfigFile, read_config
from gateway.cli.exits import Exit
from gateway.config.settings import Config
from gateway.core.errors import ConfigurationError, CountersignError


def serve(config: ConfigFile = DEFAULT_FILE) -> None:
    """Run the gateway until it is told to stop (SIGINT, SIGTERM or SIGHUP)."""
    settings = read_config(config)
    try:
        check_address(settings)
        from gateway.wiring import gateway  # noqa: PLC0415 - loads everything; the other commands need not

        gateway.serve(settings)
    except CountersignError as error:  # a policy without an answer, a state that cannot be opened
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.ERROR) from None


def check_address(config: Config) -> None:
    """Raise `ConfigurationError` when nothing can listen at the configured address.

    Asked before anything is opened, so that the message is about the port and nothing else.
    """
    host, port = config.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = {
                errno.EADDRINUSE: "is in use by another program; stop it or choose another port",
                errno.EACCES: "needs more privileges; choose a port above 1023",
            }.get(error.errno or 0, f"cannot be used: {error.strerror}; name one of this machine")
            raise ConfigurationError(f"listen: `{config.listen}` {why}") from None
